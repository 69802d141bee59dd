"""Claim D13: others are compared at no more bytes, chosen without the test images, and all that train do so equally."""

from dataclasses import replace

import pytest

from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import competitive_students as claim
from compedu.claims.survey.competitive_students import BYTES, COMPETITIVE_STUDENTS, TEST, VALIDATION
from compedu.claims.survey.shared import competitors
from compedu.claims.survey.shared.competitors import (
    ALONE,
    BY_ANOTHER,
    CODED,
    DENSE,
    LONGER,
    LOW_RANK,
    OTHERS,
    PRUNED,
    ROUNDED,
    TAUGHT,
    TEACHER,
    SameBytes,
    TeacherSizes,
    family_of,
    named,
    then_rounded,
)
from compedu.claims.verdict import Verdict
from compedu.errors import CompressionError
from compedu.files import load, save
from compedu.methods import FineTune, LinearQuantization
from compedu.methods.training_method import TrainingMethod

PLANS = (COMPETITIVE_STUDENTS.quick, COMPETITIVE_STUDENTS.full)
SAME_BYTES = [setting for plan in PLANS for setting in plan.settings if isinstance(setting, SameBytes)]
TINY = SameBytes(80, 2, "lenet5(width=0.2)", (0.1,), (0.9,), (0.1,), (1e-5,))
TEACHERS = TeacherSizes(80, 2, 0.1, ("lenet5(width=0.1)", "lenet5(width=0.2)"), teaching=1)


# Arms


def trainings(method):
    """Return the steps of a method that train."""
    return [step for step in getattr(method, "steps", (method,)) if isinstance(step, TrainingMethod)]


@pytest.mark.parametrize("setting", [TINY, *SAME_BYTES], ids=str)
def test_all_that_train_do_so_for_as_many_steps_but_the_longer_student(setting):
    steps = {}
    for arm, method in setting.methods(3).items():
        for one in trainings(method):
            steps[arm] = one.recipe.steps(setting.images)
            assert (one.seed, one.shift, one.batch) == (3, 1, 64)
    assert {family_of(arm) for arm in steps} == {ALONE, TAUGHT, LONGER, PRUNED, ROUNDED, LOW_RANK}
    (longer,) = [arm for arm in steps if family_of(arm) == LONGER]
    assert steps.pop(longer) == 2 * min(steps.values()) == 2 * max(steps.values())
    assert named(ROUNDED, "8 bits") not in steps and named(ROUNDED, "2 bits, trained") in steps


@pytest.mark.parametrize("setting", SAME_BYTES, ids=str)
def test_a_student_alone_differs_from_the_taught_one_in_the_teacher_alone(setting):
    methods = setting.methods(3)
    for width in setting.widths:
        alone, taught = (methods[named(family, f"width {width:g}")] for family in (ALONE, TAUGHT))
        knobs = ("student", "epochs", "lr", "batch", "shift", "seed", "weight_decay", "mirror")
        assert all(getattr(alone, knob) == getattr(taught, knob) for knob in knobs)
        assert getattr(alone, "smoothing", None) == 0.0 and taught.lr == 4e-3


@pytest.fixture(scope="module")
def made():
    return TINY.made(1)


def test_every_arm_is_the_network_that_its_text_makes(made):
    networks, texts = made
    dense, *rest = networks
    assert family_of(dense) == DENSE and rest == list(texts)
    for family in (TAUGHT, PRUNED):
        arms = [arm for arm in rest if family_of(arm) == family]
        assert [arm for arm in rest if family_of(arm) == then_rounded(family)] == [
            f"{then_rounded(family)}: {arm.partition(': ')[2]}, {bits} bits" for arm in arms for bits in (8, 4)
        ]
    (pruned,) = [arm for arm in rest if family_of(arm) == PRUNED]
    whole = TINY.methods(1)[pruned] | LinearQuantization(bits=4)
    arm = named(then_rounded(PRUNED), f"{pruned.partition(': ')[2]}, 4 bits")
    assert texts[arm] == repr(whole) and isinstance(whole.steps[1], FineTune)
    again = claim.measures(whole(networks[dense], TINY.data), TINY.data)
    assert claim.measures(networks[arm], TINY.data) == again


def test_bytes_are_those_of_the_entropy_coded_file(made, tmp_path):
    networks, _ = made
    for family in (ALONE, CODED):
        (network,) = [one for arm, one in networks.items() if family_of(arm) == family]
        written = save(network, tmp_path / "model", "ans")
        assert claim.measures(network, TINY.data)[BYTES] == written == (tmp_path / "model").stat().st_size
        assert load(tmp_path / "model") is not None


def test_every_student_of_another_teacher_is_one_student_with_its_own_teacher(monkeypatch):
    taught = []

    def dense(spec, data, epochs, seed):
        taught.append((spec, epochs, seed, len(data.x_train)))
        return real(spec, data, epochs, seed)

    real = competitors.dense_network
    monkeypatch.setattr(competitors, "dense_network", dense)
    networks, texts = TEACHERS.made(4)
    assert taught == [(spec, 1, 4, 80) for spec in TEACHERS.teachers]
    assert [family_of(arm) for arm in networks] == [TEACHER, BY_ANOTHER] * 2
    assert len(set(texts.values())) == 1 and "lenet5(width=0.1)" in next(iter(texts.values()))


def test_all_that_a_run_depends_on_is_in_its_key():
    first = COMPETITIVE_STUDENTS.run_key(TINY, 0)
    for field, value in {"images": 90, "epochs": 3, "network": "lenet5", "widths": (0.2,), "prices": (1e-6,)}.items():
        assert COMPETITIVE_STUDENTS.run_key(replace(TINY, **{field: value}), 0) != first
    assert COMPETITIVE_STUDENTS.run_key(replace(TEACHERS, teaching=2), 0) != COMPETITIVE_STUDENTS.run_key(TEACHERS, 0)
    used = {type(step) for method in TINY.methods(0).values() for step in getattr(method, "steps", (method,))}
    assert used == set(COMPETITIVE_STUDENTS.uses)


def test_the_settings_of_a_plan_have_arms_and_names_of_their_own():
    for plan in PLANS:
        bytes_of, teachers = plan.settings
        assert str(bytes_of) != str(teachers) and teachers.width == min(bytes_of.widths)
        assert (bytes_of.images, bytes_of.epochs) == (teachers.images, teachers.epochs)


# Judgment


def arm(size, accuracy, validation=None):
    """Return the outcomes of an arm."""
    return {BYTES: float(size), VALIDATION: accuracy if validation is None else validation, TEST: accuracy}


def measured(other=90.0, taught=80.0, teachers=(85.0, 84.0), dense=92.0, changed=None):
    """Return runs of five seeds in two settings; the arms of other families have an accuracy of `other`."""
    runs = []
    for seed in range(5):
        wobble = (3 * seed) % 7 / 20
        reached = other + wobble
        outcomes = {
            named(DENSE, "net"): arm(9000, dense + wobble),
            named(ALONE, "width 0.25"): arm(1000, 78.0 - wobble),
            named(TAUGHT, "width 0.25"): arm(1000, taught - wobble),
            named(then_rounded(TAUGHT), "width 0.25, 8 bits"): arm(300, taught - wobble),
            named(then_rounded(TAUGHT), "width 0.25, 4 bits"): arm(200, taught - 1 - wobble),
            named(LONGER, "width 0.25"): arm(1000, taught + 1),
            **{named(family, "small"): arm(900, reached) for family in OTHERS},
            named(ROUNDED, "8 bits"): arm(3000, 99.0),  # larger than the student
            named(then_rounded(PRUNED), "small, 4 bits"): arm(150, reached - 3),
        }
        runs.append(Run("one", seed, outcomes | (changed or {})))
        by_teacher = {}
        for name, size, accuracy in zip(("small", "large"), (500, 5000), teachers, strict=True):
            by_teacher[named(TEACHER, name)] = arm(size, 95.0)
            by_teacher[named(BY_ANOTHER, name)] = arm(1000, accuracy + wobble)
        runs.append(Run("two", seed, by_teacher))
    return runs


def judged(runs):
    judgment = judge(claim.parts(runs), COMPETITIVE_STUDENTS.form)
    return judgment, {one.part.name: one for one in judgment.parts}


@pytest.mark.parametrize("other, taught, verdict", [
    (90.0, 80.0, "confirmed"), (80.0, 90.0, "refuted"), (86.0, 86.0, "refuted"), (86.0, 85.2, "undecided"),
])  # fmt: skip
def test_the_verdict_follows_the_lead_of_the_others(other, taught, verdict):
    judgment, by_name = judged(measured(other, taught))
    assert judgment.verdict == by_name["width 0.25: others are ahead of the taught student"].verdict == verdict


def test_what_is_larger_than_the_student_does_not_count():
    _, by_name = judged(measured(80.0, 79.0))
    lead = by_name["width 0.25: others are ahead of the taught student"].part.values
    assert lead == pytest.approx([1 + 2 * ((3 * seed) % 7) / 20 for seed in range(5)])  # not the 99 % of 8 bits


def test_which_is_best_is_decided_by_validation_images():
    chosen = {named(PRUNED, "small"): arm(900, 70.0, validation=98.0)}
    _, by_name = judged(measured(changed=chosen))
    assert by_name["width 0.25: others are ahead of the taught student"].effect.mean == pytest.approx(-10, abs=0.5)


def test_no_network_that_is_small_enough_is_refused_with_the_sizes():
    (run, *_) = measured()
    with pytest.raises(CompressionError, match=r"no arm of low rank has at most the 200 bytes of .*least is 900: give"):
        claim.ahead(run, named(then_rounded(TAUGHT), "width 0.25, 4 bits"), LOW_RANK)
    assert claim.no_larger(run, named(TAUGHT, "width 0.25"), ROUNDED) == [named(ROUNDED, "small")]


def test_combined_methods_are_findings_at_the_bytes_of_the_rounded_student():
    judgment, by_name = judged(measured(90.0, 80.0))
    for bits, points in ((8, 7.0), (4, 8.0)):
        found = by_name[f"on average: others, combined too, are ahead of the taught student of {bits} bits"]
        assert found.effect.mean == pytest.approx(points, abs=0.5)
    assert sum(one.part.role == "verdict" for one in judgment.parts) == 1


@pytest.mark.parametrize("teachers, points", [((85.0, 84.0), 1.0), ((84.0, 86.0), -2.0)])
def test_the_gap_is_that_of_the_largest_teacher_to_the_best_smaller_one(teachers, points):
    _, by_name = judged(measured(teachers=teachers))
    found = by_name["the student of the best smaller teacher is ahead of that of the largest"]
    assert found.part.values == pytest.approx([points] * 5)


def test_other_findings_are_those_of_longer_and_other_teaching():
    _, by_name = judged(measured(90.0, 80.0, teachers=(85.0, 86.0)))
    means = {
        f"others are ahead of the {LONGER}": 9.3,
        f"others are ahead of the best {BY_ANOTHER}": 4.0,
        f"on average: the {TAUGHT} is ahead of the {ALONE}": 2.0,
    }
    for name, points in means.items():
        assert by_name[name].effect.mean == pytest.approx(points, abs=0.35)


def test_nothing_is_decided_where_there_is_nothing_to_be_taught():
    judgment, _ = judged(measured(dense=78.5))
    assert judgment.verdict == Verdict.UNDECIDED and "the control failed" in judgment.reservations[0]


# The shipped runs


def test_every_family_has_a_network_no_larger_than_each_student():
    for run in claim.together(COMPETITIVE_STUDENTS.stored()):
        for student in claim.arms(run, TAUGHT):
            assert all(claim.no_larger(run, student, family) for family in OTHERS)


def test_the_shipped_runs_have_the_settings_of_today():
    settings = {str(one): one for one in COMPETITIVE_STUDENTS.quick.settings if isinstance(one, SameBytes)}
    for run in COMPETITIVE_STUDENTS.stored():
        if run.setting in settings:
            methods = settings[run.setting].methods(run.seed)
            assert {arm: run.settings[arm] for arm in methods} == {arm: repr(one) for arm, one in methods.items()}
