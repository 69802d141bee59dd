"""Checks of chapter 01: a byte count, a break-even rank, and a budget met on a real network."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from compedu import files
from compedu.course.answers import described, number
from compedu.course.hints import refuse_wrong_rank
from compedu.course.submitted import compressed
from compedu.evaluation import evaluate
from compedu.methods import Method
from compedu.methods.quantization.linear import LinearQuantization
from compedu.networks import build
from compedu.networks.shipped import trained
from compedu.pairs import load, load_data


def largest_rank(function: Callable[[int, int], int], seed: int) -> str:
    """Check a function (rows, columns) -> the largest rank whose two factors hold fewer numbers than the matrix."""
    for rows, columns in _shapes(np.random.default_rng(seed)):
        refuse_wrong_rank(number(function, rows, columns), rows, columns, f"{rows} x {columns}")
    return "rank times the sum of the sides stays below their product"


def _shapes(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yield shapes whose quotient has no remainder, the smallest or the largest one, then arbitrary shapes."""
    yield from ((2, 2), (3, 2), (1, int(rng.integers(2, 9))))
    for _ in range(3):
        p = int(rng.integers(1, 5))
        times = int(rng.integers(2, 12))
        m = int(rng.integers(4, 25))
        yield 2 * m, 2 * m
        yield times * p * (2 * p + 1), times * (p + 1) * (2 * p + 1)  # the quotient is times * p * (p + 1)
        yield m, m * m - m + 1
        yield m * m - m - 1, m
        yield int(rng.integers(10, 800)), int(rng.integers(10, 800))


def quantized_bytes(function: Callable[[int, int, int], float], seed: int) -> str:
    """Check a function (weights, others, bits) -> bytes of a file: weights in so many bits, other numbers as floats."""
    rng = np.random.default_rng(seed)
    drawn = ((f"lenet300(width={rng.integers(40, 60) / 100})", (3, 5, 6, 7)),
             (f"lenet300(width={rng.integers(40, 60) / 100})", (2, 4)),
             (f"lenet5(width={rng.integers(45, 60) / 100})", (3, 5, 8)))  # fmt: skip
    for spec, allowed in drawn:
        bits = int(rng.choice(allowed))
        model = build(spec)
        small = LinearQuantization(bits=bits)(model)
        weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
        channels = sum(len(p) for p in model.parameters() if p.ndim > 1)
        found = files.map_of(files.model_bytes(small, "packed"))
        written = sum(size for role, size in found.totals.items() if role != "header")
        told = number(function, weights, 2 * channels, bits)
        assert abs(told - 8 * written) > 0.1 * written, (
            f"you say {told:,.0f}: are these bits? Give bytes, of eight bits each"
        )
        assert abs(told - written) <= 8 * len(found.rows), (  # each part is padded to whole bytes
            f"{spec} at {bits} bits: for {weights:,} weights and {2 * channels} other numbers (a bias and a scale for "
            f"each output) you say {told:,.0f} bytes; the file has {'more' if written > told else 'fewer'}. Which of "
            f"the numbers have {bits} bits, which 32?"
        )
    return "the weights shrink; biases and scales stay floats"


@cache
def _right_when_dense() -> int:
    return evaluate(*load("lenet5", "glyphs")).correct


def budget(answer: Method, seed: int) -> str:
    """Check a method or pipeline that shrinks the file of lenet5 on glyphs to a fortieth and loses at most one point.

    It is measured on the validation images, whatever the seed.
    """
    method = described(answer)
    model = trained("lenet5", "glyphs")
    small = compressed(method, model)
    ratio = len(files.model_bytes(model)) / len(files.model_bytes(small))
    assert ratio >= 40, (
        f"{method!r} writes a file {ratio:.1f} times smaller; the goal is 40 times. The file tool shows which layer "
        "the bytes are in: what can two families do together to that layer?"
    )
    data = load_data("glyphs")
    lost = 100 * (_right_when_dense() - evaluate(small, data).correct) / len(data.y_validation)
    assert lost <= 1, (
        f"{method!r} is small enough, but loses {lost:.2f} points; allowed is 1. Which layer suffers most? The knobs "
        "take values per layer, and two mild steps may beat a harsh one"
    )
    return f"{ratio:.1f} times smaller, {lost:.2f} points lost"


CHECKS = (largest_rank, quantized_bytes, budget)
