"""Contrastive distillation: the loss by loops, its bound, and a student that finds its teacher's embeddings."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import Cancelled, CompressionError
from compedu.files import load, save
from compedu.hashing import model_digest
from compedu.methods.distillation.contrastive import contrastive_loss
from compedu.methods.distillation.shared.distillation import numbered
from compedu.networks import build
from compedu.training import Recipe, fit, listening

DATA = digits(size=16).shortened(train=130, validation=60, test=20)  # batches of 32, and two images
METHOD = ce.ContrastiveDistillation(student="lenet5(width=0.2)", epochs=2, batch=32, dimension=16)


def embeddings(seed, images=5, features=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, features, generator=generator, dtype=torch.float64)


def by_loops(student, teacher, tau):
    """How surprising it is, image by image, that each embedding finds its own partner."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    count = len(student)
    total = 0.0
    for i in range(count):
        mine = math.exp(cosine(student[i], teacher[i]) / tau)
        among_teachers = sum(math.exp(cosine(student[i], teacher[j]) / tau) for j in range(count))
        among_students = sum(math.exp(cosine(student[j], teacher[i]) / tau) for j in range(count))
        total -= math.log(mine / among_teachers) + math.log(mine / among_students)
    return total / (2 * count)


@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_loss_and_gradients_equal_those_of_loops(tau):
    student, teacher = embeddings(0).requires_grad_(), embeddings(1).requires_grad_()
    value = contrastive_loss(student, teacher, tau)
    given = student.detach().numpy(), teacher.detach().numpy()
    assert value.item() == pytest.approx(by_loops(*given, tau), rel=1e-10)
    for side, gradient in enumerate(torch.autograd.grad(value, (student, teacher))):
        for place in np.ndindex(given[side].shape):
            ends = []
            for sign in (1, -1):
                moved = [array.copy() for array in given]
                moved[side][place] += sign * 1e-5
                ends.append(by_loops(*moved, tau))
            assert gradient[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


def test_the_loss_is_that_of_guessing_where_all_embeddings_coincide_and_small_where_each_is_its_own():
    alike = torch.ones(7, 3)
    assert contrastive_loss(alike, embeddings(0, 7, 3).float()[:1].expand(7, 3), 0.1).item() == pytest.approx(
        math.log(7)
    )
    apart = torch.eye(7)
    assert contrastive_loss(apart, apart, 0.05).item() < 1e-6
    assert contrastive_loss(apart, apart.roll(1, 0), 0.05).item() > 10


def test_lengths_of_embeddings_and_the_order_of_the_images_do_not_count():
    student, teacher = embeddings(0), embeddings(1)
    expected = contrastive_loss(student, teacher, 0.1)
    lengths = torch.tensor([[1.0], [2], [30], [4], [0.5]])
    torch.testing.assert_close(contrastive_loss(lengths * student, 3 * teacher, 0.1), expected)
    torch.testing.assert_close(contrastive_loss(student.flip(0), teacher.flip(0), 0.1), expected)
    torch.testing.assert_close(contrastive_loss(teacher, student, 0.1), expected)  # both directions count alike


def test_one_image_has_no_loss_and_embeddings_of_zero_a_finite_one():
    assert contrastive_loss(embeddings(0, 1), embeddings(1, 1), 0.1) == 0
    zero = torch.zeros(4, 3).requires_grad_()
    value = contrastive_loss(zero, torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), 0.1)
    assert value.item() == pytest.approx(math.log(4))
    assert torch.isfinite(torch.autograd.grad(value, zero)[0]).all()


def embedding(model):
    """What the last layer of LeNet-5 reads."""
    first = (model.conv1, model.relu1, model.pool1, model.conv2, model.relu2, model.pool2)
    return nn.Sequential(*first, model.flatten, model.fc1, model.relu3)


def lesson(method, student, teacher):
    """The pairs, the projections and the loss of a batch."""
    pairs = method.pairs_of(student, teacher, DATA.example)
    (companion,) = method.regressors(pairs, student, teacher, DATA)
    return companion, method.loss(teacher, DATA, pairs, (companion,))


def test_the_loss_of_a_batch_and_all_gradients_equal_those_by_hand():
    teacher, student = build("lenet5(size=16, width=0.4)", seed=5), build("lenet5(size=16, width=0.2)")
    before = model_digest(teacher)
    method = replace(METHOD, strength=3.0, shift=0)
    companion, loss = lesson(method, student, teacher)
    x, y = DATA.x_train[:16], DATA.y_train[:16]
    value = loss(student, x, torch.arange(16))
    value.backward()
    module = companion.module
    learned, taught = embedding(student)(x), embedding(teacher)(x).detach()
    own, theirs = module.student(learned), module.teacher(taught)
    assert own.shape == theirs.shape == (16, 16)
    scores = F.normalize(own) @ F.normalize(theirs).T / 0.1
    contrast = -(scores.log_softmax(0).diag() + scores.log_softmax(1).diag()).mean() / 2
    expected = F.cross_entropy(student.fc2(learned), y) + 3 * contrast
    torch.testing.assert_close(value, expected)
    trained = [*student.parameters(), *module.parameters()]
    for one, other in zip(trained, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(one.grad, other, atol=1e-5, rtol=1e-4)
    assert all(p.grad is None for p in teacher.parameters()) and model_digest(teacher) == before


def test_both_projections_train_and_leave_no_trace_in_network_or_file(tmp_path):
    made = []

    class Watched(ce.ContrastiveDistillation):
        def regressor(self, student, teacher, seed):
            companion = super().regressor(student, teacher, seed)
            made.append((companion.module, copy.deepcopy(companion.module)))
            return companion

    knobs = {name: getattr(METHOD, name) for name in ("student", "epochs", "batch", "dimension")}
    student = Watched(**knobs)(build("lenet5(size=16, width=0.4)", seed=5), DATA)
    ((after, before),) = made
    for one, other in zip(after.parameters(), before.parameters(), strict=True):
        assert not torch.equal(one, other)
    plain = build("lenet5(size=16, width=0.2)")
    assert list(student.state_dict()) == list(plain.state_dict())
    assert save(student, tmp_path / "taught.ce") == pytest.approx(save(plain, tmp_path / "plain.ce"), abs=400)
    assert model_digest(load(tmp_path / "taught.ce")) == model_digest(student)


def test_an_interrupted_lesson_ends_with_the_same_bits(tmp_path):
    def stop(step):
        if step.done == 4:
            raise Cancelled

    def run(path, listener):
        student, teacher = build("lenet5(size=16, width=0.2)", seed=0), build("lenet5(size=16, width=0.4)", seed=5)
        companion, loss = lesson(METHOD, student, teacher)
        with listening(listener):
            fit(student, numbered(DATA), METHOD.recipe, loss=loss, companions={"r": companion}, resume=path)
        return model_digest(student), model_digest(companion.module)

    with pytest.raises(Cancelled):
        run(tmp_path / "run", stop)
    assert run(tmp_path / "run", lambda step: None) == run(tmp_path / "other", lambda step: None)


def test_with_strength_zero_the_student_learns_alone_bit_by_bit():
    alone = build("lenet5(width=0.2, size=16)", seed=3)
    fit(alone, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1))
    control = replace(METHOD, strength=0.0, seed=3)(build("lenet5(size=16)"), DATA)
    assert model_digest(control) == model_digest(alone)


def test_the_student_finds_its_teachers_embeddings_of_new_images_better_than_alone():
    teacher = build("lenet5(size=16, width=0.4)", seed=5)
    fit(teacher, DATA, Recipe(epochs=5, batch=32, lr=3e-3))
    x = DATA.x_validation

    def found(strength):
        """The share of variance of the teacher's embeddings of new images that a linear map of the student's has."""
        student = replace(METHOD, strength=strength, epochs=16, lr=4e-3, dimension=64)(teacher, DATA)
        with torch.no_grad():
            own, theirs = (embedding(model)(torch.cat([DATA.x_train, x])).double() for model in (student, teacher))
        own = F.pad(own, (0, 1), value=1.0)
        fitted = torch.linalg.lstsq(own[: len(DATA.x_train)], theirs[: len(DATA.x_train)], driver="gelsd").solution
        left = (own[len(DATA.x_train) :] @ fitted - theirs[len(DATA.x_train) :]).square().sum()
        centered = theirs[len(DATA.x_train) :] - theirs[len(DATA.x_train) :].mean(0)
        return 1 - (left / centered.square().sum()).item()

    assert found(10.0) > found(0.0) + 0.1


def test_a_batch_of_one_image_is_refused_unless_nothing_is_contrasted():
    teacher = build("lenet5(size=16, width=0.4)", seed=5)
    for images, batch in ((130, 1), (129, 32)):  # as the last of an epoch too
        few = DATA.shortened(train=images)
        with pytest.raises(CompressionError, match=f"needs 2 in each; {images} training images in batches of {batch}"):
            replace(METHOD, batch=batch)(teacher, few)
        replace(METHOD, batch=batch, strength=0.0, epochs=1)(teacher, few)
    assert ce.controls(METHOD)["alone"] == replace(METHOD, strength=0.0)


@pytest.mark.parametrize("pairs", ["conv1=conv2", "fc1=conv2", "fc2=fc2, conv1=conv1"])
def test_features_of_any_shapes_are_compared(pairs):
    student = replace(METHOD, compared=pairs, epochs=1)(build("lenet5(size=16, width=0.4)", seed=5), DATA)
    assert torch.isfinite(student(DATA.x_validation)).all()
