"""What was measured last: kept while nothing that it depends on changes, for each network, and never another's."""

import gc
import weakref

import pytest
import torch
from torch import nn

from compedu.methods import last_result as module
from compedu.methods.last_result import bytes_of, last_result


def test_the_last_result_is_kept_for_each_network_and_kind():
    one, other, asked = nn.ReLU(), nn.ReLU(), []

    def get(network, kind, key):
        return last_result(network, kind, key, lambda: asked.append((kind, key)) or f"{kind} of {key}")

    for _ in range(2):
        assert get(one, "scan", ("a",)) == "scan of ('a',)"
        assert get(one, "curvatures", ("a",)) == "curvatures of ('a',)"
        assert get(other, "scan", ("b",)) == "scan of ('b',)"
    assert len(asked) == 3
    get(one, "scan", ("b",))
    get(one, "scan", ("a",))
    assert len(asked) == 5


def test_a_large_result_is_not_kept():
    network, asked = nn.ReLU(), []
    for size in (10, 10, 11, 11):
        last_result(network, "kind", (size,), lambda size=size: asked.append(size) or {"a": torch.zeros(size)}, 40)
    assert asked == [10, 11, 11]


def test_the_result_of_another_thread_is_not_taken_for_this_one(monkeypatch):
    network = nn.ReLU()
    last_result(network, "kind", ("mine",), lambda: "mine")

    class Switching(dict):
        """Another thread asks about the same network after each look."""

        def get(self, name, default=None):
            found = super().get(name, default)
            self[name] = ("theirs",), "theirs"
            return found

    monkeypatch.setitem(module._last, network, Switching(module._last[network]))
    assert last_result(network, "kind", ("mine",), lambda: pytest.fail("measured again")) == "mine"
    assert last_result(network, "kind", ("new",), lambda: "new") == "new"


def test_no_network_is_kept_alive():
    network = nn.ReLU()
    last_result(network, "kind", (), lambda: "result")
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


def test_bytes_are_those_of_the_tensors_wherever_they_are():
    class Holding:
        def __init__(self):
            self.matrix = torch.zeros(3)
            self.name = "abc"

    assert bytes_of({"a": [torch.zeros(2), 1.5, None], "b": Holding()}) == 4 * 5
