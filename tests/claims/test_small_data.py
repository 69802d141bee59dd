"""Claim C15: all students train equally whatever the number of images, and what the teacher knows is told apart."""

from dataclasses import replace

import pytest
import torch

from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import small_data as claim
from compedu.claims.survey.small_data import (
    ADDED,
    ALONE,
    ANY,
    FEW,
    MANY,
    ON_TRIAL,
    RANDOM,
    SMALL_DATA,
    TAUGHT,
    TEACHER,
    TEST,
    Students,
    named,
)
from compedu.claims.verdict import Verdict
from compedu.methods import LabelSmoothing, RandomTeacher, SoftTargetDistillation
from compedu.networks.fitting import network_for
from compedu.replications.races import SOFT

TINY = Students(images=50, shown=100)
PLANS = (SMALL_DATA.quick, SMALL_DATA.full)


# Arms


def trainings(setting, seed=3):
    """Return what trains in each arm: of the random teacher, the distillation inside it."""
    return {arm: getattr(one, "distillation", one) for arm, one in setting.methods(seed).items()}


@pytest.mark.parametrize("setting", [one for plan in PLANS for one in plan.settings], ids=repr)
def test_all_students_take_equal_steps_and_see_equally_many_images(setting):
    for one in trainings(setting).values():
        assert one.recipe.steps(setting.images) == 800
        assert one.recipe.smallest_batch(setting.images) == one.batch == 50  # so 800 steps are 40,000 images


def test_with_1000_images_a_student_trains_for_the_epochs_of_a_race():
    assert {one.epochs for one in trainings(Students(1000)).values()} == {SOFT.epochs} == {40}


def test_the_arms_differ_in_the_teacher_alone():
    methods = TINY.methods(3)
    assert list(methods) == [ALONE, TAUGHT, RANDOM]
    assert {arm: type(method) for arm, method in methods.items()} == {
        ALONE: LabelSmoothing, TAUGHT: SoftTargetDistillation, RANDOM: RandomTeacher
    }  # fmt: skip
    assert trainings(TINY)[RANDOM] == methods[TAUGHT]
    assert getattr(methods[RANDOM], "seed", None) == 3  # of its own weights
    knobs = ("student", "epochs", "lr", "batch", "shift", "seed", "weight_decay", "mirror")
    first, *others = ([getattr(one, knob) for knob in knobs] for one in trainings(TINY).values())
    assert all(one == first for one in others) and first[:6] == [SOFT.student, 2, SOFT.lr, 50, 1, 3]


def test_the_student_alone_is_that_of_soft_targets_without_weight():
    teacher = network_for("lenet5(width=0.2)", TINY.data, seed=5)
    methods = TINY.methods(3)
    alone = methods[ALONE](teacher, TINY.data)
    without = replace(methods[TAUGHT], weight=0.0)(teacher, TINY.data)
    taught = methods[TAUGHT](teacher, TINY.data)
    assert all(map(torch.equal, alone.state_dict().values(), without.state_dict().values()))
    assert not all(map(torch.equal, alone.state_dict().values(), taught.state_dict().values()))


def test_plans_have_the_sizes_that_are_compared_and_lose_one_of_them_at_most():
    for plan in PLANS:
        sizes = [setting.images for setting in plan.settings]
        assert sizes == sorted(set(sizes)) and (sizes[0], sizes[-1]) == (FEW, MANY)
        assert len(plan.cells()) == len(sizes) * plan.seeds  # each is a run of its own, which is stored by itself


def test_all_that_a_run_depends_on_is_in_its_key():
    first = SMALL_DATA.run_key(TINY, 0)
    for setting in (Students(100, shown=100), replace(TINY, shift=0), replace(TINY, shown=200)):
        assert SMALL_DATA.run_key(setting, 0) != first
    assert all(f"{method.__name__}/{method.version}" in first for method in map(type, TINY.methods(0).values()))


def test_a_run_measures_every_arm_on_test_images(monkeypatch):
    looks = []

    def looked(model, data, split="test"):
        looks.append((model.spec, split))
        return float(len(looks))

    monkeypatch.setattr(claim, "accuracy", looked)
    monkeypatch.setattr(claim, "of_teacher", lambda: 99.0)
    found = claim.compute(TINY, 2)
    assert found.outcomes == {TEACHER: {TEST: 99.0}, ALONE: {TEST: 1.0}, TAUGHT: {TEST: 2.0}, RANDOM: {TEST: 3.0}}
    assert {split for _, split in looks} == {"test"} and all("lenet5" in str(spec) for spec, _ in looks)
    assert found.setting == named(50) and all("seed=2" in text for text in found.settings.values())


# Judgment


def measured(few, many, alone=(50.0, 80.0)):
    """Return runs of five seeds; `few` and `many` are the points of (taught, random teacher) to the student alone."""
    runs = []
    for images, gains, start in ((FEW, few, alone[0]), (MANY, many, alone[1])):
        for seed in range(5):
            wobble = (seed * (3 if images == FEW else 5)) % 7 / 20
            points = {ALONE: 0.0, TAUGHT: gains[0] + wobble, RANDOM: gains[1] - wobble / 2}
            outcomes = {arm: {TEST: start + one} for arm, one in points.items()}
            runs.append(Run(named(images), seed, {TEACHER: {TEST: 99.0 + wobble / 10}} | outcomes))
    return runs


def judged(runs):
    judgment = judge(claim.parts(runs), SMALL_DATA.form)
    return judgment, {one.part.name: one for one in judgment.parts}


def verdicts(runs):
    judgment, by_name = judged(runs)
    found = [by_name[f"{by} adds more with 250 training images than with 4,000"].verdict for by in ON_TRIAL]
    return judgment.verdict, found


@pytest.mark.parametrize("few, many, verdict, of_parts", [
    ((9.0, 0.0), (2.0, 0.0), "confirmed", ["confirmed", "confirmed"]),
    ((2.0, 0.0), (9.0, 0.0), "refuted", ["refuted", "refuted"]),
    ((9.0, 7.0), (2.0, 0.0), "split", ["confirmed", "refuted"]),  # a random teacher helps as much more
    ((4.0, 0.0), (4.0, 4.0), "split", ["refuted", "confirmed"]),
])  # fmt: skip
def test_the_verdict_follows_what_a_teacher_and_its_knowledge_add(few, many, verdict, of_parts):
    assert verdicts(measured(few, many)) == (verdict, of_parts)


def test_the_parts_are_differences_of_the_same_seed():
    _, by_name = judged(measured((9.0, 0.0), (2.0, 0.0)))
    part = by_name["what the teacher has learned adds more with 250 training images than with 4,000"].part
    expected = [7 + 1.5 * ((3 * seed) % 7 - (5 * seed) % 7) / 20 for seed in range(5)]
    assert part.values == pytest.approx(expected)


def test_nothing_is_decided_where_the_teacher_is_hardly_ahead():
    judgment, _ = judged(measured((9.0, 0.0), (0.2, 0.0), alone=(50.0, 98.7)))
    assert judgment.verdict == Verdict.UNDECIDED and "the control failed" in judgment.reservations[0]


def test_findings_tell_every_size_and_the_share_of_the_errors():
    _, by_name = judged(measured((10.0, 0.0), (4.0, 0.0)))
    for images, points in ((FEW, 10.0), (MANY, 4.0)):
        for by in ADDED:
            assert f"{named(images)}: {by} adds" in by_name
        assert by_name[f"{named(images)}: {ANY} adds"].effect.mean == pytest.approx(points, abs=0.2)
    share = by_name[f"{ANY} avoids a larger share of the errors with 250 training images than with 4,000"]
    assert share.effect.mean == pytest.approx(0.0, abs=1.0)  # a fifth of the errors with either


# The shipped runs


def test_the_shipped_runs_have_the_settings_of_today():
    settings = {str(one): one for one in SMALL_DATA.quick.settings}
    for run in SMALL_DATA.stored():
        methods = settings[run.setting].methods(run.seed)
        assert run.settings == {arm: repr(method) for arm, method in methods.items()}
