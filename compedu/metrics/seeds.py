"""The mean over seeds and how certain it is: Student's interval."""

import math
from collections.abc import Sequence

from compedu.metrics.accuracy import Interval


def student_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean -+ t s / sqrt(n) of n paired differences, t the two-sided quantile, n - 1 degrees of freedom.

    Student 1908, The probable error of a mean, Biometrika 6, p. 1. Raises `ValueError` for fewer than two.

    >>> [round(end, 2) for end in student_interval([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    middle = mean(differences)
    half = quantile(len(differences), confidence) * standard_error(differences)
    return middle - half, middle + half


def quantile(seeds: int, confidence: float) -> float:
    """Return the half width of the interval for the mean of `seeds` differences, in standard errors."""
    from scipy import stats

    return float(stats.t.ppf((1 + confidence) / 2, seeds - 1))


def standard_error(differences: Sequence[float]) -> float:
    """Return s / sqrt(n), s with n - 1 in its denominator; `ValueError` for fewer than two differences."""
    if len(differences) < 2:
        raise ValueError(f"a spread needs at least 2 seeds, got {len(differences)}: run more")
    middle = mean(differences)
    return math.sqrt(sum((d - middle) ** 2 for d in differences) / (len(differences) - 1) / len(differences))


def mean(values: Sequence[float]) -> float:
    """Return the mean; of no values it is not a number."""
    return sum(values) / len(values) if values else math.nan
