"""Soft targets: the loss and its gradients by independent formulas, and a student that learns from scores alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import rel_entr, softmax
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.evaluation import PROBED, refuse_probabilities
from compedu.hashing import model_digest
from compedu.methods import compression_of
from compedu.methods.distillation.soft_targets import SoftTargetDistillation, distillation_loss, soft_loss
from compedu.methods.pruning.magnitude import MagnitudePruning
from compedu.networks import build
from compedu.training import Recipe, fit

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
FAST = {"student": "lenet300(width=0.05)", "epochs": 2, "batch": 32}


def scores(seed, images=6, classes=5):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_loss_and_gradient_equal_the_formula_in_numpy(temperature, weight):
    student, teacher, labels = scores(1).requires_grad_(), scores(2), torch.tensor([0, 4, 2, 2, 1, 3])
    loss = distillation_loss(student, teacher, labels, temperature, weight)
    (gradient,) = torch.autograd.grad(loss, student)
    z, q = student.detach().numpy(), softmax(teacher.numpy() / temperature, axis=1)
    p, hard = softmax(z / temperature, axis=1), softmax(z, axis=1)
    cross = -np.log(hard[np.arange(6), labels.numpy()]).mean()
    soft = temperature**2 * rel_entr(q, p).sum(1).mean()
    assert loss.item() == pytest.approx((1 - weight) * cross + weight * soft, rel=1e-12)
    expected = ((1 - weight) * (hard - np.eye(5)[labels.numpy()]) + weight * temperature * (p - q)) / 6
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-14)


def test_the_soft_loss_equals_the_usual_one_of_other_libraries():
    student, teacher = scores(1), scores(2)
    theirs = F.kl_div(F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1), reduction="sum") * 4**2 / len(student)
    torch.testing.assert_close(soft_loss(student, teacher, 4.0), theirs)


@pytest.mark.parametrize("temperature", [1.0, 7.0])
def test_a_student_that_agrees_with_its_teacher_has_no_soft_loss_and_no_gradient(temperature):
    student = scores(3).requires_grad_()
    loss = soft_loss(student, scores(3) + 5.0, temperature)  # a constant for all classes changes no probability
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(loss.item()) < 1e-12 and gradient.abs().max() < 1e-14


def test_at_high_temperature_the_gradient_is_that_of_matching_the_scores():
    student, teacher = scores(4).requires_grad_(), scores(5)
    matching = (student - student.mean(1, True) - teacher + teacher.mean(1, True)).detach() / len(student)
    for temperature, tolerance in ((100.0, 0.1), (1e4, 1e-3)):
        (gradient,) = torch.autograd.grad(soft_loss(student, teacher, temperature) / temperature**2, student)
        ratio = (gradient * matching).sum() / matching.square().sum()
        assert ratio.item() * 5 * temperature**2 == pytest.approx(1, rel=tolerance)  # 1 / (N T^2), N = 5 classes


def test_without_the_factor_gradients_shrink_with_the_temperature_and_with_it_they_do_not():
    def norm(temperature, factor):
        student = scores(6).requires_grad_()
        loss = soft_loss(student, scores(7), temperature) / (1 if factor else temperature**2)
        return torch.autograd.grad(loss, student)[0].norm().item()

    assert norm(20.0, factor=True) == pytest.approx(norm(10.0, factor=True), rel=0.2)
    assert norm(20.0, factor=False) < 0.4 * norm(10.0, factor=False)


class Counting(nn.Module):
    """A teacher that counts the images it is shown, in all copies of it together."""

    def __init__(self, shown, classes=10):
        super().__init__()
        self.shown, self.inner = shown, nn.Sequential(nn.Flatten(), nn.Linear(256, classes))

    def forward(self, x):
        self.shown.append(x.clone())
        return self.inner(x)

    def __deepcopy__(self, memo):
        copy = Counting(self.shown, self.inner[1].out_features)
        copy.load_state_dict(self.state_dict())
        return copy


def test_the_teacher_scores_each_image_once_before_the_training():
    teacher = Counting([])
    SoftTargetDistillation(**FAST, shift=0)(teacher, DATA)
    looks = [DATA.x_train[:PROBED], DATA.example]  # they tell scores from probabilities, and the classes
    assert torch.equal(torch.cat(teacher.shown), torch.cat([*looks, DATA.x_train]))


@pytest.mark.parametrize("drawn", [{"shift": 1}, {"shift": 0, "mirror": True}], ids=str)
def test_the_teacher_sees_images_as_they_are_drawn_for_the_student(drawn):
    teacher = Counting([])
    SoftTargetDistillation(**FAST, **drawn)(teacher, DATA)
    later = torch.cat(teacher.shown)[PROBED + 1 :]
    assert len(later) == 2 * 130
    assert sum(any(torch.equal(image, other) for other in DATA.x_train) for image in later[:40]) < 35


class Learning(Counting):
    """A student that keeps the images that it learns from."""

    def forward(self, x):
        return super().forward(x) if self.training else self.inner(x)

    def __deepcopy__(self, memo):
        copy = Learning(self.shown)
        copy.load_state_dict(self.state_dict())
        return copy.train(self.training)


@pytest.mark.parametrize("drawn", [{"shift": 2}, {"shift": 0, "mirror": True}, {"shift": 1, "mirror": True}], ids=str)
def test_a_consistent_teacher_sees_the_pixels_that_its_student_sees_and_others_in_each_epoch(drawn):
    teacher, student = Counting([]), Learning([])
    SoftTargetDistillation(**FAST | {"student": student}, **drawn, weight=1.0)(teacher, DATA)
    learned = student.shown
    taught = teacher.shown[-len(learned) :]
    assert len(learned) == 2 * 5 and all(torch.equal(*pair) for pair in zip(learned, taught, strict=True))
    first, second = torch.cat(learned[:5]), torch.cat(learned[5:])
    assert sum(any(torch.equal(image, other) for other in second) for image in first) < len(first)


def test_with_weight_zero_the_student_learns_alone_bit_by_bit():
    alone = build("lenet300(width=0.05, size=16)", seed=3)
    fit(alone, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1))
    control = SoftTargetDistillation(**FAST, weight=0.0, seed=3)(build("lenet5(size=16)"), DATA)
    assert model_digest(control) == model_digest(alone)


def test_with_weight_one_the_labels_do_not_matter_and_the_teacher_does():
    teacher, only_teacher = build("lenet5(size=16, width=0.2)"), SoftTargetDistillation(**FAST, weight=1.0)
    mislabeled = replace(DATA, y_train=DATA.y_train.flip(0))
    student = only_teacher(teacher, DATA)
    assert model_digest(only_teacher(teacher, mislabeled)) == model_digest(student)
    assert model_digest(only_teacher(build("lenet5(size=16, width=0.2)", seed=1), DATA)) != model_digest(student)


def test_the_student_comes_closer_to_its_teacher_than_alone():
    teacher = build("lenet300(size=16, width=0.3)")
    fit(teacher, DATA, Recipe(epochs=15, batch=32, lr=3e-3))

    def distance(weight):
        longer = SoftTargetDistillation(student="lenet300(width=0.1)", epochs=40, lr=0.01, batch=32, weight=weight)
        student = longer(teacher, DATA)
        return soft_loss(student(DATA.x_train), teacher(DATA.x_train), 4.0).item()

    assert distance(1.0) < 0.5 * distance(0.0)


def test_the_student_is_built_for_the_data_and_carries_its_history():
    teacher = build("lenet5(size=16, width=0.2)")
    digest = model_digest(teacher)
    step = SoftTargetDistillation(**FAST)
    student = (MagnitudePruning(sparsity=0.5) | step)(teacher, DATA)
    assert student.spec == "lenet300(size=16, channels=1, classes=10, width=0.05)"
    assert compression_of(student).steps == ("MagnitudePruning(sparsity=0.5)", repr(step))
    assert model_digest(teacher) == digest and not student.training
    assert model_digest(step(teacher, DATA)) == model_digest(step(teacher, DATA))


def test_the_student_has_the_classes_of_its_teacher():
    student = SoftTargetDistillation(**FAST)(Counting([], classes=12), DATA)
    assert student.fc3.out_features == 12


NO_NETWORKS = ["lenet6", "lenet5(depth=3)", "lenet5(width=-1)", "lenet5(size=8)", "import os", ""]


@pytest.mark.parametrize("student", NO_NETWORKS)
def test_a_student_that_is_no_network_is_refused_when_the_method_is_built(student):
    with pytest.raises(ValueError, match="SoftTargetDistillation.student must be the spec of a network: "):
        SoftTargetDistillation(student=student)


class Ending(nn.Module):
    """A small network with `end` behind its scores."""

    def __init__(self, end):
        super().__init__()
        self.flatten, self.relu, self.end = nn.Flatten(), nn.ReLU(), end
        self.fc1, self.fc2 = nn.Linear(256, 8), nn.Linear(8, 10)
        self.eval()

    def forward(self, x):
        return self.end(self.fc2(self.relu(self.fc1(self.flatten(x)))))


@pytest.mark.parametrize("method", [
    SoftTargetDistillation(**FAST), SoftTargetDistillation(**FAST | {"shift": 1}), ce.FineTune(epochs=1),
    ce.GradualPruning(epochs=1), ce.OptimalBrainDamage(), ce.OptimalBrainSurgeon(),
    ce.FilterPruning(criterion="taylor"), ce.MagnitudePruning(budget="sensitivity"),
], ids=repr)  # fmt: skip
def test_a_network_that_ends_in_a_softmax_is_refused_by_every_loss(method):
    network = Ending(nn.Softmax(1))
    before = model_digest(network)
    with pytest.raises(CompressionError, match="the network Ending ends in a softmax: it returns probabilities"):
        method(network, DATA)
    assert model_digest(network) == before


def test_logarithms_of_probabilities_and_positive_scores_are_scores():
    for end in (nn.LogSoftmax(1), nn.ReLU(), nn.Sigmoid()):
        assert SoftTargetDistillation(**FAST)(Ending(end), DATA) is not None
    labels = {f"y_{split}": torch.zeros_like(DATA.split(split)[1]) for split in ("train", "validation", "test")}
    one_class = replace(DATA, classes=("all",), **labels)
    refuse_probabilities(nn.Sequential(nn.Flatten(), nn.Linear(256, 1), nn.Softmax(1)), one_class)


def test_images_that_do_not_fit_are_refused_by_name():
    wide = replace(DATA, **{f"x_{split}": DATA.split(split)[0][..., :12] for split in ("train", "validation", "test")})
    teacher = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 10)).eval()
    with pytest.raises(CompressionError, match="needs square images; those of .* are 16 x 12"):
        SoftTargetDistillation(**FAST)(teacher, wide)
    with pytest.raises(CompressionError, match="cannot take images of 'digits"):
        SoftTargetDistillation(**FAST)(build("lenet5(size=28)"), DATA)
    with pytest.raises(CompressionError, match="cannot take images of 'digits"):
        SoftTargetDistillation(student="lenet5(size=28)", epochs=1)(teacher, DATA)
    with pytest.raises(CompressionError, match="student.*lenet5.size must be at least 16"):
        SoftTargetDistillation(student="lenet5")(teacher, digits(size=12).shortened(50, 10, 10))
    with pytest.raises(CompressionError, match="has no teacher: Flatten has no weights"):
        SoftTargetDistillation(**FAST)(nn.Flatten(), DATA)
    with pytest.raises(CompressionError, match="needs data for training"):
        SoftTargetDistillation()(teacher)
