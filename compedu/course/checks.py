"""Checks of exercises: they verify properties and measurements, by simulation where a formula would reveal the answer.

Each check draws new cases, so that no table of answers passes; a hint names the seed that draws the same cases again.
"""

import os
import secrets
from collections.abc import Callable
from typing import Any

from compedu.course import distillation, low_rank, outlier, pruning, quantization, rank_budget, start_here, tour
from compedu.errors import first_line

SEED = "COMPEDU_SECRET_SEED"  # an instructor's own seed for all cases

CHECKS: dict[str, Callable[[Any, int], str]] = {
    check.__name__: check
    for chapter in (start_here, tour, pruning, quantization, outlier, low_rank, rank_budget, distillation)
    for check in chapter.CHECKS
}


class NotYet(AssertionError):
    """An answer that is not right yet; notebooks show the hint alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints in place of a traceback."""
        return [f"not yet: {self}"]


def check(name: str, answer: Any, seed: int | None = None) -> str:
    """Check `answer` to the exercise `name`: returns what is right about it, or raises `NotYet` with a hint.

    `seed` draws the cases; the default is random, or the environment variable COMPEDU_SECRET_SEED.
    """
    if name not in CHECKS:
        raise ValueError(f"no exercise is called {name!r}; there are: {', '.join(CHECKS)}")
    if seed is None:
        seed = int(os.environ.get(SEED) or secrets.randbelow(10**6))
    try:
        return "right: " + CHECKS[name](answer, seed)
    except AssertionError as hint:
        raise NotYet(f"{hint} (seed={seed} draws the same cases again)") from hint.__cause__
    except Exception as error:  # an answer may be anything; an unforeseen one gives no traceback either
        raise NotYet(f"this answer cannot be checked, {type(error).__name__}: {first_line(error)}") from error
