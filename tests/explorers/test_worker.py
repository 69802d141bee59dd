"""The worker of an explorer: the newest request wins, failures are told, and nothing runs after the end."""

import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

from compedu.explorers.runner import Runner


def waiting_work(started, go, done):
    """Work that begins, waits to be let go, and notes what it finished."""

    def work(request, stale):
        started.put(request)
        go.wait(30)
        if not stale():
            done.append(request)

    return work


def test_of_many_requests_only_the_newest_is_finished():

    started, go, done = queue.Queue(), threading.Event(), []
    runner = Runner(waiting_work(started, go, done), lambda request, error, stale: done.append(error))
    runner.request(0)
    started.get(timeout=30)
    for request in range(1, 100):
        runner.request(request)
        assert runner.pending <= 2
    go.set()
    assert runner.settle(30) and done == [99] and runner.pending == 0
    runner.close()


def test_what_is_cancelled_is_not_finished():

    started, go, done = queue.Queue(), threading.Event(), []
    runner = Runner(waiting_work(started, go, done), lambda request, error, stale: done.append(error))
    runner.request("cancelled")
    started.get(timeout=30)
    runner.cancel()
    go.set()
    assert runner.settle(30) and done == []
    runner.request("next")
    assert runner.settle(30) and done == ["next"]
    runner.close()


def test_settle_says_when_it_is_not_done_in_time():
    go = threading.Event()
    runner = Runner(lambda request, stale: go.wait(30), lambda request, error, stale: None)
    runner.request(1)
    assert not runner.settle(0.05)
    go.set()
    assert runner.settle(30)
    runner.close()


def test_a_failure_is_told_and_the_worker_lives_on():
    told = []

    def work(request, stale):
        if request == "bad":
            raise RuntimeError("no such luck")
        told.append(request)

    runner = Runner(work, lambda request, error, stale: told.append((request, str(error))))
    runner.request("bad")
    assert runner.settle(30)
    runner.request("good")
    assert runner.settle(30) and told == [("bad", "no such luck"), "good"]
    runner.close()


def test_nothing_runs_after_close():
    done = []
    runner = Runner(lambda request, stale: done.append(request), lambda request, error, stale: None)
    runner.close()
    runner.request(1)
    assert runner.settle(5) and done == []


def test_a_program_that_ends_while_an_explorer_measures_ends_in_peace():
    """The lines of the README as a script: the worker is told to stop, and waited for."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    program = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1].replace('"glyphs"', '"digits"')
    assert "ce.explore(" in program
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "accuracy" in done.stdout


def test_in_synchronous_mode_a_request_is_done_when_it_returns(monkeypatch):
    monkeypatch.setenv("COMPEDU_SYNC", "1")
    threads = []
    runner = Runner(
        lambda request, stale: threads.append(threading.current_thread()), lambda request, error, stale: None
    )
    runner.request(1)
    assert threads == [threading.main_thread()]
