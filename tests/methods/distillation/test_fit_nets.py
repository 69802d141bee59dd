"""FitNets: two stages, by hand and by the method; a regressor that trains and is gone; one training for a listener."""

import copy
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cancelling import assert_cancelled_at

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.files import load, save
from compedu.hashing import model_digest
from compedu.methods.distillation.fit_nets import hint_loss
from compedu.methods.distillation.shared.distillation import numbered
from compedu.networks import build
from compedu.reproducible import seed_apart
from compedu.training import Recipe, fit, listening

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
STEPS = 5  # of an epoch
MAPS = {"student": "lenet5(width=0.2)", "hint": "relu1", "guided": "relu1"}
SHORT = ce.FitNets(**MAPS, epochs=4, batch=32, hint_share=0.5, shift=0)


def teacher():
    return build("lenet5(size=16, width=0.4)", seed=5)


class Watched(ce.FitNets):
    """Keeps the regressors that it makes, and copies of them before they train."""

    made: ClassVar[list] = []

    def regressor(self, student, teacher, seed):
        companion = super().regressor(student, teacher, seed)
        self.made.append((companion.module, copy.deepcopy(companion.module)))
        return companion


def watched(**changes):
    Watched.made.clear()
    values = {name: getattr(SHORT, name) for name in ("student", "hint", "guided", "epochs", "batch", "shift")}
    return Watched(**values | changes)


def test_the_hint_loss_equals_the_formula():
    guided, hint = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 4.0], [3.0, 7.0]])
    assert hint_loss(guided, hint).item() == (1 + 4 + 0 + 9) / 2 / 4
    assert hint_loss(hint, hint) == 0


def test_both_stages_end_with_the_bits_of_two_trainings_by_hand():
    master, student, given = teacher(), build("lenet5(size=16, width=0.2)", seed=0), numbered(DATA)
    recipe = Recipe(epochs=2, batch=32, lr=2e-3)
    apart = seed_apart(0, "hints")
    (companion,) = SHORT.regressors((("relu1", "relu1"),), student, master, DATA)

    def first(model, x, indices):
        taught = F.relu(master.conv1(x)).detach()
        return (companion.module(F.relu(model.conv1(x))) - taught).square().mean() / 2

    def second(model, x, indices):
        z, t = model(x), master(x).detach()
        q = F.softmax(t / 4, 1)
        soft = 16 * (q * (F.log_softmax(t / 4, 1) - F.log_softmax(z / 4, 1))).sum(1).mean()
        return 0.1 * F.cross_entropy(z, DATA.y_train[indices]) + 0.9 * soft

    fit(student, given, replace(recipe, seed=apart), loss=first, companions={"r": companion})
    fit(student, given, recipe, loss=second)
    made = SHORT(master, DATA)
    for own, theirs in zip(made.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-4, rtol=1e-3)


def test_the_first_stage_moves_the_student_up_to_the_guided_layer_and_no_further():
    student = build("lenet5(size=16, width=0.2)", seed=0)
    before = {name: value.clone() for name, value in student.named_parameters()}
    SHORT.stage(student, teacher(), DATA, (("relu1", "relu1"),), 1)
    moved = {name for name, value in student.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"conv1.weight", "conv1.bias"}


def test_the_regressor_trains_once_and_brings_the_student_closer_to_the_hint():
    long = watched(lr=0.02)
    master = teacher()
    student = build("lenet5(size=16, width=0.2)", seed=0)

    def distance(regressor):
        hint = F.relu(master.conv1(DATA.x_train))
        return hint_loss(regressor(F.relu(student.conv1(DATA.x_train))), hint).item()

    long.stage(student, master, DATA, (("relu1", "relu1"),), 30)
    ((module, untrained),) = Watched.made
    assert not torch.equal(module.weight, untrained.weight) and not module.training
    assert distance(module) < 0.2 * distance(untrained)
    Watched.made.clear()
    watched(hint_share=0.5)(master, DATA)
    assert len(Watched.made) == 1


def test_the_regressor_leaves_no_trace_in_network_or_file(tmp_path):
    student = SHORT(teacher(), DATA)
    plain = build("lenet5(size=16, width=0.2)")
    assert list(student.state_dict()) == list(plain.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())
    assert save(student, tmp_path / "taught.ce") == pytest.approx(save(plain, tmp_path / "plain.ce"), abs=400)
    assert model_digest(load(tmp_path / "taught.ce")) == model_digest(student)


def test_without_a_share_for_hints_it_is_distillation_with_soft_targets():
    soft = ce.SoftTargetDistillation(student=SHORT.student, epochs=4, batch=32, shift=0)
    assert model_digest(replace(SHORT, hint_share=0.0)(teacher(), DATA)) == model_digest(soft(teacher(), DATA))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.3, 1), (0.4, 2), (0.5, 2), (0.8, 3)])
def test_the_share_is_rounded_to_whole_epochs_and_a_listener_sees_one_training(share, expected):
    seen, first = [], []
    method = watched(hint_share=share)

    def look(step):
        seen.append((step.done, step.steps))
        if method.made and not first and not torch.equal(step.model.fc2.bias, build(SHORT.student, size=16).fc2.bias):
            first.append(step.done)

    with listening(look):
        method(teacher(), DATA)
    assert seen == [(done, 4 * STEPS) for done in range(1, 4 * STEPS + 1)]
    assert first == ([expected * STEPS + 1] if expected else [])


def test_no_epoch_is_lost_to_the_rounding_of_a_product():
    assert 0.29 * 100 < 29  # in floating point
    assert ce.FitNets(hint_share=0.29, epochs=100).epochs_of_hints == 29


@pytest.mark.parametrize("shift", [0, 1])
def test_the_second_stage_does_not_show_the_images_of_the_first_in_the_same_order(shift):
    shown = []

    class Seen(type(teacher())):
        def forward(self, x):
            if self.training:
                shown.append(x.clone())
            return super().forward(x)

    student = build("lenet5(size=16, width=0.2)")
    student.__class__ = Seen
    replace(SHORT, shift=shift).teach(student, teacher(), DATA)
    assert len(shown) == 4 * STEPS
    assert all(not torch.equal(shown[i], shown[j]) for i in range(4 * STEPS) for j in range(i))


def test_the_regressor_does_not_repeat_the_draws_of_the_student():
    made = watched()
    student = build("lenet5(size=16, width=0.2)", seed=0)
    made.regressors((("conv1", "conv1"),) * 2, student, teacher(), DATA)
    drawn = [module.weight.flatten()[:9] for module, _ in Watched.made] + [student.conv1.weight.flatten()[:9]]
    ranks = [tuple(values.argsort().tolist()) for values in drawn]  # scales of initial weights differ
    assert len(set(ranks)) == 3


@pytest.mark.parametrize("at", [1, 2 * STEPS, 2 * STEPS + 1])
def test_both_stages_can_be_cancelled(at):
    assert_cancelled_at(at, SHORT, teacher(), DATA)


@pytest.mark.parametrize(("changes", "match"), [
    ({"epochs": 1}, r"FitNets\(.*\): hint_share=0.5 of 1 epoch\(s\), rounded to 0, leaves none for stage 1; choose"),
    ({"hint_share": 0.1}, r"hint_share=0.1 of 4 epoch\(s\), rounded to 0, leaves none for stage 1"),
    ({"hint_share": 0.9}, r"hint_share=0.9 of 4 epoch\(s\), rounded to 4, leaves none for stage 2"),
    ({"guided": "pool1"}, r"FitNets\(.*\), layer 'pool1' under layer 'relu1': no layer maps features of the student"),
    ({"guided": "fc1"}, r"layer 'fc1' under layer 'relu1': no layer maps .* shape \(100,\), to .*\(8, 12, 12\)"),
    ({"guided": "nosuch"}, r"the student of FitNets\(.*\) has no layer 'nosuch'; its layers are conv1, "),
    ({"hint": "nosuch"}, r"the teacher of FitNets\(.*\) has no layer 'nosuch'; its layers are conv1, "),
], ids=["epochs", "first", "second", "smaller", "kinds", "guided", "hint"])  # fmt: skip
def test_what_cannot_be_taught_is_refused_before_any_step(changes, match):
    with pytest.raises(CompressionError, match=match), listening(lambda step: pytest.fail("it trained")):
        replace(SHORT, **changes)(teacher(), DATA)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"FitNets.temperature must be a number above 0"):
        ce.FitNets(temperature=0.0)


@pytest.mark.parametrize("network", ["lenet5(width={})", "resnet(blocks=1, width={})", "vgg(width={})"])
def test_the_middle_layers_of_a_family_are_a_default_that_works(network):
    method = ce.FitNets(student=network.format(0.125), epochs=2, hint_share=0.5, batch=64)
    made = method(build(network.format(0.25), size=16), DATA)
    assert torch.isfinite(made(DATA.x_validation)).all()
