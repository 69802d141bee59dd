"""The survey's table of low-rank networks beside ours: equal in size, complete, and told as it was measured."""

from dataclasses import replace

import pytest

from compedu.errors import CompressionError
from compedu.methods import LowRankTraining, SmallDense
from compedu.metrics.seeds import student_interval
from compedu.networks.recipes import RECIPES
from compedu.networks.shipped import record_of
from compedu.replications import low_rank_networks as ours
from compedu.replications.low_rank_networks import ARMS, COMPARED, DENSE, NARROW, NORMALIZED, POLYADIC

STORED = [(one, data) for data in ours.SEEDS for one in COMPARED if one.path(data).exists()]
NAMED = pytest.mark.parametrize("one, data", STORED, ids=lambda value: getattr(value, "network", value))


@NAMED
def test_every_arm_was_run_with_every_seed_on_all_test_images(one, data):
    runs = ours.stored_runs(one, data)
    assert {arm: len(reports) for arm, reports in runs.items()} == dict.fromkeys(ARMS, ours.SEEDS[data])
    right, of = map(int, record_of(one.network, data)["accuracy"]["test"].split("/"))
    for report in (report for reports in runs.values() for report in reports):
        assert (report.split, report.seen) == ("test", of)
        assert report.accuracy - report.change.difference == pytest.approx(right / of, abs=0.0005)


@NAMED
def test_all_arms_save_as_many_parameters_as_the_survey_says_of_that_kind(one, data):
    for row in [one.survey[arm] for arm in ARMS if arm in one.survey]:
        assert one.rate == pytest.approx(row.rate, rel=0.02)
    for reports in ours.stored_runs(one, data).values():
        assert all(report.compression_rate == pytest.approx(one.rate, rel=0.04) for report in reports)


def test_what_starts_anew_trains_as_long_and_on_the_same_images_as_the_dense_network():
    for one in COMPARED:
        recipe = RECIPES[one.network, "glyphs"]
        for arm in (NORMALIZED, NARROW):
            method = one.method(arm, "glyphs", seed=2)
            assert isinstance(method, LowRankTraining if arm == NORMALIZED else SmallDense)
            assert method.recipe == type(recipe)(**{**vars(recipe), "seed": 2})
        tuning = one.method(POLYADIC, "glyphs", seed=2).steps[-1]
        assert (tuning.seed, tuning.shift, tuning.mirror) == (2, recipe.shift, recipe.mirror)
        assert tuning.epochs < recipe.epochs


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
    printed = {one.network: [tuple(one.survey[arm]) for arm in (DENSE, NORMALIZED, POLYADIC)] for one in COMPARED[:2]}
    assert printed == {
        "vgg": [(90.60, 1, 1), (90.47, 1.53, 2.72), (90.31, 2.05, 2.75)],
        "inception": [(92.21, 1, 1), (91.88, 1.08, 2.79), (91.79, 1.20, 2.84)],
    }
    rows = ours.table("glyphs").rows
    assert len(rows) == 1 + 3 * (1 + len(ARMS)) and rows[3][:4] == ("  CP low-rank", "90.31 %", "2.05", "2.75")
    assert "resnet" in rows[-4][0] and ours.theirs(COMPARED[2], POLYADIC) == ("", "", "")


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
    """Behind both low-rank arms in the residual network, ahead of both in Inception, between them in the plain one."""
    right = {}
    for one in COMPARED:
        for arm, reports in ours.stored_runs(one, "glyphs").items():
            right[one.network, arm] = 100 * sum(report.accuracy for report in reports) / len(reports)
    ahead = {
        one.network: [right[one.network, NARROW] - right[one.network, arm] for arm in (NORMALIZED, POLYADIC)]
        for one in COMPARED
    }
    assert all(abs(points) < 0.2 for pair in ahead.values() for points in pair)
    assert max(ahead["resnet"]) < 0 < min(ahead["inception"]) and min(ahead["vgg"]) < 0 < max(ahead["vgg"])


def test_what_the_chapter_says_of_photographs_is_what_was_measured():
    """Every arm loses points; the narrow network least but in the residual one; low rank makes Inception slower."""
    runs = {
        one.network: {arm: ours.Figures.of(*found) for arm, found in ours.stored_runs(one, "cifar10").items()}
        for one in COMPARED
    }
    figures = [one for of_arm in runs.values() for one in of_arm.values()]
    assert all(-5 < one.interval[0] < one.interval[1] < -1 and one.distinguishable for one in figures)
    best = {network: max(of_arm, key=lambda arm: of_arm[arm].accuracy) for network, of_arm in runs.items()}
    assert best == {"vgg": NARROW, "inception": NARROW, "resnet": POLYADIC}
    inception = runs["inception"]
    assert max(inception[NORMALIZED].speed_up, inception[POLYADIC].speed_up) < 1 < inception[NARROW].speed_up


def test_what_the_chapter_says_of_speed_was_told_apart_from_noise():
    """The narrow dense network is the fastest arm of the plain and the residual network."""
    for one in (COMPARED[0], COMPARED[2]):
        runs = {arm: list(map(ours.Figures.of, found)) for arm, found in ours.stored_runs(one, "glyphs").items()}
        assert all(run.distinguishable for of_arm in runs.values() for run in of_arm)
        speeds = {arm: [run.speed_up for run in of_arm] for arm, of_arm in runs.items()}
        assert min(speeds[NARROW]) > max(*speeds[NORMALIZED], *speeds[POLYADIC]) > 1
