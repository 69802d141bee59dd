"""Intervals and tests of accuracies: against scipy, and by counting how often an interval holds what it should."""

import math

import numpy as np
import pytest
from scipy import stats

from compedu.metrics import Change, mcnemar, paired_interval, wilson


@pytest.mark.parametrize("correct, total", [(0, 1), (1, 1), (0, 50), (50, 50), (7, 9), (3881, 4000), (397, 397)])
def test_wilson_equals_scipy(correct, total):
    expected = stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.9, 0.97, 0.995])
def test_wilson_holds_the_true_accuracy_in_about_95_of_100_test_sets(share):
    total = 400
    chance = stats.binom.pmf(np.arange(total + 1), total, share)
    held = [low <= share <= high for low, high in (wilson(k, total) for k in range(total + 1))]
    assert 0.93 < chance[held].sum() < 0.98


@pytest.mark.parametrize(
    "broke, fixed", [(0, 0), (1, 0), (5, 0), (6, 0), (20, 10), (10, 20), (41, 17), (33, 33), (900, 1000)]
)
def test_mcnemar_equals_the_exact_binomial_test(broke, fixed):
    tosses = broke + fixed
    expected = stats.binomtest(broke, tosses, 0.5).pvalue if tosses else 1.0
    assert mcnemar(broke, fixed) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_the_difference_never_contradicts_the_exact_test():
    for broke in range(40):
        for fixed in range(40):
            low, high = paired_interval(broke, fixed, 500)
            assert (low <= 0 <= high) == (mcnemar(broke, fixed) >= 0.05), (broke, fixed)


def test_the_interval_of_the_difference_is_symmetric_and_never_empty():
    assert paired_interval(7, 19, 300) == pytest.approx(tuple(-end for end in reversed(paired_interval(19, 7, 300))))
    low, high = paired_interval(0, 0, 4000)
    assert low == -high and 2 / 4000 < high < 4 / 4000  # about the rule of three: nothing seen is not nothing there
    assert paired_interval(1, 0, 1)[0] >= -1


def test_with_many_images_the_interval_is_the_textbook_one():
    broke, fixed, total = 4100, 1700, 400_000
    lost, won = broke / total, fixed / total
    half = stats.norm.ppf(0.975) * math.sqrt((lost + won - (lost - won) ** 2) / total)
    assert paired_interval(broke, fixed, total) == pytest.approx((won - lost - half, won - lost + half), abs=1e-5)


@pytest.mark.parametrize(
    "lost, won, total",
    [
        (0.10, 0.10, 60),
        (0.10, 0.02, 200),
        (0.01, 0.004, 4000),
        (0.02, 0.0, 4000),
        (0.001, 0.001, 1000),
        (0.3, 0.05, 400),
    ],
)
def test_the_interval_of_the_difference_holds_the_true_one_in_at_least_94_of_100_test_sets(lost, won, total):
    draws = np.random.default_rng(0).multinomial(total, [lost, won, 1 - lost - won], size=4000)
    intervals = [paired_interval(int(broke), int(fixed), total) for broke, fixed, _ in draws]
    held = np.mean([low <= won - lost <= high for low, high in intervals])
    assert held >= 0.94


def test_the_same_images_say_more_than_two_intervals_side_by_side():
    before, after, total = 3880, 3850, 4000  # 40 broken, 10 fixed
    assert wilson(before, total)[0] < wilson(after, total)[1]  # side by side: cannot be told apart
    change = Change(broke=40, fixed=10, total=total)
    assert change.difference == pytest.approx((after - before) / total)
    assert change.interval[1] < 0 and change.p_value < 0.001


def test_20_broken_against_10_fixed_may_be_chance():
    change = Change(broke=20, fixed=10, total=4000)
    assert change.p_value == pytest.approx(0.0987, abs=1e-4)
    assert change.interval[0] < change.difference < 0 <= change.interval[1]
