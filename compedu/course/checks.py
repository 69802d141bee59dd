"""Checks of exercises: they verify properties and measurements, by simulation where that would give a formula away."""

from collections.abc import Callable
from typing import Any

from compedu.course import pruning, start_here, tour
from compedu.errors import first_line

CHECKS: dict[str, Callable[[Any], str]] = {
    check.__name__: check for check in (*start_here.CHECKS, *tour.CHECKS, *pruning.CHECKS)
}


class NotYet(AssertionError):
    """An answer that is not right yet; notebooks show the hint alone, without the way through our code."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints in place of a traceback."""
        return [f"not yet: {self}"]


def check(name: str, answer: Any) -> str:
    """Check `answer` to the exercise `name`: returns what is right about it, or raises `NotYet` with a hint."""
    if name not in CHECKS:
        raise ValueError(f"no exercise is called {name!r}; there are: {', '.join(CHECKS)}")
    if answer is ...:
        raise NotYet("the answer is still three dots: write yours in their place")
    try:
        return "right: " + CHECKS[name](answer)
    except AssertionError as hint:
        raise NotYet(str(hint)) from hint.__cause__
    except Exception as error:  # an answer may be anything: what no check thought of is still no reason for a traceback
        raise NotYet(f"this answer cannot be checked, {type(error).__name__}: {first_line(error)}") from error
