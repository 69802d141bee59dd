"""A teacher assistant: two trainings by hand and by the method, their steps, and who stands between whom."""

from dataclasses import replace

import pytest
import torch
from cancelling import assert_cancelled_at

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.hashing import model_digest
from compedu.methods import compression_of
from compedu.networks import build
from compedu.training import listening

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
STEPS = 5  # of an epoch
FAST = {"student": "lenet5(width=0.1)", "epochs": 2, "batch": 32, "seed": 3}
METHOD = ce.TeacherAssistant(assistant="lenet5(width=0.2)", **FAST)
SOFT = ce.SoftTargetDistillation(**FAST)


def teacher(seed=5):
    return build("lenet5(size=16, width=0.4)", seed=seed)


def test_student_and_assistant_end_with_the_bits_of_two_distillations():
    assistant = replace(SOFT, student="lenet5(width=0.2)")(teacher(), DATA)
    assert model_digest(METHOD(teacher(), DATA)) == model_digest(SOFT(assistant, DATA))
    assert model_digest(METHOD(teacher(), DATA)) != model_digest(SOFT(teacher(), DATA))


def test_knobs_count_for_both_distillations():
    method = replace(METHOD, temperature=2.0, weight=0.5, shift=0)
    soft = replace(SOFT, temperature=2.0, weight=0.5, shift=0)
    assistant = replace(soft, student="lenet5(width=0.2)")(teacher(), DATA)
    assert model_digest(method(teacher(), DATA)) == model_digest(soft(assistant, DATA))


def test_the_epochs_of_both_are_counted_and_the_assistant_trains_first():
    seen = []
    with listening(lambda step: seen.append((step.done, step.steps, len(step.model.conv1.weight)))):
        student = METHOD(teacher(), DATA)
    narrow, wide = len(student.conv1.weight), len(build("lenet5(width=0.2)").conv1.weight)
    assert seen == [(done, 4 * STEPS, wide if done <= 2 * STEPS else narrow) for done in range(1, 4 * STEPS + 1)]
    with listening(lambda step: seen.append(step.done)):
        ce.controls(METHOD)["longer"](teacher(), DATA)
    assert seen[4 * STEPS :] == list(range(1, 4 * STEPS + 1))  # the student alone, in as many steps


def test_without_the_teachers_share_the_student_learns_alone_and_no_assistant_is_trained():
    seen = []
    with listening(lambda step: seen.append(step.steps)):
        alone = replace(METHOD, weight=0.0)(teacher(), DATA)
    assert seen == [2 * STEPS] * 2 * STEPS
    assert model_digest(alone) == model_digest(replace(SOFT, weight=0.0)(teacher(), DATA))


@pytest.mark.parametrize("at", [1, 2 * STEPS, 2 * STEPS + 1])
def test_both_trainings_can_be_cancelled(at):
    assert_cancelled_at(at, METHOD, teacher(), DATA)


def test_a_random_teacher_has_an_assistant_too(monkeypatch):
    taught = []
    teach = ce.SoftTargetDistillation.teach

    def watched(self, student, teacher, data):
        taught.append((model_digest(student), model_digest(teacher)))
        return teach(self, student, teacher, data)

    monkeypatch.setattr(ce.SoftTargetDistillation, "teach", watched)
    random = ce.controls(METHOD)["random teacher"]
    assert model_digest(random(teacher(), DATA)) != model_digest(METHOD(teacher(), DATA))
    (by_random, by_its_assistant), (by_teacher, by_assistant) = taught[:2], taught[2:]
    assert by_random[0] == by_teacher[0] and by_its_assistant[0] == by_assistant[0]  # the same starts
    assert by_random[1] != by_teacher[1] == model_digest(teacher()) and by_its_assistant[1] != by_assistant[1]


@pytest.mark.parametrize("size", ["lenet5(width=0.05)", "lenet5(width=0.5)", "lenet5(width=0.1)"])
def test_an_assistant_that_is_not_between_the_two_is_named(size):
    (said,) = compression_of(replace(METHOD, assistant=size)(teacher(), DATA)).skipped
    assert said.layer == "(assistant)" and said.reason.startswith("is not between its student and its teacher: ")
    assert compression_of(METHOD(teacher(), DATA)).skipped == ()
    assert compression_of(replace(METHOD, assistant=size, weight=0.0)(teacher(), DATA)).skipped == ()


def test_networks_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match=r"TeacherAssistant.assistant must be the spec of a network: no network is"):
        replace(METHOD, assistant="nosuch")
    with pytest.raises(ValueError, match=r"TeacherAssistant.assistant must be a string"):
        replace(METHOD, assistant=teacher())
    with (
        pytest.raises(CompressionError, match=r"TeacherAssistant.assistant has 12 classes, its teacher 10"),
        listening(lambda step: pytest.fail("it trained")),
    ):
        replace(METHOD, assistant="lenet5(width=0.2, classes=12)")(teacher(), DATA)
    tiny = digits(size=8).shortened(train=40, validation=20, test=20)
    small = build("lenet300(size=8, width=0.2)")
    with pytest.raises(CompressionError, match=r"TeacherAssistant.assistant 'lenet5\(width=0.2\)' cannot be built for"):
        replace(METHOD, student="lenet300(width=0.1)")(small, tiny)


def test_the_file_holds_the_student_alone():
    plain = ce.measure(SOFT(teacher(), DATA), DATA, speed=False)
    report = ce.measure(METHOD(teacher(), DATA), DATA, speed=False)
    assert report.parameters == plain.parameters and abs(report.file_bytes - plain.file_bytes) < 100
    assert report.method == repr(METHOD) and torch.isfinite(torch.tensor(report.loss))
