"""The survey's table of low-rank networks beside ours: equal in size, complete, and told as it was measured."""

from dataclasses import replace

import pytest

from compedu.errors import CompressionError
from compedu.methods import LowRankTraining, SmallDense
from compedu.metrics.seeds import student_interval
from compedu.networks.recipes import RECIPES
from compedu.networks.shipped import record_of
from compedu.replications import low_rank_networks as ours
from compedu.replications.low_rank_arms import (
    ARMS,
    COMPARED,
    DECOMPOSED,
    DENSE,
    NARROW,
    NORMALIZED,
    POLYADIC,
    RATES,
    SEEDS,
    SINGULAR,
)

STORED = [(one, data) for data in SEEDS for one in COMPARED if one.path(data).exists()]
NAMED = pytest.mark.parametrize("one, data", STORED, ids=lambda value: getattr(value, "network", value))


@NAMED
def test_every_arm_was_run_with_every_seed_on_all_test_images(one, data):
    runs = ours.stored_runs(one, data)
    assert {arm: len(reports) for arm, reports in runs.items()} == dict.fromkeys(ARMS, SEEDS[data])
    right, of = map(int, record_of(one.network, data)["accuracy"]["test"].split("/"))
    for report in (report for reports in runs.values() for report in reports):
        assert (report.split, report.seen) == ("test", of)
        assert report.accuracy - report.change.difference == pytest.approx(right / of, abs=0.0005)


@NAMED
def test_all_arms_save_as_many_parameters_as_the_survey_says_of_that_kind(one, data):
    for row in [one.survey[arm] for arm in ARMS if arm in one.survey]:
        assert one.compression_rate == pytest.approx(row.rate, rel=0.02)
    for reports in ours.stored_runs(one, data).values():
        assert all(report.compression_rate == pytest.approx(one.compression_rate, rel=0.04) for report in reports)


def test_what_starts_anew_trains_as_long_and_on_the_same_images_as_the_dense_network():
    for one in COMPARED:
        recipe = RECIPES[one.network, "glyphs"]
        for arm in (NORMALIZED, NARROW):
            method = one.method(arm, "glyphs", seed=2)
            assert isinstance(method, LowRankTraining if arm == NORMALIZED else SmallDense)
            assert method.recipe == type(recipe)(**{**vars(recipe), "seed": 2})
        for arm in DECOMPOSED:
            tuning = one.method(arm, "glyphs", seed=2).steps[-1]
            assert (tuning.seed, tuning.shift, tuning.mirror) == (2, recipe.shift, recipe.mirror)
            assert tuning.epochs < recipe.epochs


@NAMED
@pytest.mark.parametrize("arm", DECOMPOSED)
def test_the_rate_of_fine_tuning_has_the_lowest_loss_on_validation_images(one, data, arm):
    losses = dict(zip(RATES, one.losses(arm, data), strict=True))
    (rate,) = {method.steps[-1].lr for method in one.runs(data)[arm]}
    assert all(losses[rate] <= loss for loss in losses.values())
    assert rate < max(RATES)  # a higher one would have been no better
    for method in one.at_rates(arm, data):
        assert replace(method.steps[-1], lr=rate) == one.method(arm, data, seed=0).steps[-1]


def test_a_rate_that_was_not_tried_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(type(COMPARED[0]), "rates_path", lambda self, data: tmp_path / "none.jsonl")
    with pytest.raises(CompressionError, match="vgg on glyphs, CP low-rank: .*networks glyphs --rates` first"):
        COMPARED[0].method(POLYADIC, "glyphs", seed=0)


@NAMED
def test_every_speed_was_timed_in_many_rounds(one, data):
    for reports in ours.stored_runs(one, data).values():
        assert all(report.latency.rounds >= 50 for report in reports)


def test_the_line_of_an_arm_tells_the_mean_over_seeds_and_its_interval():
    one = COMPARED[0]
    reports = ours.stored_runs(one, "glyphs")[NORMALIZED]
    accuracy, difference, *times = ours.ours([ours.Figures.of(report) for report in reports])
    gains = [100 * report.change.difference for report in reports]
    low, high = student_interval(gains)
    assert difference == f"{sum(gains) / 3:+.2f} ({low:+.2f} to {high:+.2f})"
    assert float(accuracy.rstrip(" %")) == pytest.approx(
        100 * sum(report.accuracy for report in reports) / 3, abs=0.006
    )
    assert float(times[2]) == pytest.approx(reports[0].compression_rate, abs=0.01)


def test_the_interval_of_a_single_seed_is_that_of_the_images():
    report = ours.stored_runs(COMPARED[0], "glyphs")[NORMALIZED][0]
    low, high = report.change.interval
    assert ours.ours([ours.Figures.of(report)])[1].endswith(f"({100 * low:+.2f} to {100 * high:+.2f})")


def test_the_survey_is_quoted_as_printed_and_of_residual_networks_it_has_none():
    printed = {one.network: [tuple(one.survey[arm]) for arm in (DENSE, NORMALIZED, SINGULAR)] for one in COMPARED[:2]}
    assert printed == {
        "vgg": [(90.60, 1, 1), (90.47, 1.53, 2.72), (90.31, 2.05, 2.75)],
        "inception": [(92.21, 1, 1), (91.88, 1.08, 2.79), (91.79, 1.20, 2.84)],
    }
    rows = ours.table("glyphs").rows
    assert len(rows) == 1 + 3 * (1 + len(ARMS)) and rows[3][1:4] == ("90.31 %", "2.05", "2.75")
    assert "CP" in rows[3][0] and "resnet" in rows[-5][0] and ours.theirs(COMPARED[2], SINGULAR) == ("", "", "")


def test_a_report_without_its_speed_is_refused_by_name():
    report = replace(ours.stored_runs(COMPARED[0], "glyphs")[NORMALIZED][0], latency=None)
    with pytest.raises(CompressionError, match=r"report of LowRankTraining\(.* is incomplete: remove it and"):
        ours.Figures.of(report)


def test_a_speed_that_one_seed_cannot_tell_from_the_dense_network_is_marked():
    runs = [ours.Figures.of(report) for report in ours.stored_runs(COMPARED[0], "glyphs")[NORMALIZED]]
    assert all(run.distinguishable for run in runs) and "?" not in "".join(ours.ours(runs))
    doubtful = [replace(runs[0], distinguishable=False), *runs[1:]]
    assert ours.ours(doubtful)[2] == f"{ours.ours(runs)[2]} ?"


def test_what_the_chapter_says_of_accuracy_beside_a_narrow_network_is_what_was_measured():
    """The narrow network is within a quarter of a point of every low-rank one."""
    for one in COMPARED:
        runs = ours.stored_runs(one, "glyphs")
        right = {arm: 100 * sum(report.accuracy for report in of_arm) / len(of_arm) for arm, of_arm in runs.items()}
        assert all(abs(right[NARROW] - right[arm]) < 0.25 for arm in ARMS)


@pytest.fixture(scope="module")
def photographs():
    return {
        one.network: {arm: ours.Figures.of(*found) for arm, found in ours.stored_runs(one, "cifar10").items()}
        for one in COMPARED
    }


def left_open(one, other):
    """How many points the test images leave open between two networks, even if each errs on images of its own."""
    variances = [run.accuracy * (100 - run.accuracy) for run in (one, other)]
    return 1.96 * (sum(variances) / 10_000) ** 0.5


def test_what_the_chapter_says_of_the_accuracy_on_photographs_is_what_was_measured(photographs):
    """CP loses least but in Inception, in the plain network nothing; what starts anew loses 1.5 to 3 points there."""
    lead = {}
    for network, runs in photographs.items():
        best, *others = sorted(runs, key=lambda arm: -runs[arm].accuracy)
        assert best == (NARROW if network == "inception" else POLYADIC)
        lead[network] = {
            arm: runs[best].accuracy - runs[arm].accuracy > left_open(runs[best], runs[arm]) for arm in others
        }
    anew = (NORMALIZED, NARROW)
    assert all(lead[network][arm] for network in ("vgg", "resnet") for arm in anew)
    assert lead["inception"] == {SINGULAR: False, NORMALIZED: True, POLYADIC: True}
    for network in ("vgg", "resnet"):
        assert all(-3.1 < photographs[network][arm].difference < -1.5 for arm in anew)
    low, high = photographs["vgg"][POLYADIC].interval
    assert low < 0 < high
    assert photographs["resnet"][POLYADIC].difference == pytest.approx(-0.6, abs=0.1)


def test_what_the_chapter_says_of_speed_on_photographs_is_what_was_measured(photographs):
    """CP is the slowest of the small networks and the narrow one the fastest; in Inception low rank saves no time."""
    for runs in photographs.values():
        assert min(runs, key=lambda arm: runs[arm].speed_up) == POLYADIC
        assert max(runs, key=lambda arm: runs[arm].speed_up) == NARROW
    inception = {arm: run.speed_up for arm, run in photographs["inception"].items()}
    assert max(inception[arm] for arm in (NORMALIZED, SINGULAR, POLYADIC)) < 1 and inception[POLYADIC] < 0.9


def test_what_the_chapter_says_of_rates_is_what_was_measured():
    best = {(one.network, arm): one.best_rate(arm, "cifar10") for one in COMPARED for arm in DECOMPOSED}
    assert best["vgg", POLYADIC] == best["resnet", POLYADIC] == min(RATES)
    assert (best["vgg", SINGULAR], best["resnet", SINGULAR]) == (10 * min(RATES), 30 * min(RATES))


def test_what_the_chapter_says_of_speed_was_told_apart_from_noise():
    """The narrow dense network is the fastest arm; Inception is slower with low rank, by a fifth with CP."""
    for one in COMPARED:
        runs = {arm: [report.latency for report in found] for arm, found in ours.stored_runs(one, "glyphs").items()}
        assert all(speed.verdict in ("faster", "slower") for of_arm in runs.values() for speed in of_arm)
        fastest = min(speed.speed_up_interval[0] for speed in runs[NARROW])
        others = [speed.speed_up_interval[1] for arm in ARMS if arm != NARROW for speed in runs[arm]]
        assert fastest > max(1, *others)
        slower = {arm for arm, of_arm in runs.items() if all(speed.verdict == "slower" for speed in of_arm)}
        assert slower == ({NORMALIZED, SINGULAR, POLYADIC} if one.network == "inception" else set())
        slowest = [speed.speed_up for speed in runs[POLYADIC]]
        assert max(slowest) < min(speed.speed_up for arm in (NORMALIZED, SINGULAR) for speed in runs[arm])
    inception = {arm: ours.stored_runs(COMPARED[1], "glyphs")[arm] for arm in (NORMALIZED, SINGULAR, POLYADIC)}
    longer = {arm: [1 / report.latency.speed_up for report in found] for arm, found in inception.items()}
    assert all(1 < times < 1.06 for arm in (NORMALIZED, SINGULAR) for times in longer[arm])
    assert all(1.15 < times < 1.27 for times in longer[POLYADIC])
