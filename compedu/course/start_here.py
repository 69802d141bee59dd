"""Checks of chapter 00: intervals, paired comparison, three sizes, the survey's criteria."""

import math
from collections.abc import Callable

import numpy as np

from compedu import files
from compedu.course.answers import number, numbers
from compedu.metrics.accuracy import Z95
from compedu.networks import build

ROUNDING = 1e-9  # of the last bits of a right formula
COINS = 100_000  # imagined repetitions: a probability is then known to three standard errors of a percent at most


def interval(function: Callable[[int, int], tuple[float, float]]) -> str:
    """Check a function (correct, total) -> (low, high): the Wilson 95 % interval (Wilson 1927)."""
    for correct, total in ((0, 50), (45, 50), (3480, 4000), (397, 397), (1, 7)):
        low, high = numbers(function, 2, correct, total)
        share = correct / total
        assert high <= 1.5, (
            f"for {correct} of {total} you give up to {high:.4g}: an interval of shares, from 0 to 1, not of percent"
        )
        assert -ROUNDING <= low <= share + ROUNDING and share - ROUNDING <= high <= 1 + ROUNDING, (
            f"for {correct} of {total} you give [{low:.4f}, {high:.4f}]: the interval must hold {share:.4f} and "
            "stay inside 0..1. Does yours leave it where all answers are right?"
        )
        for end in (low, high):
            spread = math.sqrt(max(0.0, end * (1 - end)) / total)
            assert abs(abs(share - end) - Z95 * spread) < 2e-4, (
                f"for {correct} of {total}, the end {end:.4f} is {abs(share - end):.4f} away from the observed "
                f"share, but {Z95:.2f} standard errors AT THAT END are {Z95 * spread:.4f}. "
                "Which share stands under the root?"
            )
    return "each end is the share from which the observation is just 1.96 standard errors away"


def paired(function: Callable[[int, int], float]) -> str:
    """Check a function (broke, fixed) -> p: the exact two-sided McNemar test (McNemar 1947)."""
    for broke, fixed in ((20, 10), (10, 20), (0, 6), (41, 17), (3, 3), (0, 0)):
        n = broke + fixed
        heads = np.random.default_rng(n).binomial(n, 0.5, COINS)
        as_uneven = float((np.abs(2 * heads - n) >= abs(broke - fixed)).mean())
        p = number(function, broke, fixed)
        assert 0 <= p <= 1, f"for {broke} broken and {fixed} fixed you give {p}: a probability lies in 0..1"
        assert abs(p - number(function, fixed, broke)) < 1e-12, (
            "swapping broken and fixed must not change a two-sided test"
        )
        noise = 5 * math.sqrt(max(as_uneven * (1 - as_uneven), 1 / COINS) / COINS)
        assert p == 1 or abs(2 * p - as_uneven) > noise, (
            f"for {broke} broken and {fixed} fixed you give {p:.4f}, half of what imagined coins give: the other "
            "side would have been just as surprising"
        )
        assert abs(p - as_uneven) <= noise, (
            f"for {broke} broken and {fixed} fixed you give {p:.4f}; of {COINS:,} imagined rounds of {n} fair coins, "
            f"{as_uneven:.4f} were at least this uneven. How likely is such a split, counting both sides?"
        )
    return "only the images on which the two networks differ count, each a fair coin under pure noise"


def dense_bytes(function: Callable[[int], float]) -> str:
    """Check a function (parameters) -> bytes of a dense file in 32-bit floats, header left out."""
    for spec in ("lenet300(width=0.1)", "lenet5(width=0.3)"):
        model = build(spec)
        count = sum(p.numel() for p in model.parameters())
        written, told = len(files.model_bytes(model, "packed")), number(function, count)
        assert written - 400 <= told <= written, (
            f"{spec} has {count:,} parameters and its file {written:,} bytes; you say {told:,.0f}. "
            "How many bits has a parameter, and how many bits a byte?"
        )
    return "the file is the parameters and a short header"


def criteria(function: Callable[[float, float, float, float], tuple[float, float, float, float]]) -> str:
    """Check a function (a, a_small, s, s_small) -> (alpha, beta as printed, saving as usual, delta)."""
    for a, small, s, fast in ((1000.0, 250.0, 8.0, 4.0), (61e6, 12.3e6, 1.0, 1.2), (5.0, 5.0, 2.0, 2.0)):
        alpha, printed, usual, delta = numbers(function, 4, a, small, s, fast)
        assert abs(alpha * small - a) < 1e-6 * a, (
            f"alpha says how many times larger the original is; {alpha} times {small} is not {a}"
        )
        assert abs(printed * small - (a - small)) < 1e-6 * a, (
            "beta as the survey prints it has the small network below the line"
        )
        assert abs(usual * a - (a - small)) < 1e-6 * a, (
            "the usual space saving is a share of the original: never above 1"
        )
        assert abs(delta * fast - s) < 1e-9 * s, (
            f"delta says how many times faster; {delta} times {fast} s is not {s} s"
        )
    return "alpha, both readings of beta, and delta"


CHECKS = (interval, paired, dense_bytes, criteria)
