"""Checks of chapter 01: a byte count, a break-even rank, and a budget met on a real network."""

from collections.abc import Callable
from numbers import Integral

from compedu import files
from compedu.course.start_here import number
from compedu.evaluation import evaluate
from compedu.methods import Method
from compedu.methods.quantization.linear import LinearQuantization
from compedu.networks import build
from compedu.pairs import load


def largest_rank(function: Callable[[int, int], int]) -> str:
    """Check a function (rows, columns) -> the largest rank whose two factors hold fewer numbers than the matrix."""
    for rows, columns in ((500, 800), (64, 64), (10, 500), (3, 2), (96, 32)):
        rank = number(function, rows, columns)
        assert isinstance(rank, Integral), f"a rank is a whole number, you give {rank!r}"
        told = f"for {rows} x {columns} you give {rank}: the factors then hold {rank * (rows + columns):,} numbers"
        assert rank * (rows + columns) < rows * columns, f"{told}, the matrix {rows * columns:,}. Saving nothing is not saving"
        assert (rank + 1) * (rows + columns) >= rows * columns, f"{told}; one rank more would still save some"
    return "rank times the sum of the sides stays below their product"


def quantized_bytes(function: Callable[[int, int, int], float]) -> str:
    """Check a function (weights, others, bits) -> bytes of a file: weights in so many bits, other numbers as floats."""
    for spec, bits in (("lenet300(width=0.5)", 4), ("lenet300(width=0.5)", 3), ("lenet5(width=0.5)", 8)):
        model = build(spec)
        small = LinearQuantization(bits=bits)(model)
        weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
        channels = sum(len(p) for p in model.parameters() if p.ndim > 1)
        written, told = len(files.model_bytes(small, "packed")), number(function, weights, 2 * channels, bits)
        assert abs(told - written) <= 0.02 * written + 400, (
            f"{spec} at {bits} bits: {weights:,} weights and {2 * channels} other numbers (a bias and a scale for each "
            f"output) make a file of {written:,} bytes; you say {told:,.0f}. Which of the numbers have {bits} bits, which 32?"
        )
    return "the weights shrink; biases and scales stay floats"


def budget(method: Method) -> str:
    """Check a method (or pipeline) that must write lenet5 on digits into an eighth, losing at most one point."""
    assert isinstance(method, Method), f"give a method such as MagnitudePruning(sparsity=0.5), or several joined by |, not {method!r}"
    assert method.needs != "training", f"{method!r} trains; this budget is met without"
    model, data = load("lenet5", "digits")
    small = method(model, data)
    ratio = len(files.model_bytes(model)) / len(files.model_bytes(small))
    lost = evaluate(model, data).correct - evaluate(small, data).correct
    assert ratio >= 8, f"{method!r} writes a file {ratio:.1f} times smaller; wanted is 8 times. Which knob is still generous?"
    allowed = len(data.y_validation) // 100
    assert lost <= allowed, f"{method!r} loses {lost} of {len(data.y_validation)} images; allowed are {allowed}. Two mild steps may beat a harsh one"
    return f"{ratio:.1f} times smaller, {lost} images lost"


CHECKS = (largest_rank, quantized_bytes, budget)
