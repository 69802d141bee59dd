"""Checks of exercises: they verify properties and measurements, hold no answers, and answer with a hint."""

from collections.abc import Callable
from typing import Any

from compedu.course import start_here, tour

CHECKS: dict[str, Callable[[Any], str]] = {check.__name__: check for check in (*start_here.CHECKS, *tour.CHECKS)}


def check(name: str, answer: Any) -> str:
    """Check `answer` to the exercise `name`: returns what is right about it, or raises `AssertionError` with a hint."""
    if name not in CHECKS:
        raise ValueError(f"no exercise is called {name!r}; there are: {', '.join(CHECKS)}")
    return "right: " + CHECKS[name](answer)
