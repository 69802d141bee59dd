"""Bayesian dark knowledge: draws against the posterior of a linear problem, and a student that learns their mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.datasets.digits import digits
from compedu.errors import Cancelled, CompressionError
from compedu.hashing import model_digest
from compedu.methods.distillation.bayesian_dark_knowledge import Sampled, langevin
from compedu.methods.distillation.shared.distillation import Lesson
from compedu.networks import build
from compedu.training import Recipe, fit, listening

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
FAST = ce.BayesianDarkKnowledge(student="lenet300(width=0.1)", epochs=2, batch=32)


def teacher(spec="lenet300(size=16, width=0.2)"):
    return build(spec, seed=5)


# The draws


class Flat(Recipe):
    """A recipe of one learning rate, as chains have."""

    def rate(self, step, steps):
        return self.lr


CHAINS = 10_000
IMAGES = 12
NOISE = 0.8  # standard deviation of the measurements
PRECISION = 3.0
X = torch.randn(IMAGES, 1, 1, 2, generator=torch.Generator().manual_seed(0))
Y = X.flatten(1) @ torch.tensor([1.5, -0.5]) + NOISE * torch.randn(IMAGES, generator=torch.Generator().manual_seed(1))


def chains(steps, step_size, start=0.0, batch=IMAGES):
    """The weights (CHAINS, 2) of many linear models, after `steps` of Langevin dynamics on the same measurements."""
    numbers = torch.arange(IMAGES)
    data = Dataset("line", X, numbers, X, numbers, X, numbers, tuple(map(str, numbers.tolist())))
    weights = nn.Linear(2, CHAINS, bias=False)
    nn.init.constant_(weights.weight, start)

    def loss(model, x, indices):
        residuals = weights(x.flatten(1)) - Y[indices, None]
        return 0.5 * (residuals / NOISE).square().mean(0).sum()  # of each chain, the mean of -log likelihood

    companions = {"chains": langevin(weights, step_size, PRECISION, IMAGES)}
    fit(nn.Linear(1, 1).requires_grad_(False), data, Flat(epochs=steps, batch=batch), loss=loss, companions=companions)
    return weights.weight.detach().double().numpy()


def posterior():
    """Mean and precision of the weights, from the normal equations."""
    x, y = X.flatten(1).double().numpy(), Y.double().numpy()
    precision = x.T @ x / NOISE**2 + PRECISION * np.eye(2)
    return np.linalg.solve(precision, x.T @ y / NOISE**2), precision


def test_the_draws_have_mean_and_covariance_of_the_posterior_of_a_linear_gaussian_problem():
    mean, precision = posterior()
    covariance = np.linalg.inv(precision)
    largest = np.linalg.eigvalsh(precision)[-1]
    step_size = 0.04 / largest  # the discrete walk is wider by a share of step_size * largest / 4, 1 %
    slowest = step_size / 2 * np.linalg.eigvalsh(precision)[0]
    found = chains(int(6 / slowest), step_size, start=1.0)
    deviations = np.sqrt(np.diag(covariance))
    assert (np.abs(found.mean(0) - mean) < 5 * deviations / CHAINS**0.5 + np.exp(-6)).all()
    scaled = np.cov(found.T) / np.outer(deviations, deviations)
    expected = covariance / np.outer(deviations, deviations)
    np.testing.assert_allclose(scaled, expected, atol=5 * (2 / CHAINS) ** 0.5 + 0.0102)
    assert abs(expected[0, 1]) > 0.1  # weights that depend on each other


def test_a_step_adds_half_the_step_size_times_the_gradient_of_the_log_posterior_and_noise_of_that_variance():
    mean, precision = posterior()
    step_size, start = 1e-3, np.full(2, 3.0)
    moved = chains(1, step_size, start=3.0) - start
    gradient = precision @ (mean - start)  # of the log density of a normal distribution
    np.testing.assert_allclose(moved.mean(0), step_size / 2 * gradient, atol=5 * (step_size / CHAINS) ** 0.5)
    np.testing.assert_allclose(np.cov(moved.T) / step_size, np.eye(2), atol=5 * (2 / CHAINS) ** 0.5)
    assert np.abs(step_size / 2 * gradient).min() > 10 * (step_size / CHAINS) ** 0.5  # else nothing is tested


def test_batches_stand_for_all_images():
    """Two halves of the images pull as far as two steps on all of them, but for the second order, by equal noise."""
    halves, whole = (chains(epochs, 1e-4, 3.0, batch).mean(0) for epochs, batch in ((1, 6), (2, 12)))
    np.testing.assert_allclose(halves, whole, atol=2e-5)
    assert np.abs(whole - 3.0).min() > 1e-3


def test_a_sampled_network_is_in_evaluation_mode_and_its_batch_norms_keep_their_statistics():
    master = build("resnet(size=16, width=0.25, blocks=1)", seed=5)
    sampled = Sampled(master)
    before = {name: buffer.clone() for name, buffer in sampled.named_buffers()}
    student = build("lenet300(size=16, width=0.1)", seed=0)
    companions = {"teacher": langevin(sampled, 1e-5, 1.0, len(DATA.x_train))}
    start = model_digest(master)
    fit(student, DATA, FAST.recipe, loss=FAST.loss_beside(sampled), companions=companions)
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in sampled.named_buffers())
    assert model_digest(master) != start and not any(part.training for part in sampled.train().modules())


# The student


def test_the_loss_of_a_batch_and_its_gradients_equal_those_by_hand():
    master, student = Sampled(teacher()), build("lenet300(size=16, width=0.1)", seed=0)
    x, y = DATA.x_train[:16], DATA.y_train[:16]
    value = FAST.loss_beside(master)(student, x, y)
    value.backward()
    q, p = (torch.softmax(model(x), 1) for model in (master, student))
    fixed = q.detach()
    divergence = (fixed * (fixed / p).log()).sum(1).mean()
    likelihood = -q[torch.arange(16), y].log().mean()
    torch.testing.assert_close(value, divergence + likelihood)
    for part, model in ((divergence, student), (likelihood, master)):
        for own, theirs in zip(
            model.parameters(), torch.autograd.grad(part, list(model.parameters()), retain_graph=True), strict=True
        ):
            torch.testing.assert_close(own.grad, theirs, atol=1e-6, rtol=1e-4)


def test_over_many_draws_the_student_is_pulled_to_the_mean_of_their_probabilities():
    draws = 3 * torch.randn(50, 4, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = torch.zeros(4, 10, dtype=torch.float64, requires_grad=True)
    labels = torch.zeros(4, dtype=torch.int64)
    mean = torch.softmax(draws, 2).mean(0)

    def pull():
        losses = [FAST.loss_of(Lesson(logits, draw, labels)) for draw in draws]
        return torch.autograd.grad(sum(losses) / len(losses), logits)[0]

    torch.testing.assert_close(pull(), (torch.softmax(logits, 1) - mean).detach() / 4)
    logits.data = mean.log()
    assert pull().abs().max() < 1e-15 and FAST.loss_of(Lesson(logits, draws[0], labels)) > 0.1


def test_a_walk_of_tiny_steps_is_distillation_with_soft_targets():
    still = replace(FAST, step_size=1e-12)(teacher(), DATA)
    soft = ce.SoftTargetDistillation(student=FAST.student, epochs=2, batch=32, temperature=1.0, weight=1.0)
    for own, theirs in zip(still.parameters(), soft(teacher(), DATA).parameters(), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-3, rtol=1e-2)
    walked = replace(FAST, step_size=1e-4)(teacher(), DATA)
    moved = max(
        (own - theirs).abs().max().item()
        for own, theirs in zip(still.parameters(), walked.parameters(), strict=True)
    )  # fmt: skip
    assert moved > 5e-3


def test_the_prior_pulls_the_teacher_to_zero():
    def size(precision):
        sampled = Sampled(teacher())
        companions = {"teacher": langevin(sampled, 1e-5, precision, len(DATA.x_train))}
        student = build("lenet300(size=16, width=0.1)", seed=0)
        fit(student, DATA, FAST.recipe, loss=FAST.loss_beside(sampled), companions=companions)
        return sum(weight.square().sum().item() for weight in sampled.parameters())

    assert size(1e4) < 0.8 * size(0.0)


def test_an_interrupted_lesson_ends_with_the_same_bits_for_both(tmp_path):
    def stop(step):
        if step.done == 3:
            raise Cancelled

    def run(path, stopped=False):
        student, sampled = build("lenet300(size=16, width=0.1)", seed=0), Sampled(teacher())
        companions = {"teacher": langevin(sampled, FAST.step_size, FAST.precision, len(DATA.x_train))}
        with listening(stop if stopped else lambda step: None):
            fit(student, DATA, FAST.recipe, loss=FAST.loss_beside(sampled), companions=companions, resume=path)
        return model_digest(student), model_digest(sampled)

    with pytest.raises(Cancelled):
        run(tmp_path / "run", stopped=True)
    assert run(tmp_path / "run") == run(tmp_path / "other")
    assert run(tmp_path / "third")[0] == model_digest(FAST(teacher(), DATA))


def test_the_given_teacher_stays_and_leaves_no_trace_in_the_student():
    master = teacher()
    before = model_digest(master)
    student = build("lenet300(size=16, width=0.1)", seed=0)
    FAST.teach(student, master, DATA)
    assert model_digest(master) == before and all(p.grad is None for p in master.parameters())
    assert list(student.state_dict()) == list(build("lenet300(size=16, width=0.1)").state_dict())


def test_a_teacher_without_weights_that_train_is_refused_by_name():
    with pytest.raises(
        CompressionError,
        match=r"BayesianDarkKnowledge\(.*\) found nothing to sample: no parameter of its teacher, LeNet",
    ):
        FAST(teacher().requires_grad_(False), DATA)


def test_frozen_weights_of_the_teacher_are_not_drawn():
    sampled = Sampled(teacher())
    sampled.network.fc1.requires_grad_(False)
    first, last = (layer.weight.detach().clone() for layer in (sampled.network.fc1, sampled.network.fc3))
    companions = {"teacher": langevin(sampled, 1e-5, 1.0, len(DATA.x_train))}
    fit(build(FAST.student, size=16), DATA, FAST.recipe, loss=FAST.loss_beside(sampled), companions=companions)
    assert torch.equal(sampled.network.fc1.weight, first) and not torch.equal(sampled.network.fc3.weight, last)
