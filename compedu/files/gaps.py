"""Positions of the kept weights, as the gaps between them: Deep Compression's relative index.

Han, Mao and Dally (2016, section 2, arXiv:1510.00149). A gap is written with a fixed number of bits. One that is too
long is bridged by fillers: the code of all ones says "skip 2^width - 1 places, nothing is here". The paper stores a
weight of zero at such a place; here the code is reserved for fillers, so that none is stored.
"""

from collections.abc import Callable

import numpy as np

MAX_WIDTH = 16


def to_gaps(positions: np.ndarray, width: int) -> np.ndarray:
    """Return the codes (uint16, each below 2^width) of sorted, distinct `positions` >= 0, fillers included."""
    filler = 2**width - 1
    fillers, rest = np.divmod(distances(positions), filler)
    ends = np.cumsum(fillers + 1) - 1
    codes = np.full(int(ends[-1]) + 1 if ends.size else 0, filler, np.uint16)
    codes[ends] = rest
    return codes


def from_gaps(codes: np.ndarray, width: int) -> np.ndarray:
    """Return the positions (int64) that `to_gaps` encoded."""
    filler = 2**width - 1
    is_filler = codes == filler
    places = np.cumsum(np.where(is_filler, filler, codes.astype(np.int64) + 1))
    return places[~is_filler] - 1


def distances(positions: np.ndarray) -> np.ndarray:
    """Return how many places are skipped before each position (int64, all >= 0); raise `ValueError` if unsorted."""
    skipped = np.diff(np.asarray(positions, np.int64), prepend=-1) - 1
    if skipped.size and skipped.min() < 0:
        raise ValueError("positions must be sorted, distinct and not negative")
    return skipped


def gap_counts(skipped: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """Return how often each of the 2^width gap codes occurs, when a distance `skipped[i]` occurs `counts[i]` times."""
    fillers, rest = np.divmod(skipped, 2**width - 1)
    occurrences = np.bincount(rest, counts, 2**width).astype(np.int64)
    occurrences[-1] = int(fillers @ counts)
    return occurrences


def best_width(positions: np.ndarray, cost: Callable[[np.ndarray, int], float]) -> int:
    """Return the width, 1 to 16 bits, of smallest `cost(counts of the gap codes, width)`; ties go to the smaller width.

    Width 1 is a bitmap: 0 for a place that holds a weight, 1 for any other.
    """
    occurrences = np.bincount(distances(positions))
    skipped = np.flatnonzero(occurrences)
    counts = occurrences[skipped]
    widest = min(MAX_WIDTH, int(skipped[-1] + 1).bit_length()) if skipped.size else 1
    return min(range(1, widest + 1), key=lambda width: cost(gap_counts(skipped, counts, width), width))
