"""How certain an accuracy is, and a difference between two networks on the same images."""

import math
from dataclasses import dataclass

from torch import Tensor

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution

Interval = tuple[float, float]


def wilson(correct: int, total: int) -> Interval:
    """Return the 95 % score interval of a share of `correct` among `total` > 0, both ends in 0..1.

    Unlike the textbook p +- 1.96 s it holds for few images and for shares near 0 and 1 (Wilson 1927, Journal of the
    American Statistical Association 22, p. 209).
    """
    share = correct / total
    z2 = Z95 * Z95
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(broke: int, fixed: int) -> float:
    """Return the exact two-sided p-value of "as many images are broken as fixed" (McNemar 1947, Psychometrika 12).

    Only images that exactly one of the networks gets wrong count; under the null hypothesis each is a fair coin toss.

    >>> round(mcnemar(20, 10), 3)
    0.099
    """
    tosses = broke + fixed
    fewer = min(broke, fixed)
    term = ways = 1  # the number of ways to get at most `fewer` heads, summed up in integers
    # Binomial coefficients by C(n, k + 1) = C(n, k) (n - k) / (k + 1), exact whatever the number of tosses.
    for heads in range(fewer):
        term = term * (tosses - heads) // (heads + 1)
        ways += term
    return min(1.0, 2 * ways / 2**tosses)


def paired_interval(broke: int, fixed: int, total: int) -> Interval:
    """Return the 95 % interval of (fixed - broke) / total, the difference of two accuracies on the same images.

    The normal interval after adding one image to each count (Bonett and Price 2012, Journal of Educational and
    Behavioral Statistics 37, p. 479). It is widened to include 0 where the exact test does not reject at 5 %, so that
    interval and `mcnemar` never contradict each other, which can only raise its coverage.
    """
    lost = (broke + 1) / (total + 2)
    won = (fixed + 1) / (total + 2)
    half = Z95 * math.sqrt((lost + won - (won - lost) ** 2) / (total + 2))
    low = max(-1.0, won - lost - half)
    high = min(1.0, won - lost + half)
    return (min(low, 0.0), max(high, 0.0)) if mcnemar(broke, fixed) >= 0.05 else (low, high)


@dataclass(frozen=True)
class Change:
    """Changed predictions against the baseline's on `total` images: `broke` were right before, `fixed` wrong."""

    broke: int
    fixed: int
    total: int

    @classmethod
    def between(cls, was: Tensor, now: Tensor) -> "Change":
        """Return the change where `was` and `now` say of each image whether it is correct (booleans)."""
        return cls(int((was & ~now).sum()), int((now & ~was).sum()), len(now))

    @property
    def difference(self) -> float:
        """The accuracy minus the baseline's, in -1..1."""
        return (self.fixed - self.broke) / self.total

    @property
    def interval(self) -> Interval:
        """The 95 % interval of `difference`."""
        return paired_interval(self.broke, self.fixed, self.total)

    @property
    def p_value(self) -> float:
        """The exact two-sided p-value of McNemar's test."""
        return mcnemar(self.broke, self.fixed)
