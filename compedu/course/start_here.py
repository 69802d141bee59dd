"""Checks of chapter 00: intervals, paired comparison, three sizes, the survey's criteria."""

import math
from collections.abc import Callable

import numpy as np

from compedu import files
from compedu.course.answers import number, numbers
from compedu.metrics.accuracy import Z95
from compedu.networks import build

ROUNDING = 1e-5  # tolerance for a right formula, also in single precision
COINS = 100_000  # simulated repetitions: the standard error of a probability is then below 0.2 %
COUNTED = 14  # up to this number of coins, all outcomes are enumerated


def interval(function: Callable[[int, int], tuple[float, float]], seed: int) -> str:
    """Check a function (correct, total) -> (low, high): the Wilson 95 % interval (Wilson 1927)."""
    rng = np.random.default_rng(seed)
    few, some, many = (int(rng.integers(*ends)) for ends in ((5, 13), (30, 90), (2000, 5000)))
    cases = [(0, some), (some, some), (many, many), (0, few), (few, few)]
    cases += [(int(rng.integers(1, total)), total) for total in (few, some, many)]
    for correct, total in cases:
        low, high = numbers(function, 2, correct, total)
        share = correct / total
        assert high <= 1.5, (
            f"for {correct} of {total} you give up to {high:.4g}: give shares, from 0 to 1, not percentages"
        )
        assert -ROUNDING <= low <= share + ROUNDING and share - ROUNDING <= high <= 1 + ROUNDING, (
            f"for {correct} of {total} you give [{low:.4f}, {high:.4f}]: the interval must hold {share:.4f} and "
            "stay inside 0..1. Does yours leave it where all answers are right?"
        )
        assert high - low > ROUNDING, (
            f"for {correct} of {total} your interval is the single share {low:.4f}. Would {total} answers make you "
            "that certain? The equation has another solution"
        )
        for end in (low, high):
            _check_end(end, correct, total)
    return "each end is the share from which the observation is just 1.96 standard errors away"


def _check_end(end: float, correct: int, total: int) -> None:
    apart = abs(correct / total - end)
    spread = math.sqrt(max(0.0, end * (1 - end)) / total)
    assert abs(apart - Z95 * spread) < 2e-4, (
        f"for {correct} of {total}, the end {end:.4f} lies {'beyond' if apart > Z95 * spread else 'within'} "
        f"{Z95:.2f} standard errors AT THAT END of the observed share. Which share stands under the root?"
    )


def paired(function: Callable[[int, int], float], seed: int) -> str:
    """Check a function (broke, fixed) -> p: the exact two-sided McNemar test (McNemar 1947)."""
    rng = np.random.default_rng(seed)
    few, some = (int(rng.integers(*ends)) for ends in ((1, 4), (9, 14)))
    cases = [(few + 4, few), (few, few + 5), (0, 6), (some, some + 11), (some + 15, some), (few, few), (0, 0)]
    for broke, fixed in cases:
        as_uneven, noise = _as_uneven(broke, fixed, rng)
        told = f"for {broke} broken and {fixed} fixed you give"
        p = number(function, broke, fixed)
        assert 0 <= p <= 1 + ROUNDING, f"{told} {p}: a probability lies in 0..1"
        assert abs(p - number(function, fixed, broke)) < ROUNDING, (
            "swapping broken and fixed must not change a two-sided test"
        )
        assert p >= 1 or abs(2 * p - as_uneven) > noise, (
            f"{told} {p:.4f}, half of what simulated coins give: the other side would have been just as surprising"
        )
        assert abs(p - as_uneven) <= noise, (
            f"{told} {p:.4f}; in a simulation, {broke + fixed} fair coins split at least this unevenly "
            f"{'more' if as_uneven > p else 'less'} often. How likely is such a split, counting both sides?"
        )
    return "only the images on which the two networks differ count, each a fair coin under pure noise"


def _as_uneven(broke: int, fixed: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return how often coins split as unevenly, and its error bound: few coins are enumerated, many are simulated."""
    n = broke + fixed
    if n <= COUNTED:
        heads = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).sum(1)
    else:
        heads = rng.binomial(n, 0.5, COINS)
    share = float((np.abs(2 * heads - n) >= abs(broke - fixed)).mean())
    return share, ROUNDING if n <= COUNTED else 5 * math.sqrt(max(share * (1 - share), 1 / COINS) / COINS)


def dense_bytes(function: Callable[[int], float], seed: int) -> str:
    """Check a function (parameters) -> bytes of a dense file in 32-bit floats, header left out."""
    rng = np.random.default_rng(seed)
    for network in ("lenet300", "lenet5"):
        model = build(f"{network}(width={rng.integers(10, 40) / 100})")
        count = sum(p.numel() for p in model.parameters())
        found = files.map_of(files.model_bytes(model, "packed"))
        written = found.totals
        told = number(function, count)
        wanted = sum(size for role, size in written.items() if role != "header")
        assert abs(told - wanted) < ROUNDING * wanted, (
            f"a network of {count:,} parameters has a file of {'more' if wanted > told else 'fewer'} bytes than you "
            "say. How many bits does a parameter have, and how many a byte?"
        )
    return "the file is the parameters and a short header"


def criteria(function: Callable[[float, float, float, float], tuple[float, float, float, float]], seed: int) -> str:
    """Check a function (a, a_small, s, s_small) -> (alpha, beta as printed, standard space saving, delta)."""
    rng = np.random.default_rng(seed)
    for times in (rng.uniform(1.5, 20), rng.uniform(0.3, 0.9), 1.0):  # smaller, larger, as large
        small = 1000 * rng.uniform(1, 900)
        fast = rng.uniform(0.1, 9)
        faster = rng.uniform(0.4, 3)
        a = float(small * times)
        s = float(fast * faster)
        alpha, printed, saving, delta = numbers(function, 4, a, float(small), s, float(fast))
        near = ROUNDING * max(a, small)
        assert abs(alpha * small - a) < near, (
            f"alpha says how many times larger the original is; {alpha} times {small} is not {a}"
        )
        assert abs(printed * small - (a - small)) < near, (
            "beta as the survey prints it has the small network in the denominator"
        )
        assert abs(saving * a - (a - small)) < near, (
            "the standard space saving is a fraction of the original: never above 1"
        )
        assert abs(delta * fast - s) < ROUNDING * s, (
            f"delta says how many times faster; {delta} times {fast} s is not {s} s"
        )
    return "alpha, both readings of beta, and delta"


CHECKS = (interval, paired, dense_bytes, criteria)
