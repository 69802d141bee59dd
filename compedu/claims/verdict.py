"""From differences over seeds to a verdict: Student's interval, one margin, and one rule, printed as it is applied.

Each seed gives one paired difference between two arms, in one unit. The claim's direction is positive.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compedu.metrics.seeds import mean, quantile, standard_error, student_interval

CLAIMS_READ_TOGETHER = 16  # the verdicts on the survey's drawbacks and suggestions
ALPHA = 0.05  # the probability that an interval misses; half of it on the side where a decision would be wrong
POWER = 0.8  # the probability of detection that defines the minimum detectable effect


class Verdict(StrEnum):
    """The verdict of runs on a claim."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    SPLIT = "split"
    UNDECIDED = "undecided"
    PROXY = "testable only by proxy"


def minimum_detectable_effect(
    differences: Sequence[float], confidence: float = 1 - ALPHA, power: float = POWER
) -> float:
    """Return the true difference that runs of this spread and number would detect with probability `power`.

    It is l s / sqrt(n), with l such that the non-central t distribution, n - 1 degrees of freedom, has `power` above
    the quantile of the interval (Cohen 1988, Statistical power analysis for the behavioral sciences, chapter 2).
    """
    from scipy import optimize, stats

    seeds = len(differences)
    error = standard_error(differences)
    reach = quantile(seeds, confidence)
    # The power grows with the non-centrality from alpha / 2 at zero, so there is one root.
    shift = optimize.brentq(lambda shift: stats.nct.cdf(reach, seeds - 1, shift) - (1 - power), 0, 2 * reach + 2)
    return float(shift) * error


@dataclass(frozen=True)
class Rule:
    """The `margin` that an effect is judged by, in its `unit`, as `CLAUSES` says.

    With `ratio` the values are ratios, which are compared as logarithms; no effect is then 1, otherwise 0. Raises
    `ValueError` for a margin that means no effect, or is not a ratio.
    """

    margin: float
    unit: str
    ratio: bool = False

    def __post_init__(self):
        if self.margin == self.nothing or (self.ratio and not self.margin > 0):
            kind = "a positive ratio other than 1" if self.ratio else "a difference other than 0"
            raise ValueError(f"Rule.margin must be {kind}, got {self.margin!r}: the smallest effect that matters")

    @property
    def nothing(self) -> float:
        """The value that means no effect."""
        return 1.0 if self.ratio else 0.0

    def is_below(self, effect: "Effect") -> bool:
        """Tell whether there is an effect in the claim's direction, but a smaller one than the margin."""
        return self.nothing < effect.low and effect.high < self.margin

    def decide(self, effect: "Effect") -> Verdict:
        """Return the verdict on an effect: that of the first of `CLAUSES` that holds."""
        return next(clause.verdict for clause in CLAUSES if clause.holds(effect, self.margin))


@dataclass(frozen=True)
class Effect:
    """The mean effect over seeds with its interval, and the minimum detectable effect.

    For ratios the mean is the geometric one, and the minimum detectable effect a factor above 1.
    """

    mean: float
    low: float
    high: float
    minimum_detectable_effect: float
    seeds: int
    confidence: float

    @classmethod
    def of(cls, values: Sequence[float], rule: Rule, confidence: float = 1 - ALPHA) -> "Effect":
        """Return the effect of `values`, one per seed; `ValueError` for values that are not finite, or not ratios."""
        if not all(math.isfinite(value) for value in values) or (rule.ratio and min(values, default=1) <= 0):
            raise ValueError(f"effects must be finite{', ratios positive' if rule.ratio else ''}; got {list(values)}")
        scale, back = (math.log, math.exp) if rule.ratio else (float, float)
        scaled = [scale(value) for value in values]
        low, high = student_interval(scaled, confidence)
        least = back(minimum_detectable_effect(scaled, confidence))
        return cls(back(mean(scaled)), back(low), back(high), least, len(scaled), confidence)


@dataclass(frozen=True)
class Clause:
    """A line of the rule: the verdict, its condition in words, and the same condition on an effect and the margin."""

    verdict: Verdict
    words: str
    holds: Callable[[Effect, float], bool]


CLAUSES = (  # the first that holds decides
    Clause(Verdict.UNDECIDED, "all seeds alike", lambda effect, margin: effect.low == effect.high),
    Clause(Verdict.CONFIRMED, "interval above the margin", lambda effect, margin: effect.low > margin),
    Clause(Verdict.REFUTED, "below it", lambda effect, margin: effect.high < margin),
    Clause(Verdict.UNDECIDED, "across it", lambda effect, margin: True),
)
RULE_IN_WORDS = "; ".join(f"{clause.words}: {clause.verdict}" for clause in CLAUSES).capitalize()


def together(verdicts: Iterable[Verdict], form: str = "tendency") -> Verdict:
    """Return the verdict on a claim that says several things at once.

    A universal claim falls with one counterexample, and no number of examples confirms it. A tendency that holds in one
    part and not in another is split.

    >>> both = [Verdict.CONFIRMED, Verdict.REFUTED]
    >>> str(together(both)), str(together(both, "universal")), str(together([Verdict.CONFIRMED, Verdict.UNDECIDED]))
    ('split', 'refuted', 'undecided')
    """
    verdicts = set(verdicts)
    if form == "universal":
        return Verdict.REFUTED if Verdict.REFUTED in verdicts else Verdict.UNDECIDED
    if {Verdict.CONFIRMED, Verdict.REFUTED} <= verdicts:
        return Verdict.SPLIT
    return verdicts.pop() if len(verdicts) == 1 else Verdict.UNDECIDED


def some_wrong(verdicts: int = CLAIMS_READ_TOGETHER, alpha: float = ALPHA) -> float:
    """Return an upper bound on the probability that one of so many independent verdicts is wrong.

    Wherever the true effect lies, a verdict is wrong on one side of the margin only, with at most half of `alpha`.

    >>> round(some_wrong(), 2)
    0.33
    """
    return 1 - (1 - alpha / 2) ** verdicts


def error_rates(alpha: float = ALPHA) -> str:
    """Return in words how often the rule is wrong; simulations of known effects confirm it."""
    side = f"{100 * alpha / 2:.3g} %"
    return (
        f"Of true effects at the margin {side} are called confirmed and {side} refuted, and the parts that decide "
        "share these among them; the farther an effect lies on one side, the fewer are called the other"
    )
