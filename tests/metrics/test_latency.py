"""Timing as an experiment, tried with a clock that the test turns itself: verdicts, order, budget, the A/A arm."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from compedu.errors import Cancelled
from compedu.metrics import Latency, Timing
from compedu.metrics.latency import (
    BASELINE,
    BASELINE_AGAIN,
    CANDIDATE,
    MIN_ROUNDS,
    WARM_UP,
    median_interval,
    time_networks,
    time_rounds,
)


class Machine:
    """A clock that stands still but for the calls of its arms, each of which takes the next of its durations."""

    def __init__(self, **durations):
        self.now, self.called = 0.0, []
        self.arms = {name.replace("_", " "): self.arm(name.replace("_", " "), d) for name, d in durations.items()}

    def arm(self, name, durations):
        durations = itertools.repeat(durations) if isinstance(durations, float) else iter(durations)

        def call():
            self.called.append(name)
            self.now += next(durations)

        return call

    def seconds(self, **options):
        return time_rounds(self.arms, **({"budget_s": 1.0} | options), clock=lambda: self.now)

    def latency(self, **options):
        return Latency.of(self.seconds(**options), 32, 1)


def noise(middle, spread, seed):
    """Endless durations around `middle`, skewed as those of a shared machine are."""
    generator = np.random.default_rng(seed)
    while True:
        yield middle * (1 + spread * generator.exponential())


def compared(candidate, baseline, again, **options):
    return Machine(candidate=candidate, baseline=baseline, baseline_again=again).latency(**options)


def test_twice_as_fast_is_called_faster():
    found = compared(noise(0.005, 0.3, 1), noise(0.010, 0.3, 2), noise(0.010, 0.3, 3))
    assert found.verdict == "faster" and found.speed_up_interval[0] > 1.7
    assert found.speed_up_interval[0] <= found.speed_up <= found.speed_up_interval[1]
    assert found.latency_ms == pytest.approx(5 * 1.2, rel=0.1) and found.baseline_ms == pytest.approx(12, rel=0.1)


def test_half_as_fast_is_called_slower():
    assert compared(noise(0.020, 0.3, 1), noise(0.010, 0.3, 2), noise(0.010, 0.3, 3)).verdict == "slower"


def test_equal_networks_are_seldom_told_apart():
    verdicts = [
        compared(noise(0.01, 0.5, seed), noise(0.01, 0.5, 1000 + seed), noise(0.01, 0.5, 2000 + seed)).verdict
        for seed in range(200)
    ]
    assert verdicts.count("not distinguishable") > 0.9 * len(verdicts)
    assert verdicts.count("faster") + verdicts.count("slower") < 0.03 * len(verdicts)


def test_a_difference_below_what_equal_networks_show_is_no_verdict():
    """The candidate is 1 % faster, steadily; but the two equal baselines differ by chance as much in this run."""
    candidate, baseline = itertools.repeat(0.0099), itertools.repeat(0.0100)
    again = itertools.cycle([0.0098, 0.0102])
    found = compared(candidate, baseline, again)
    assert found.speed_up_interval[0] > 1 and found.verdict == "not distinguishable"


def test_a_steady_difference_of_half_a_percent_between_two_copies_is_no_restless_machine():
    def latency(speed_up, same):
        around = {
            "speed_up_interval": (speed_up - 0.001, speed_up + 0.001),
            "a_a_interval": (same - 0.001, same + 0.001),
        }
        return Latency(1.0, (1.0, 1.0), 1, 1, 2000, 1.0, speed_up, a_a=same, **around)

    assert latency(2.3, 1.005).verdict == "faster" and latency(1.004, 1.005).verdict == "not distinguishable"
    assert latency(0.997, 0.996).verdict == "not distinguishable" and latency(0.9, 0.996).verdict == "slower"
    assert latency(2.3, 1.02).verdict == latency(2.3, 0.98).verdict == "withheld: A/A arm failed"


def test_the_verdict_is_withheld_when_the_baseline_differs_from_itself():
    found = compared(0.002, 0.010, 0.012)
    assert found.a_a_interval[1] < 1 and found.verdict == "withheld: A/A arm failed"
    assert found.speed_up == pytest.approx(5)  # shown all the same


def test_calls_of_many_seconds_may_be_timed_in_fewer_rounds():
    machine = Machine(a=50.0, b=20.0)
    assert machine.seconds(budget_s=0.0, rounds=2, warm_up=0) == {"a": [50.0] * 2, "b": [20.0] * 2}
    assert sorted(machine.called) == ["a", "a", "b", "b"]


def test_a_machine_that_gets_slower_meanwhile_does_not_change_the_ratio():
    def slowing(middle, every=3):
        return (middle * 1.1 ** (call // every) for call in itertools.count())

    found = compared(slowing(0.001), slowing(0.003), slowing(0.003), budget_s=3.0)
    assert found.speed_up == pytest.approx(3, rel=0.02) and found.verdict == "faster"
    assert found.spread_ms[1] > 1.5 * found.spread_ms[0]  # while the times themselves are spread wide


def test_every_round_calls_every_arm_once_in_an_order_drawn_anew():
    machine = Machine(candidate=0.001, baseline=0.001, baseline_again=0.001)
    machine.seconds()
    rounds = [tuple(machine.called[i : i + 3]) for i in range(3 * WARM_UP, len(machine.called), 3)]
    assert all(sorted(order) == sorted(machine.arms) for order in rounds)
    orders = {order: rounds.count(order) for order in set(rounds)}
    assert len(orders) == 6 and max(orders.values()) < 2 * min(orders.values())


def test_the_order_depends_on_the_seed_alone():
    runs = [Machine(candidate=0.01, baseline=0.01, baseline_again=0.01) for _ in range(3)]
    for machine, seed in zip(runs, (4, 4, 5), strict=True):
        machine.seconds(seed=seed)
    assert runs[0].called == runs[1].called != runs[2].called


def test_the_warm_up_is_not_timed():
    slow_start = itertools.chain([5.0] * WARM_UP, itertools.repeat(0.01))
    seconds = Machine(candidate=slow_start).seconds(budget_s=0.0)
    assert seconds[CANDIDATE] == pytest.approx([0.01] * MIN_ROUNDS)


def test_rounds_go_on_until_the_budget_is_spent_and_never_stop_below_the_least_number():
    assert len(Machine(candidate=1.0).seconds(budget_s=0.1)[CANDIDATE]) == MIN_ROUNDS
    assert len(Machine(candidate=0.01).seconds(budget_s=1.0)[CANDIDATE]) == pytest.approx(100 - WARM_UP, abs=1)


def test_an_experiment_that_is_no_longer_wanted_ends_after_its_round():
    machine = Machine(candidate=0.01, baseline=0.01, baseline_again=0.01)

    def refuse():
        raise Cancelled

    with pytest.raises(Cancelled):
        machine.seconds(between=refuse)
    assert len(machine.called) == 3 * WARM_UP + 3


def test_without_a_baseline_there_is_a_time_and_no_ratio():
    found = Machine(candidate=noise(0.01, 0.5, 0)).latency()
    assert found.spread_ms[0] < found.latency_ms < found.spread_ms[1]
    assert found.speed_up is found.speed_up_interval is found.a_a is found.baseline_ms is found.verdict is None


@pytest.mark.parametrize("count", [6, 9, 10, 25, 200])
def test_the_interval_of_a_median_is_the_narrowest_that_the_binomial_distribution_allows(count):
    low, high = median_interval([float(value) for value in range(1, count + 1)])
    tail = stats.binom.cdf(low - 1, count, 0.5)
    assert low + high == count + 1 and tail <= 0.025 < stats.binom.cdf(low, count, 0.5)


def test_the_interval_of_a_median_holds_it_in_at_least_95_of_100_runs():
    draws = np.random.default_rng(0).exponential(size=(3000, 15))
    held = [low <= np.log(2) <= high for low, high in (median_interval(row.tolist()) for row in draws)]
    assert np.mean(held) >= 0.945


def test_the_interval_of_a_median_needs_six_values():
    with pytest.raises(ValueError, match="at least 6 values, got 5"):
        median_interval([1.0] * 5)


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"threads": 0}, {"budget_s": -1.0}, {"budget_s": float("nan")}])
def test_a_plan_that_cannot_be_timed_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=f"Timing.{next(iter(bad))} must be at least"):
        Timing(**bad)


def test_networks_are_timed_on_one_batch_each_with_its_own_memory():
    seen = {name: [] for name in (CANDIDATE, BASELINE, BASELINE_AGAIN)}

    class Spy(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            seen[self.name].append((tuple(x.shape), torch.is_inference_mode_enabled(), torch.get_num_threads()))
            return x

    candidate, *pair = map(Spy, seen)
    found = time_networks(candidate, torch.zeros(50, 1, 4, 4), tuple(pair), Timing(batch_size=20, budget_s=0.0))
    assert (found.batch_size, found.threads, found.rounds) == (20, 1, MIN_ROUNDS)
    assert all(calls == [((20, 1, 4, 4), True, 1)] * (WARM_UP + MIN_ROUNDS) for calls in seen.values())
    assert time_networks(candidate, torch.zeros(5, 1, 4, 4), None, Timing(budget_s=0.0)).batch_size == 5
