"""Memory goes back to the system where it can."""

import pytest

from compedu import memory


@pytest.mark.parametrize("known", [True, False])
def test_garbage_is_collected_and_freed_memory_trimmed_where_the_system_can(monkeypatch, known):
    called = []
    monkeypatch.setattr(memory, "_malloc_trim", lambda: called.append if known else None)
    monkeypatch.setattr(memory.gc, "collect", lambda: called.append("collected"))
    memory.give_back()
    assert called == (["collected", 0] if known else ["collected"])


def test_the_systems_function_can_be_called():
    memory.trim()
    found = memory._malloc_trim()
    assert found is None or found(0) in (0, 1)
