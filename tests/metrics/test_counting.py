"""Counting turns switches of the whole process, which it must leave as they were, whoever counts at the same time."""

import threading

import torch

from compedu.metrics.counting import in_simple_steps


def test_two_threads_that_count_at_once_leave_the_switches_on():
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def first():
        with in_simple_steps():
            first_is_in.set()
            second_is_in.wait(0.5)  # it comes in only if nothing keeps it out
        first_is_out.set()

    def second():
        first_is_in.wait(10)
        with in_simple_steps():
            second_is_in.set()
            seen.append(torch.backends.mha.get_fastpath_enabled())
            first_is_out.wait(10)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False] and torch.backends.mha.get_fastpath_enabled()
