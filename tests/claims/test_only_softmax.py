"""Claim D12: all arms train the same student in equal steps, and one taught student that is ahead refutes the claim."""

from dataclasses import replace

import pytest
import torch

import compedu as ce
from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import only_softmax as claim
from compedu.claims.survey.only_softmax import (
    ALONE,
    CONTROLLED,
    ON_TRIAL,
    ONLY_SOFTMAX,
    OUTPUTS,
    PAIRS,
    POSE,
    TAUGHT,
    TEST,
    VALIDATION,
    Task,
    of_random_teacher,
)
from compedu.claims.verdict import Verdict
from compedu.datasets.drawn import glyphs
from compedu.errors import CompressionError
from compedu.methods.distillation.soft_targets import soft_loss
from compedu.training import listening

TINY = Task("pose", 64, 4, "lenet5(width=0.25)", 64, 1, "conv2", 1.0)
ARMS = (ALONE, *TAUGHT, *map(of_random_teacher, CONTROLLED))


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    sizes = {"train": 64, "validation": 32, "test": 32}
    monkeypatch.setattr(claim, "glyphs", lambda train, targets: glyphs(sizes=sizes, targets=targets))
    yield
    claim.trained_teacher.cache_clear()


@pytest.mark.parametrize("targets", claim.TASKS)
def test_every_arm_trains_the_same_student_in_equal_steps(targets):
    task = replace(TINY, targets=targets)
    arms = task.arms(5)
    assert tuple(arms) == ARMS
    data, teacher = task.data(64), task.taught_by()
    students, steps = [], []
    for method in arms.values():
        seen = []
        with listening(seen.append):
            student = method(teacher, data)
        students.append({name: value.shape for name, value in student.state_dict().items()})
        steps.append(seen[-1].done)
        assert "seed=5" in repr(method)
    assert all(one == students[0] for one in students) and set(steps) == {task.epochs}  # of one batch each


def test_only_the_teachers_outputs_are_asked_for_where_the_targets_of_shifted_images_are_unknown():
    pose, pairs = (replace(TINY, targets=one).arms(0) for one in ("pose", "pairs"))
    shifted = {name for name, arm in pose.items() if getattr(arm, "shift", getattr(arm, "distillation", arm).shift)}
    assert shifted == {OUTPUTS}
    assert all(getattr(arm, "distillation", arm).shift == 1 for arm in pairs.values())


def test_soft_targets_are_refused_for_both_tasks_and_a_single_output_has_no_gradient_in_a_softmax():
    for targets in claim.TASKS:
        task = replace(TINY, targets=targets)
        with pytest.raises(CompressionError, match="is defined for classification, but the objective of"):
            ce.SoftTargetDistillation(student="lenet5(width=0.25)", epochs=1)(task.taught_by(), task.data(64))
    student = torch.tensor([[0.3], [-2.0]], requires_grad=True)
    soft_loss(student, torch.tensor([[5.0], [1.0]]), 2.0).backward()
    assert student.grad.abs().max() == 0


def test_a_run_reads_validation_and_test_images_of_every_arm():
    run = claim.compute(TINY, 3)
    assert set(run.outcomes) == {"teacher", *ARMS}
    assert all(set(run.outcomes[arm]) == {VALIDATION, TEST} for arm in ARMS) and run.setting == str(TINY)


# Judgment


def measured(pose, pairs, random=0.0):
    """Return runs of both tasks: points by which the arm on trial is ahead of the student alone, and of its twin."""
    runs = []
    for name, gain in ((POSE, pose), (PAIRS, pairs)):
        for seed in range(6):
            wobble = (5 * seed) % 7 / 20
            outcomes = {arm: {VALIDATION: 50.0, TEST: 50.0 - wobble} for arm in ARMS}
            outcomes[ON_TRIAL[name]] = {VALIDATION: 50.0, TEST: 50.0 + gain + wobble / 2}
            outcomes[of_random_teacher(ON_TRIAL[name])] = {VALIDATION: 50.0, TEST: 50.0 + random - wobble}
            runs.append(Run(name, seed, {"teacher": {TEST: 90.0}} | outcomes))
    return runs


def verdict(runs):
    return judge(claim.parts(runs), ONLY_SOFTMAX.form).verdict


def test_one_task_in_which_a_taught_student_is_ahead_refutes_the_claim():
    assert verdict(measured(5.0, 0.0)) == Verdict.REFUTED
    assert verdict(measured(5.0, 5.0)) == Verdict.REFUTED
    assert verdict(measured(-5.0, 0.0)) == Verdict.UNDECIDED  # examples do not confirm a universal claim


def test_a_gain_that_a_random_teacher_gives_too_is_none():
    assert verdict(measured(5.0, 5.0, random=5.0)) == Verdict.UNDECIDED
    assert verdict(measured(5.0, 5.0, random=2.0)) == Verdict.REFUTED


def test_nothing_is_decided_where_the_teacher_knows_no_more():
    runs = measured(5.0, 5.0)
    for run in runs:
        run.outcomes["teacher"][TEST] = 49.0 + run.seed / 10
    judgment = judge(claim.parts(runs), ONLY_SOFTMAX.form)
    assert judgment.verdict == Verdict.UNDECIDED and "the control failed" in judgment.reservations[0]
