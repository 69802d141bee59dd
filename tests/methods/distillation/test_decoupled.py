"""Decoupled distillation: both parts by NumPy, the identity with the soft loss, and a training by hand."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.hashing import model_digest
from compedu.methods.distillation.decoupled import decoupled_losses
from compedu.methods.distillation.soft_targets import soft_loss
from compedu.networks import build
from compedu.training import Recipe, fit

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
FAST = {"student": "lenet300(width=0.1)", "epochs": 2, "batch": 32}
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def logits(seed, images=6, classes=5):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)


def in_numpy(student, teacher, temperature):
    """Both parts, image by image, from the plain softmax."""
    target, others = [], []
    for z, t, label in zip(student, teacher, LABELS.tolist(), strict=True):
        p, q = softmax(z / temperature), softmax(t / temperature)
        target.append(rel_entr([q[label], 1 - q[label]], [p[label], 1 - p[label]]).sum())
        rest = [np.delete(values, label) / np.delete(values, label).sum() for values in (p, q)]
        others.append(rel_entr(rest[1], rest[0]).sum())
    return temperature**2 * np.mean(target), temperature**2 * np.mean(others)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_both_parts_and_their_gradients_equal_the_formula_in_numpy(temperature):
    student, teacher = logits(1).requires_grad_(), logits(2)
    parts = decoupled_losses(student, teacher, LABELS, temperature)
    values = student.detach().numpy()
    expected = in_numpy(values, teacher.numpy(), temperature)
    for index, part in enumerate(parts):
        assert part.item() == pytest.approx(expected[index], rel=1e-10)
        (gradient,) = torch.autograd.grad(part, student, retain_graph=True)
        for place in np.ndindex(values.shape):
            step = np.zeros_like(values)
            step[place] = 1e-5
            after, before = (in_numpy(values + sign * step, teacher.numpy(), temperature)[index] for sign in (1, -1))
            assert gradient[place].item() == pytest.approx((after - before) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_soft_loss_is_the_target_part_plus_the_other_weighted_by_the_doubt_of_the_teacher(temperature):
    student, teacher = logits(1), logits(2)
    for n, label in enumerate(LABELS):
        one = slice(n, n + 1)
        target, others = decoupled_losses(student[one], teacher[one], LABELS[one], temperature)
        doubt = 1 - softmax(teacher[n].numpy() / temperature)[label]
        whole = soft_loss(student[one], teacher[one], temperature)
        assert whole.item() == pytest.approx(target.item() + doubt * others.item(), rel=1e-10)


def test_a_student_equal_to_its_teacher_has_no_loss():
    assert all(abs(part.item()) < 1e-12 for part in decoupled_losses(logits(1), logits(1) + 5, LABELS, 4.0))


def test_a_teacher_without_doubt_still_teaches_how_the_other_classes_compare():
    teacher = torch.tensor([[1000.0, 3.0, 0.0]])
    student = torch.zeros(1, 3, requires_grad=True)
    target, others = decoupled_losses(student, teacher, torch.tensor([0]), 1.0)
    q = softmax([3.0, 0.0])
    assert others.item() == pytest.approx(rel_entr(q, [0.5, 0.5]).sum(), rel=1e-5)
    (gradient,) = torch.autograd.grad(target + others, student)
    assert torch.isfinite(gradient).all()


def test_two_classes_have_no_others_to_compare_and_one_class_is_refused():
    labels = torch.tensor([0, 1, 1])
    target, others = decoupled_losses(logits(1, 3, 2), logits(2, 3, 2), labels, 2.0)
    assert others.item() == 0 and target.item() == pytest.approx(
        soft_loss(logits(1, 3, 2), logits(2, 3, 2), 2.0).item()
    )
    with pytest.raises(CompressionError, match="needs two classes or more, the logits have 1"):
        decoupled_losses(logits(1, 3, 1), logits(2, 3, 1), torch.zeros(3, dtype=torch.long), 2.0)


def test_the_method_trains_on_labels_and_both_parts():
    teacher = build("lenet5(size=16, width=0.2)", seed=5)
    before = model_digest(teacher)
    student = build("lenet300(size=16, width=0.1)")

    def loss(model, x, y):
        z, t = model(x) / 2, teacher(x).detach() / 2
        p, q = z.softmax(1), t.softmax(1)
        hit = torch.nn.functional.one_hot(y, 10).double()
        pt, qt = ((values * hit).sum(1) for values in (p, q))
        target = qt * (qt / pt).log() + (1 - qt) * ((1 - qt) / (1 - pt)).log()
        others = ((1 - hit) * q / (1 - qt)[:, None] * (q * (1 - pt)[:, None] / p / (1 - qt)[:, None]).log()).sum(1)
        hard = -(z * 2).log_softmax(1)[torch.arange(len(y)), y].mean()
        return (hard + 3 * 4 * target.mean() + 5 * 4 * others.mean()).float()

    fit(student, DATA, Recipe(epochs=2, batch=32, lr=2e-3, shift=1), loss=loss)
    made = ce.DecoupledDistillation(**FAST, temperature=2.0, target=3.0, non_target=5.0)(teacher, DATA)
    for own, theirs in zip(made.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-3, rtol=1e-2)
    assert model_digest(teacher) == before and not teacher.training


def test_without_both_parts_the_student_learns_alone_bit_by_bit():
    alone = build("lenet300(width=0.1, size=16)", seed=3)
    fit(alone, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1))
    method = ce.DecoupledDistillation(**FAST, **ce.DecoupledDistillation.alone, seed=3)
    assert model_digest(method(build("lenet5(size=16)"), DATA)) == model_digest(alone)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"DecoupledDistillation.temperature must be a number above 0"):
        ce.DecoupledDistillation(temperature=0)
