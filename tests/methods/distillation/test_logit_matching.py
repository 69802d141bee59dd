"""Logit matching: loss and gradient by the formula, its tie to soft targets, and the bottleneck."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.files import load, save
from compedu.forms import Factored
from compedu.hashing import model_digest
from compedu.methods.distillation.logit_matching import matching_loss, with_bottleneck
from compedu.methods.distillation.soft_targets import soft_loss
from compedu.networks import build
from compedu.reproducible import seeded
from compedu.training import Recipe, fit

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
MATCH = ce.LogitMatching(student="lenet300(width=0.1)", epochs=2, batch=32)


def teacher(seed=5):
    return build("lenet5(size=16, width=0.2)", seed=seed)


def logits(seed, images=6, classes=5):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)


def test_loss_and_gradient_equal_the_formula_in_numpy():
    student, master = logits(1).requires_grad_(), logits(2)
    loss = matching_loss(student, master)
    (gradient,) = torch.autograd.grad(loss, student)
    difference = student.detach().numpy() - master.numpy()
    assert loss.item() == pytest.approx(0.5 * (difference**2).sum() / 6, rel=1e-14)
    np.testing.assert_allclose(gradient.numpy(), difference / 6, rtol=1e-14)
    assert matching_loss(master, master) == 0


@pytest.mark.parametrize("classes", [3, 5, 10])  # of two, the first-order errors cancel
def test_soft_targets_tend_to_matching_of_zero_mean_logits(classes):
    def gradient(loss):
        student = logits(1, classes=classes)
        student = (student - student.mean(1, keepdim=True)).requires_grad_()
        master = logits(2, classes=classes)
        return torch.autograd.grad(loss(student, master - master.mean(1, keepdim=True)), student)[0]

    matched = gradient(matching_loss)
    errors = []
    for t in (1e2, 1e3, 1e4):
        # soft_loss holds the factor T^2: without it the gradients tend to 1 / (N T^2) of each other, with it to 1 / N
        plain = gradient(lambda student, master, t=t: soft_loss(student, master, t) / t**2)
        errors.append((plain * classes * t**2 / matched - 1).abs().max().item())
    assert errors[2] < 2e-2 and errors[1] / errors[2] == pytest.approx(10, rel=0.1)  # the error falls as 1 / T
    torch.testing.assert_close(gradient(lambda s, m: soft_loss(s, m, 1e6)) * classes, matched, rtol=1e-3, atol=1e-6)


def test_soft_targets_at_high_temperature_do_not_see_the_mean_of_the_logits_and_matching_does():
    student, master = logits(1).requires_grad_(), logits(2)
    (matched,) = torch.autograd.grad(matching_loss(student, master), student)
    (soft,) = torch.autograd.grad(5 * soft_loss(student, master, 1e6), student)
    torch.testing.assert_close(soft, matched - matched.mean(1, keepdim=True), rtol=1e-3, atol=1e-5)
    assert (soft - matched).abs().max() > 0.1


@pytest.mark.parametrize("target", [-3.0, 0.0, 1e3])
def test_a_softmax_over_one_logit_teaches_nothing_and_matching_does(target):
    student = torch.tensor([[0.5], [2.0]], dtype=torch.float64, requires_grad=True)
    master = torch.full((2, 1), target, dtype=torch.float64)
    for temperature in (0.5, 4.0, 100.0):
        loss = soft_loss(student, master, temperature)
        assert loss.item() == 0 and torch.autograd.grad(loss, student)[0].abs().max() == 0
    (gradient,) = torch.autograd.grad(matching_loss(student, master), student)
    torch.testing.assert_close(gradient, (student.detach() - target) / 2)


def test_the_method_trains_on_the_logits_alone():
    master = teacher()
    before = model_digest(master)
    student = build("lenet300(size=16, width=0.1)", seed=3)

    def loss(model, x, y):
        return 0.5 * (model(x) - master(x).detach()).pow(2).sum() / len(x)

    fit(student, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1), loss=loss)
    made = replace(MATCH, seed=3)(master, DATA)
    for own, theirs in zip(made.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-4, rtol=1e-3)
    mislabeled = replace(DATA, y_train=DATA.y_train.flip(0))
    assert model_digest(replace(MATCH, seed=3)(master, mislabeled)) == model_digest(made)
    assert model_digest(MATCH(teacher(seed=6), DATA)) != model_digest(MATCH(master, DATA))
    assert model_digest(master) == before and not master.training
    assert all(p.grad is None for p in master.parameters())


def test_the_student_comes_closer_to_its_teachers_logits():
    master = teacher()
    fit(master, DATA, Recipe(epochs=10, batch=32, lr=3e-3))

    def distance(student):
        return matching_loss(student(DATA.x_train), master(DATA.x_train)).item()

    long = replace(MATCH, epochs=20, lr=0.01, shift=0)
    assert distance(long(master, DATA)) < 0.1 * distance(build("lenet300(size=16, width=0.1)"))


def test_a_bottleneck_is_two_layers_in_place_of_the_first_linear_one(tmp_path):
    made = replace(MATCH, bottleneck=8)(teacher(), DATA)
    assert isinstance(made.fc1, Factored) and type(made.fc2) is nn.Linear
    assert made.fc1.first.weight.shape == (8, 256) and made.fc1.first.bias is None
    assert made.fc1.second.weight.shape == (30, 8) and made.fc1.second.bias is not None
    x = DATA.x_validation.flatten(1)
    expected = x @ made.fc1.first.weight.T @ made.fc1.second.weight.T + made.fc1.second.bias
    torch.testing.assert_close(made.fc1(x), expected)
    whole = MATCH(teacher(), DATA)
    assert save(made, tmp_path / "two.ce") < 0.5 * save(whole, tmp_path / "one.ce")
    assert model_digest(load(tmp_path / "two.ce")) == model_digest(made)


def test_the_seed_draws_the_factors():
    one, same, other = (with_bottleneck(nn.Linear(6, 5), 2, seed) for seed in (1, 1, 2))
    assert model_digest(one) == model_digest(same) != model_digest(other)


def test_a_bottleneck_stands_in_the_student_though_a_teacher_of_the_same_layers_computes_something_else():
    other = build("lenet300(size=16, width=0.1)", seed=4)
    other.relu1 = nn.Tanh()
    other.relu2 = nn.Sigmoid()
    student = replace(MATCH, bottleneck=8, student="lenet300(width=0.1)")(other, DATA)
    assert isinstance(student.fc1, Factored) and isinstance(student.relu2, nn.ReLU)


def test_both_factors_of_a_bottleneck_train_and_a_given_student_stays():
    given = build("lenet300(size=16, width=0.1)", seed=2)
    before = model_digest(given)
    slow, fast = (replace(MATCH, student=given, bottleneck=8, lr=lr)(teacher(), DATA) for lr in (1e-9, 1e-2))
    for name in ("first", "second"):
        moved = (slow.fc1.get_submodule(name).weight - fast.fc1.get_submodule(name).weight).abs().max()
        assert moved > 1e-3
    torch.testing.assert_close(slow.fc2.weight, given.fc2.weight, atol=1e-6, rtol=1e-4)
    assert model_digest(given) == before


class Turned(nn.Module):
    """A network that lists its linear layers in another order than it runs them, and one that it never runs."""

    def __init__(self, first):
        super().__init__()
        self.spare = nn.Linear(256, 256)
        self.fc2 = nn.Linear(30, 10)
        self.fc1 = first

    def forward(self, x):
        return self.fc2(self.fc1(x.flatten(1)).relu())


class Scaled(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_the_first_linear_layer_is_the_one_that_runs_first():
    made = replace(MATCH, student=Turned(nn.Linear(256, 30)), bottleneck=8)(teacher(), DATA)
    assert isinstance(made.fc1, Factored) and type(made.fc2) is type(made.spare) is nn.Linear


@pytest.mark.parametrize(("student", "match"), [
    (lambda: Turned(Scaled(256, 30)), r"first linear layer cannot have a bottleneck \(fc1: Scaled is not an ord"),
    (lambda: ce.LinearQuantization(bits=4, layers="fc1")(build("lenet300(size=16, width=0.1)")),
     r"cannot have a bottleneck \(fc1: is already compressed \(Quantized\)\); use bottleneck=0, or another student"),
    (lambda: ce.TruncatedSVD(rank=0.2, layers="fc1")(build("lenet300(size=16, width=0.1)")),
     r"cannot have a bottleneck \(fc1: is already compressed \(Factored\)\)"),
], ids=["own forward", "quantized", "factored"])  # fmt: skip
def test_a_first_linear_layer_that_cannot_be_replaced_is_refused_and_no_other_takes_its_place(student, match):
    with pytest.raises(CompressionError, match=match):
        replace(MATCH, student=student(), bottleneck=4)(teacher(), DATA)


def test_a_bottleneck_does_not_repeat_the_draws_of_the_student():
    made = replace(MATCH, lr=1e-12, weight_decay=0.0, bottleneck=8)(teacher(), DATA)
    with seeded(MATCH.seed):
        repeated = nn.Linear(256, 8, bias=False).weight
    assert not torch.allclose(made.fc1.first.weight, repeated, atol=1e-6)


def test_a_bottleneck_that_saves_nothing_is_refused_by_name():
    most = 26  # of 256 x 30: (256 + 30) * 26 = 7436 < 7680 <= (256 + 30) * 27
    assert replace(MATCH, bottleneck=most)(teacher(), DATA).fc1.rank == most
    with pytest.raises(
        CompressionError, match=r"LogitMatching\(.*\): fc1 of the student, 30 x 256, has .* a bottleneck of at most 26"
    ):
        replace(MATCH, bottleneck=most + 1)(teacher(), DATA)
    maps = nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(CompressionError, match=r"LogitMatching\(.*\): the student has no linear layer"):
        replace(MATCH, student=maps, bottleneck=4)(teacher(), DATA)
