"""Attention transfer: maps and loss against NumPy, invariances, and a student that looks where its teacher does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.hashing import model_digest
from compedu.methods.distillation.attention_transfer import attention_loss, attention_maps
from compedu.networks import build
from compedu.training import Recipe, fit

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
FAST = {"student": "lenet5(width=0.2)", "epochs": 2, "batch": 32}


def maps(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def in_numpy(student, teacher):
    """The loss of maps of equal size, image by image."""
    distances = []
    for one, other in zip(student, teacher, strict=True):
        q, p = ((np.abs(a) ** 2).sum(0).ravel() for a in (one, other))
        distances.append(((q / np.linalg.norm(q) - p / np.linalg.norm(p)) ** 2).sum())
    return 0.5 * np.mean(distances)


def test_the_loss_equals_the_formula_in_numpy_for_any_numbers_of_channels():
    student, teacher = maps(0, 3, 4, 5, 6), maps(1, 3, 7, 5, 6)
    assert attention_loss(student, teacher).item() == pytest.approx(
        in_numpy(student.numpy(), teacher.numpy()), rel=1e-12
    )


def test_the_strength_of_the_published_code_is_half_the_positions_times_ours():
    student, teacher = maps(0, 3, 4, 8, 8), maps(1, 3, 7, 8, 8)
    own, theirs = (F.normalize(a.pow(2).mean(1).view(3, -1)) for a in (student, teacher))
    published = 1000 * (own - theirs).pow(2).mean()
    torch.testing.assert_close(2 * 1000 / 64 * attention_loss(student, teacher), published)


def test_the_gradient_equals_finite_differences():
    student, teacher = maps(0, 2, 2, 2, 3).requires_grad_(), maps(1, 2, 3, 2, 3)
    (gradient,) = torch.autograd.grad(attention_loss(student, teacher), student)
    values = student.detach().numpy()
    for place in np.ndindex(values.shape):
        step = np.zeros_like(values)
        step[place] = 1e-5
        slope = (in_numpy(values + step, teacher.numpy()) - in_numpy(values - step, teacher.numpy())) / 2e-5
        assert gradient[place].item() == pytest.approx(slope, abs=1e-8)


def test_each_image_is_normalized_by_itself():
    student, teacher = maps(0, 3, 4, 5, 5), maps(1, 3, 4, 5, 5)
    scaled = student * torch.tensor([7.0, 1.0, 1.0], dtype=torch.float64).view(3, 1, 1, 1)
    torch.testing.assert_close(attention_loss(scaled, teacher), attention_loss(student, teacher))
    torch.testing.assert_close(attention_maps(scaled, (5, 5)).norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_maps_of_another_size_are_averaged_to_the_smaller_along_each_axis():
    student, teacher = maps(0, 2, 3, 4, 9), maps(1, 2, 5, 8, 3)
    q = student.numpy().__pow__(2).sum(1).reshape(2, 4, 3, 3).mean(3)
    p = teacher.numpy().__pow__(2).sum(1).reshape(2, 4, 2, 3).mean(2)
    expected = in_numpy(np.sqrt(q)[:, None], np.sqrt(p)[:, None])
    assert attention_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient():
    teacher = maps(0, 3, 4, 5, 5)
    student = teacher.clone().requires_grad_()
    loss = attention_loss(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0 and gradient.abs().max() == 0


def test_maps_without_activations_have_a_finite_gradient():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(attention_loss(student, torch.rand(2, 3, 4, 4)), student)
    assert torch.isfinite(gradient).all()


def test_the_loss_of_a_batch_and_its_gradients_equal_those_by_hand():
    teacher, student = build("lenet5(size=16, width=0.4)", seed=5), build("lenet5(size=16, width=0.2)")
    before = model_digest(teacher)
    method = ce.AttentionTransfer(compared="conv1=conv1, relu2=pool1", strength=3.0, shift=0)
    pairs = method.pairs_of(student, teacher, DATA.example)
    x, y = DATA.x_train[:16], DATA.y_train[:16]
    value = method.loss(teacher, DATA, pairs, method.regressors(pairs, student, teacher, DATA))(
        student, x, torch.arange(16)
    )
    value.backward()
    first, taught = student.conv1(x), teacher.conv1(x)
    second = F.relu(student.conv2(F.max_pool2d(F.relu(first), 2)))
    expected = F.cross_entropy(student(x), y)
    for own, theirs in ((first, taught), (second, F.max_pool2d(F.relu(taught), 2))):
        q, p = (a.pow(2).sum(1, keepdim=True) for a in (own, theirs.detach()))
        p = F.adaptive_avg_pool2d(p, q.shape[2:])
        q, p = (a.flatten(1) / a.flatten(1).pow(2).sum(1, keepdim=True).sqrt() for a in (q, p))
        expected = expected + 3.0 / 2 * (q - p).pow(2).sum(1).mean()
    torch.testing.assert_close(value, expected)
    for own, theirs in zip(
        student.parameters(), torch.autograd.grad(expected, list(student.parameters())), strict=True
    ):
        torch.testing.assert_close(own.grad, theirs, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
    assert model_digest(teacher) == before


def test_with_strength_zero_the_student_learns_alone_bit_by_bit():
    alone = build("lenet5(width=0.2, size=16)", seed=3)
    fit(alone, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1))
    control = ce.AttentionTransfer(**FAST, strength=0.0, seed=3)(build("lenet5(size=16)"), DATA)
    assert model_digest(control) == model_digest(alone)


def test_the_attention_of_the_student_comes_closer_to_its_teachers():
    teacher = build("lenet5(size=16, width=0.4)", seed=5)
    fit(teacher, DATA, Recipe(epochs=5, batch=32, lr=3e-3))
    method = ce.AttentionTransfer(**FAST | {"epochs": 8}, compared="relu1=relu1")

    def distance(strength):
        student = replace(method, strength=strength)(teacher, DATA)
        own, theirs = (F.relu(model.conv1(DATA.x_validation)) for model in (student, teacher))
        return attention_loss(own, theirs).item()

    assert distance(100.0) < 0.5 * distance(0.0)


@pytest.mark.parametrize(("teacher", "student"), [
    ("resnet(width=0.5, blocks=1)", "resnet(width=0.25, blocks=1)"), ("vgg(width=0.25)", "vgg(width=0.125)"),
    ("resnet(width=0.5, blocks=1)", "vgg(width=0.125)"),
])  # fmt: skip
def test_deeper_networks_learn_by_default(teacher, student):
    made = ce.AttentionTransfer(student=student, epochs=1, batch=32)(build(teacher, size=16), DATA)
    assert torch.isfinite(made(DATA.x_validation)).all()


@pytest.mark.parametrize("compared", ["fc1=relu1", "relu1=fc1", "relu1=flatten"])
def test_layers_without_maps_are_refused_by_name(compared):
    own, theirs = compared.split("=")
    whose = "student" if own == "fc1" else "teacher"
    with pytest.raises(
        CompressionError, match=rf"AttentionTransfer\(.*\), layer '{own}' under layer '{theirs}': the {whose}'s output"
    ):
        ce.AttentionTransfer(**FAST, compared=compared)(build("lenet5(size=16)"), DATA)


def test_maps_of_one_position_are_refused_by_name():
    with pytest.raises(
        CompressionError, match=r"shape \(10, 1, 1\); attention needs maps .* of more than one position"
    ):
        ce.AttentionTransfer(**FAST, compared="pool2=pool2, relu1=relu1")(build("lenet5(size=16, width=0.24)"), DATA)
