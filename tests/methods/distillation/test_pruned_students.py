"""Prune, then distill: the student is a method applied to its teacher, and stays as compressed as that made it."""

import argparse
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

import compedu as ce
from compedu.commands import KNOB, method_with_knobs
from compedu.datasets.digits import digits
from compedu.files import load, model_bytes, save
from compedu.forms import Masked
from compedu.hashing import model_digest
from compedu.knobs import knobs
from compedu.methods import compression_of
from compedu.networks import build
from compedu.sweeps import method_of
from compedu.training import listening

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
FAST = {"epochs": 2, "batch": 32}
MAGNITUDE = ce.MagnitudePruning(sparsity=0.9)
CHANNELS = ce.FilterPruning(sparsity=0.5)
PRUNED = ce.SoftTargetDistillation(student=MAGNITUDE, **FAST)
NARROWED = ce.SoftTargetDistillation(student=CHANNELS, **FAST)
BOTH = replace(PRUNED, student=CHANNELS | MAGNITUDE)


def teacher():
    return build("lenet5(size=16, width=0.4)", seed=5)


def test_weights_that_were_pruned_stay_zero_after_every_step():
    zeros = {n: m.dense() == 0 for n, m in MAGNITUDE(teacher(), DATA).named_modules() if isinstance(m, Masked)}
    assert len(zeros) == 4
    left = []

    def look(step):
        layers = {name: step.model.get_submodule(name) for name in zeros}
        left.append(all(bool((layer.dense()[zeros[name]] == 0).all()) for name, layer in layers.items()))

    with listening(look):
        student = PRUNED(teacher(), DATA)
    assert left == [True] * 10
    for name, zero in zeros.items():
        layer = student.get_submodule(name)
        assert torch.equal(layer.mask, ~zero) and torch.equal(layer.latent == 0, zero)


def test_the_file_of_a_pruned_student_is_as_small_as_that_of_the_pruned_network(tmp_path):
    student = PRUNED(teacher(), DATA)
    dense, pruned = (len(model_bytes(model)) for model in (teacher(), MAGNITUDE(teacher(), DATA)))
    size = save(student, tmp_path / "student.ce")
    assert size == pytest.approx(pruned, rel=0.02) and size < 0.2 * dense
    assert model_digest(load(tmp_path / "student.ce")) == model_digest(student)


def test_channels_that_were_removed_stay_away_and_are_recorded(tmp_path):
    pruned, student = CHANNELS(teacher(), DATA), NARROWED(teacher(), DATA)
    assert [p.shape for p in student.parameters()] == [p.shape for p in pruned.parameters()]
    assert len(student.conv1.weight) < len(teacher().conv1.weight)
    assert model_digest(student) != model_digest(pruned)
    assert [removed.step for removed in compression_of(student).removed] == [repr(CHANNELS)] * 3
    assert save(student, tmp_path / "student.ce") < 0.5 * len(model_bytes(teacher()))
    assert model_digest(load(tmp_path / "student.ce")) == model_digest(student)


@pytest.mark.parametrize("method", [PRUNED, NARROWED, BOTH], ids=["magnitude", "channels", "both"])
def test_the_report_names_the_pruning_and_its_text_makes_the_method_again(method, tmp_path):
    (report,) = ce.sweep([method], teacher(), DATA, store=tmp_path / "sweep")
    assert report.method == repr(method) and repr(method.student) in report.method
    assert method_of(report.method) == method
    forms = {row.form for row in report.layers}
    assert forms == ({"Linear", "Conv2d"} if method is NARROWED else {"Masked"})
    assert report.file_bytes < 0.5 * report.baseline_file_bytes
    (again,) = ce.sweep([method_of(report.method)], teacher(), DATA, store=tmp_path / "sweep")
    assert again == report


def test_a_student_that_was_pruned_is_a_step_of_a_pipeline():
    steps = PRUNED | ce.LinearQuantization(bits=8)
    made = steps(teacher(), DATA)
    assert compression_of(made).steps == (repr(PRUNED), repr(steps.steps[1]))
    assert method_of(repr(steps)) == steps
    assert (made.fc1.dense() == 0).float().mean() >= 0.9


def test_the_mask_is_that_of_the_teacher_and_the_student_starts_from_its_weights():
    slow = replace(PRUNED, epochs=1, lr=1e-9)(teacher(), DATA)
    torch.testing.assert_close(slow.fc1.dense(), MAGNITUDE(teacher(), DATA).fc1.dense(), atol=1e-6, rtol=1e-4)


class Newer(ce.MagnitudePruning):
    """The same method after a change that its version tells."""

    version: ClassVar[int] = ce.MagnitudePruning.version


def test_the_key_holds_all_knobs_of_the_pruning_and_its_version(monkeypatch):
    method = replace(PRUNED, student=Newer(sparsity=0.9))
    before = method.key_on("")
    assert "budget=" in before and f"Newer/{Newer.version}(" in before
    monkeypatch.setattr(Newer, "version", Newer.version + 1)
    assert method.key_on("") != before


@pytest.mark.parametrize(("text", "match"), [
    ("SoftTargetDistillation(student=Nosuch())", "no method is called 'Nosuch'"),
    ("SoftTargetDistillation(student=open('x'))", "is not a method"),
    ("SoftTargetDistillation(student=MagnitudePruning(sparsity=2.0))", r"MagnitudePruning.sparsity must be a number"),
    ("SoftTargetDistillation(student=MagnitudePruning(bits=2))", "MagnitudePruning has no knob 'bits'"),
    ("SoftTargetDistillation(student=MagnitudePruning(), student=FineTune())", "'student' is given twice"),
    ("SoftTargetDistillation(**MagnitudePruning())", "values must be given by name"),
    ("MagnitudePruning(sparsity=MagnitudePruning())", "MagnitudePruning.sparsity must be a number"),
], ids=["unknown", "code", "value", "knob", "twice", "unnamed", "place"])  # fmt: skip
def test_any_other_text_in_a_knob_is_refused_by_name(text, match):
    with pytest.raises(ValueError, match=match):
        method_of(text)


def test_a_method_in_a_knob_is_read_though_only_its_holder_was_asked_for():
    assert method_of(repr(BOTH), (ce.SoftTargetDistillation,)) == BOTH


@pytest.mark.parametrize("text", ["lenet5(width=0.2)", repr(MAGNITUDE), repr(BOTH.student)])
def test_a_command_and_the_field_of_an_explorer_take_a_student_as_it_is_written(text):
    declared = knobs(ce.SoftTargetDistillation)["student"]
    method = ce.SoftTargetDistillation(student=declared.parse(text))
    assert str(method.student) == text
    if "width" not in text:
        assert method.student == method_of(text)
        with pytest.raises(ValueError, match="has no knob 'nosuch'"):
            declared.parse("MagnitudePruning(nosuch=1)")


def test_a_random_teacher_is_chosen_on_a_command_line():
    given = argparse.Namespace(
        method="RandomTeacher", **{f"{KNOB}distillation": "FitNets(epochs=3)", f"{KNOB}seed": "2"}
    )
    assert method_with_knobs(given) == ce.RandomTeacher(distillation=ce.FitNets(epochs=3), seed=2)
    setattr(given, f"{KNOB}distillation", "MagnitudePruning()")
    with pytest.raises(ValueError, match="RandomTeacher.distillation must be a distillation"):
        method_with_knobs(given)
