"""The rank of a factorization: as a fraction or an integer, and the rank from which on nothing is saved."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from compedu.knobs import LARGEST, Knob, field_of

Ranks: TypeAlias = tuple[int, ...]  # channels between the layers in sequence, those that are free to choose


@dataclass(frozen=True)
class RankKnob(Knob):
    """A knob whose floats are fractions of the full rank and whose integers are ranks: 1.0 is all, 1 is rank one."""

    def _kept_one(self, value: Any) -> Any:
        kept = super()._kept_one(value)
        return int(value) if isinstance(value, (int, np.integer)) and type(kept) is float else kept

    def _allows_one(self, value: Any) -> bool:
        return 1 <= value <= LARGEST if type(value) is int else super()._allows_one(value)

    def __str__(self) -> str:
        """Both kinds of allowed values."""
        return f"a fraction of the full rank {self._range()}, 1.0 for all, or a rank, a whole number from 1 on"


def rank_knob(*, default: float, help: str, **ranges: Any) -> Any:
    """Declare a field of a method as a rank, for all layers or per layer; `ranges` are the fields of `Knob`."""
    return field_of(RankKnob(default, help, low=0.0, high=1.0, open="low", per_layer=True, **ranges))


def rank_from(value: float | int, full: int) -> int:
    """Return the rank for `value` and a full rank of `full`: a fraction is rounded to a rank of at least 1.

    >>> rank_from(0.25, 10), rank_from(0.001, 10), rank_from(1.0, 10), rank_from(1, 10)
    (2, 1, 10, 1)
    """
    return value if type(value) is int else max(1, round(value * full))


def break_even(rows: int, columns: int) -> float:
    """Return the rank at which two factors have as many values as the matrix: rows * columns / (rows + columns).

    >>> break_even(500, 800)
    307.6923076923077
    """
    return rows * columns / (rows + columns)


def largest_saving_rank(even: float) -> int:
    """Return the largest rank below the break-even rank `even`: the factors have fewer values; 0 if there is none.

    >>> largest_saving_rank(break_even(64 * 3, 64 * 3)), largest_saving_rank(break_even(1, 50))
    (95, 0)
    """
    return math.ceil(even) - 1
