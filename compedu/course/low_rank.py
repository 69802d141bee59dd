"""Checks of chapter 07: the largest rank that saves weights, and a filter that rank one cannot keep."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compedu.course.answers import described, kind_of, number
from compedu.course.hints import refuse_wrong_rank

SIDE = 3  # of the filter
HALF = 0.5  # of the energy, at most, may be left at rank one
ROUNDING = 1e-6  # of a share, also where an answer computes in single precision


def break_even(function: Callable[[list[int]], int], seed: int) -> str:
    """Check a function (shape of a weight) -> the largest rank whose two factors hold fewer weights, 0 without any.

    The shape is [out, in] for a linear layer; for a convolution it is [out, in, height, width], and its factors are a
    vertical convolution (rank, in, height, 1) and a horizontal one (out, rank, 1, width), as in Tai, Xiao, Zhang, Wang,
    E 2016 (arXiv:1511.06067, section 3).
    """
    for shape in _shapes(np.random.default_rng(seed)):
        out, inside, *window = shape
        given = number(function, list(shape))
        if not window:
            refuse_wrong_rank(given, out, inside, f"a linear layer {shape}")
            continue
        height, width = window
        question = (
            ". How many weights does one rank have in the vertical convolution, how many in the horizontal one, and "
            "which side of the kernel does each of them see?"
        )
        refuse_wrong_rank(given, inside * height, out * width, f"a convolution {shape}", question)
    return "rank times the weights of one rank stays below those of the layer, in both schemes"


def _shapes(rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield shapes of both kinds: the quotient whole, just above or below it; kernels not square; nothing to save."""
    yield from ([64, 64, 3, 3], [2, 2], [3, 2], [1, int(rng.integers(2, 50))])
    yield from ([1, 1, 1, int(rng.integers(2, 9))], [1, int(rng.integers(2, 9)), 3, 1])
    for _ in range(3):
        m = int(rng.integers(4, 25))
        yield [2 * m, 2 * m]
        yield [m, m * m - m + 1]  # the quotient is m - 1 + 1 / (m * m + 1)
        yield [m, m * m - m - 1]  # and here m - 1 - 1 / (m * m - 1)
        yield [int(rng.integers(10, 800)), int(rng.integers(10, 800))]
        yield [2 * m, 2 * m, 5, 5]
        yield [6 * m, 3 * m, 4, 2]  # both sides of the matrix are 12 * m
        yield [2 * m, 5 * m, 1, 7]
        yield [m, 3 * m, 7, 1]
        out, inside = (int(one) for one in rng.integers(8, 300, 2))
        height, width = (int(one) for one in rng.choice((1, 2, 3, 5, 7), 2, replace=False))
        yield [out, inside, height, width]


def hard_filter(answer: Any, seed: int) -> str:
    """Check a filter of 3 x 3 numbers of which the best approximation of rank one keeps at most half of the energy.

    Energy is the sum of squares; the best approximation keeps the square of the largest singular value (Eckart and
    Young 1936). There is one filter to find, whatever the seed.
    """
    values = torch.linalg.svdvals(_filter(described(answer)))
    shares = values.square() / values.square().sum()
    told = f"rank one keeps {shares[0]:.1%} of your filter's energy (ratios of its singular values: {_listed(values)})"
    assert shares[1:].sum() > ROUNDING, (
        f"{told}: its rows are multiples of one row, so a column and a row are all it needs. Filters for edges and "
        "smoothing are often like that. How must rows differ so that no single one stands for them?"
    )
    assert shares[0] <= HALF + ROUNDING, (
        f"{told}; at most {HALF:.0%} is allowed. A filter that is not separable can still be close to one that is. "
        "What must its singular values be like, and which rows have such: rows nearly parallel, or at right angles?"
    )
    return f"rank one keeps {shares[0]:.1%} of its energy, rank two {shares[:2].sum():.1%}"


def _listed(values: Tensor) -> str:
    return " : ".join(f"{float(value):.2f}" for value in values / values[0])


def _filter(said: Any) -> Tensor:
    """Return an answer as a tensor (3, 3), float64, its largest absolute value 1, or raise a hint."""
    wanted = f"give {SIDE} rows of {SIDE} numbers, as a list of lists, an array or a tensor"
    assert isinstance(said, (list, Tensor)), f"{wanted}, not a {kind_of(said)}"
    try:
        made = said if isinstance(said, Tensor) else torch.tensor(said, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # rows of several lengths, texts
        raise AssertionError(f"{wanted}, not {said!r:.60}") from error
    assert made.shape == (SIDE, SIDE), f"{wanted}; yours have the shape {tuple(made.shape)}"
    assert not made.is_complex(), f"{wanted}: real ones"
    made = made.double()
    assert bool(made.isfinite().all()), f"{wanted}; not all of yours are finite"
    largest = made.abs().max()
    assert largest > 0, "a filter of zeros has no energy that an approximation could keep"
    return made / largest


CHECKS = (break_even, hard_filter)
