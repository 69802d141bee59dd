"""Timing as an experiment: baseline, candidate and the baseline once more, in random order, round after round."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compedu.metrics.accuracy import Interval
from compedu.reproducible import torch_threads

MIN_ROUNDS = 9  # the fewest whose 95 % interval of the median is not the whole range
MAX_ROUNDS = 2000  # the ends of the interval are then 44 ranks from the middle: more would tell little more
SAME = 0.01  # two copies of one network may steadily differ by so much, as they lie elsewhere in memory
WARM_UP = 2  # untimed calls of each arm: memory is allocated, kernels are compiled, caches are filled

CANDIDATE = "candidate"
BASELINE = "baseline"
BASELINE_AGAIN = "baseline again"


@dataclass(frozen=True)
class Timing:
    """How to time: images of a batch, torch threads, seconds to spend (`MIN_ROUNDS` at least), seed of the order."""

    batch_size: int = 32
    threads: int = 1
    budget_s: float = 0.25
    seed: int = 0

    def __post_init__(self):
        for name, low in (("batch_size", 1), ("threads", 1), ("budget_s", 0)):
            if not getattr(self, name) >= low:
                raise ValueError(f"Timing.{name} must be at least {low}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Latency:
    """The time of one batch in milliseconds, and the ratio to the baseline as the median over interleaved pairs.

    `spread_ms` are the quartiles. `speed_up` is baseline / candidate, `a_a` the baseline against a copy of itself; both
    with a 95 % interval of the median. What needs a baseline is None without one. `rounds_ms` are all times by arm, in
    milliseconds, of which a stored report keeps none.
    """

    latency_ms: float
    spread_ms: Interval
    batch_size: int
    threads: int
    rounds: int
    baseline_ms: float | None = None
    speed_up: float | None = None
    speed_up_interval: Interval | None = None
    a_a: float | None = None
    a_a_interval: Interval | None = None
    rounds_ms: dict[str, tuple[float, ...]] | None = field(
        default=None, compare=False, repr=False, metadata={"stored": False}
    )

    @property
    def verdict(self) -> str | None:
        """Whether the two can be told apart; withheld where the baseline differs from itself; None without a baseline.

        The interval of the speed-up must clear that of the A/A arm: their places in memory alone can make a small,
        steady difference between two equal networks, which no number of rounds removes. Where the A/A interval lies
        wholly beyond `SAME`, the cause is a machine that is too noisy.
        """
        if self.speed_up_interval is None or self.a_a_interval is None:
            return None
        (low, high) = self.speed_up_interval
        (same_low, same_high) = self.a_a_interval
        if same_low > 1 + SAME or same_high < 1 / (1 + SAME):
            return "withheld: A/A arm failed"
        return "faster" if low > max(same_high, 1) else "slower" if high < min(same_low, 1) else "not distinguishable"

    @classmethod
    def of(cls, seconds: Mapping[str, list[float]], batch_size: int, threads: int) -> "Latency":
        """Return the evaluation of the seconds that `time_rounds` measured; equal indices belong to one round."""
        taken = [1000 * value for value in seconds[CANDIDATE]]
        quartiles = statistics.quantiles(taken, n=4, method="inclusive")
        alone = {
            "latency_ms": statistics.median(taken),
            "spread_ms": (quartiles[0], quartiles[2]),
            "batch_size": batch_size,
            "threads": threads,
            "rounds": len(taken),
            "rounds_ms": {arm: tuple(1000 * value for value in values) for arm, values in seconds.items()},
        }
        if BASELINE not in seconds:
            return cls(**alone)
        speed_ups = ratios(seconds[BASELINE], seconds[CANDIDATE])
        same = ratios(seconds[BASELINE], seconds[BASELINE_AGAIN])
        return cls(
            **alone,
            baseline_ms=1000 * statistics.median(seconds[BASELINE]),
            speed_up=statistics.median(speed_ups),
            speed_up_interval=median_interval(speed_ups),
            a_a=statistics.median(same),
            a_a_interval=median_interval(same),
        )


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Return above / below, pair by pair."""
    return [a / b for a, b in zip(above, below, strict=True)]


def median_interval(values: list[float]) -> Interval:
    """Return an interval that holds the true median with at least 95 % probability, whatever the distribution.

    Its ends are order statistics: the k-th smallest and the k-th largest, k as large as the binomial distribution
    allows (Thompson 1936, Annals of Mathematical Statistics 7, p. 122). Raises `ValueError` for fewer than six values.
    """
    count = len(values)
    ordered = sorted(values)
    k = 0
    ways = 1  # how many of the 2^count patterns have at most k values below the median
    term = 1
    # The number of values below the median is binomial (count, 1/2): each end may be passed with 2.5 % = 1/40.
    while 40 * ways <= 2**count:
        term = term * (count - k) // (k + 1)
        k += 1
        ways += term
    if k == 0:
        raise ValueError(f"a 95 % interval of a median needs at least 6 values, got {count}")
    return ordered[k - 1], ordered[count - k]


def time_rounds(
    arms: Mapping[str, Callable[[], object]],
    budget_s: float,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    between: Callable[[], None] = lambda: None,
    rounds: int = MIN_ROUNDS,
    warm_up: int = WARM_UP,
) -> dict[str, list[float]]:
    """Return the seconds that each arm took in each round, after `warm_up` calls of each.

    Every round calls every arm once, in a new random order drawn from `seed`, so that slow spells of the machine and
    what the arm before left in the caches affect all arms alike. Rounds start until `budget_s` has passed, at least
    `rounds` and at most `MAX_ROUNDS` times; fewer than `MIN_ROUNDS` are for calls of many seconds: the median then has
    no interval. `between` runs after each round, untimed, and may raise to end the experiment.
    """
    start = clock()
    order = torch.Generator().manual_seed(seed)
    for _ in range(warm_up):
        for call in arms.values():
            call()
    names = list(arms)
    seconds = {name: [] for name in arms}
    while (done := len(seconds[names[0]])) < rounds or (done < MAX_ROUNDS and clock() - start < budget_s):
        for index in torch.randperm(len(names), generator=order).tolist():
            before = clock()
            arms[names[index]]()
            seconds[names[index]].append(clock() - before)
        between()
    return seconds


def time_networks(
    candidate: nn.Module,
    x: Tensor,
    pair: tuple[nn.Module, nn.Module] | None,
    timing: Timing,
    between: Callable[[], None] = lambda: None,
) -> Latency:
    """Time `candidate` on the first images of `x`, against a `pair` of equal baselines, each with its own memory."""
    x = x[: timing.batch_size]
    networks = {CANDIDATE: candidate} | (dict(zip((BASELINE, BASELINE_AGAIN), pair, strict=True)) if pair else {})
    arms = {name: _call(network, x) for name, network in networks.items()}
    with torch_threads(timing.threads), torch.inference_mode():
        seconds = time_rounds(arms, timing.budget_s, timing.seed, between=between)
    return Latency.of(seconds, len(x), timing.threads)


def _call(network: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: network(x)
