"""Penalties on weights: steps against closed forms and independent solvers, gradients, what training makes of them."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import Lasso, Ridge
from torch import nn

import compedu as ce
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import Masked, weight_of
from compedu.methods import BiasedWeightDecay, FineTune, MagnitudePruning, RegularizedPruning
from compedu.methods.pruning.biased_weight_decay import hyperbolic_bias
from compedu.methods.pruning.regularized_pruning import norm_penalty, proximal_step
from compedu.methods.pruning.shared.penalized import nonzero_masks
from compedu.training import listening

LAYERS = ("conv1", "conv2", "fc1", "fc2")


def few(train=640):
    return ce.load_data("digits").shortened(train=train, validation=200, test=8)


def weights_of(model):
    return {name: weight_of(model.get_submodule(name)).detach() for name in LAYERS}


def zeros(model):
    found = weights_of(model).values()
    return sum(int((weight == 0).sum()) for weight in found) / sum(weight.numel() for weight in found)


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# Steps and gradients


def test_the_proximal_steps_are_their_closed_forms():
    weight = drawn(5, 7)
    torch.testing.assert_close(proximal_step(weight, 0.4, "l1"), nn.functional.softshrink(weight, 0.4))
    torch.testing.assert_close(proximal_step(weight, 0.4, "l2"), weight * (1 / 1.4))
    for penalty in ("l1", "l2"):
        assert torch.equal(proximal_step(weight, 0.0, penalty), weight)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_the_proximal_steps_minimize_the_proximal_objective(penalty):
    for weight in drawn(12):

        def objective(v, w=float(weight)):
            return (v - w) ** 2 / 2 + 0.3 * norm_penalty(torch.tensor(v, dtype=torch.float64), penalty).item()

        found = minimize_scalar(objective, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x
        assert proximal_step(weight, 0.3, penalty).item() == pytest.approx(found, abs=1e-6)


def test_the_gradient_of_the_penalties_is_the_sign_and_the_weight():
    weight = torch.tensor([2.0, -0.5, 0.0], requires_grad=True)
    norm_penalty(weight, "l1").backward()
    assert weight.grad.tolist() == [1, -1, 0]
    weight.grad = None
    norm_penalty(weight, "l2").backward()
    assert weight.grad.tolist() == [2, -0.5, 0]


def test_the_gradient_of_the_bias_is_its_closed_form_and_that_of_finite_differences():
    weight = drawn(9).requires_grad_()
    hyperbolic_bias(weight, 3.0).backward()
    torch.testing.assert_close(weight.grad, weight.detach().sign() / (1 + 3 * weight.detach().abs()) ** 2)
    assert torch.autograd.gradcheck(lambda w: hyperbolic_bias(w, 3.0), weight)
    at_zero = torch.zeros(2, requires_grad=True)
    hyperbolic_bias(at_zero, 3.0).backward()
    assert at_zero.grad.tolist() == [0, 0]


def test_the_bias_is_the_l1_norm_for_small_epsilon_a_count_for_large_and_spares_large_weights():
    weight = drawn(9)
    assert torch.equal(hyperbolic_bias(weight, 0.0), norm_penalty(weight, "l1"))
    assert hyperbolic_bias(weight, 1e-9).item() == pytest.approx(norm_penalty(weight, "l1").item(), rel=1e-8)
    assert 1e9 * hyperbolic_bias(weight, 1e9).item() == pytest.approx(9, rel=1e-6)
    ends = torch.tensor([1e-6, 1e4], dtype=torch.float64, requires_grad=True)
    hyperbolic_bias(ends, 1.0).backward()
    assert ends.grad[0] == pytest.approx(1, abs=1e-5) and 0 < ends.grad[1] < 1.1e-8


# Convex problems: plain gradient steps, each followed by a proximal one, end where other solvers end


def descended(gradient, rate, strength, penalty, size, steps=20_000):
    weight = torch.zeros(size, dtype=torch.float64)
    for _ in range(steps):
        weight = proximal_step(weight - rate * gradient(weight), rate * strength, penalty)
    return weight.numpy()


@pytest.fixture(scope="module")
def problem():
    """Sixty observations of twelve columns, five of which matter."""
    x = drawn(60, 12)
    return x, x @ torch.tensor([3.0, -2, 1.5, 0.5, -0.2] + [0.0] * 7, dtype=torch.float64) + 0.3 * drawn(61)[1:]


def test_proximal_descent_solves_the_lasso_and_the_ridge(problem):
    x, y = problem
    gradient = lambda w: x.T @ (x @ w - y) / len(x)  # noqa: E731
    lasso = Lasso(alpha=0.2, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x.numpy(), y.numpy()).coef_
    ours = descended(gradient, 0.1, 0.2, "l1", 12, 3000)
    np.testing.assert_allclose(ours, lasso, atol=1e-8)
    assert (ours == 0).sum() == (lasso == 0).sum() > 3
    ridge = Ridge(alpha=0.2 * len(x), fit_intercept=False, tol=1e-12).fit(x.numpy(), y.numpy()).coef_
    np.testing.assert_allclose(descended(gradient, 0.1, 0.2, "l2", 12, 3000), ridge, atol=1e-8)


def test_proximal_descent_solves_logistic_regression_under_l1(problem):
    x, target = problem
    y = (target > 0).double()
    loss = lambda w: nn.functional.binary_cross_entropy_with_logits(x @ w, y)  # noqa: E731

    def split(both):  # w = u - v with u, v >= 0, which makes the penalty smooth
        w = torch.tensor(both[:12] - both[12:], requires_grad=True)
        value = loss(w)
        value.backward()
        gradient = w.grad.numpy()
        return value.item() + 0.05 * both.sum(), np.concatenate([gradient + 0.05, 0.05 - gradient])

    theirs = minimize(
        split, np.zeros(24), jac=True, bounds=[(0, None)] * 24, method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10},
    )  # fmt: skip
    solution = theirs.x[:12] - theirs.x[12:]
    ours = descended(lambda w: x.T @ (torch.sigmoid(x @ w) - y) / len(x), 0.5, 0.05, "l1", 12, 5000)
    np.testing.assert_allclose(ours, solution, atol=1e-5)
    assert ((ours == 0) == (np.abs(solution) < 1e-7)).all() and (ours == 0).any()


# The method


def trained_by_hand(data, strength, penalty, step, lr=1e-3, batch=64):
    """One epoch of AdamW in the loop's order, with the penalty brought in by torch's own functions."""
    model, steps = ce.trained("lenet5", "digits").train(), -(-len(data.x_train) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))
    for number, chosen in enumerate(order.split(batch)):
        rise = max(1, int(0.1 * steps))
        rate = lr * (
            (number + 1) / rise if number < rise else (1 + np.cos(np.pi * (number - rise) / (steps - rise))) / 2
        )
        optimizer.param_groups[0]["lr"] = rate
        weights = [model.get_submodule(name).weight for name in LAYERS]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train[chosen]), data.y_train[chosen]).backward()
        for weight in weights if step == "subgradient" else ():
            weight.grad += strength * (weight.detach().sign() if penalty == "l1" else weight.detach())
        optimizer.step()
        for weight in weights if step == "proximal" else ():
            small = (
                nn.functional.softshrink(weight.detach(), rate * strength)
                if penalty == "l1"
                else weight.detach() / (1 + rate * strength)
            )
            weight.data.copy_(small)
    return weights_of(model)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("step, strength", [("proximal", 2.0), ("subgradient", 1e-3)])
def test_training_is_adamw_with_the_penalty_brought_in_at_each_step(penalty, step, strength):
    data = few(320)
    method = RegularizedPruning(penalty=penalty, step=step, strength=strength, epochs=1, sparsity=0.0)
    ours, theirs = (
        weights_of(method(ce.trained("lenet5", "digits"), data)),
        trained_by_hand(data, strength, penalty, step),
    )
    dense = weights_of(ce.trained("lenet5", "digits"))
    for name in LAYERS:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
        assert (ours[name] - dense[name]).abs().mean() > 1e-3


def test_the_proximal_step_makes_exact_zeros_and_the_subgradient_none():
    model, data = ce.trained("lenet5", "digits"), few()
    sharp = RegularizedPruning(step="proximal", strength=3.0, sparsity=0.0, epochs=2)(model, data)
    blunt = RegularizedPruning(step="subgradient", strength=1e-4, sparsity=0.0, epochs=2)(model, data)
    smooth = RegularizedPruning(step="proximal", penalty="l2", strength=3.0, sparsity=0.0, epochs=2)(model, data)
    assert zeros(sharp) > 0.3 and zeros(blunt) == zeros(smooth) == 0
    assert sum(weight.abs().sum() for weight in weights_of(blunt).values()) < sum(
        weight.abs().sum() for weight in weights_of(model).values()
    )
    for name in LAYERS:
        layer = sharp.get_submodule(name)
        assert isinstance(layer, Masked) and torch.equal(layer.mask, layer.weight != 0)
    assert zeros(FineTune(epochs=1)(sharp, data)) == zeros(sharp)


def test_the_smallest_weights_go_too_until_the_sparsity_is_reached():
    seen = []
    with listening(
        lambda step: seen.append({name: step.model.get_submodule(name).dense().detach().clone() for name in LAYERS})
    ):
        result = RegularizedPruning(strength=3.0, sparsity=0.95, epochs=1, budget="global")(
            ce.trained("lenet5", "digits"), few()
        )
    last = torch.cat([seen[-1][name].flatten() for name in LAYERS])
    mask = torch.cat([result.get_submodule(name).mask.flatten() for name in LAYERS])
    assert 1 - mask.float().mean().item() == pytest.approx(0.95, abs=1e-3)
    assert last[mask].abs().min() >= last[~mask].abs().max() and bool((last[~mask] != 0).any())


def test_zeros_go_beyond_the_sparsity_in_every_budget():
    weights = {"a": torch.tensor([0.0, 0.0, 0.0, 1.0]), "b": torch.tensor([1.0, -2.0, 3.0, 4.0])}
    for budget in ("uniform", "global", "lamp", "erdos-renyi"):
        masks = nonzero_masks(budget, weights, 0.25)
        assert masks["a"].tolist() == [False, False, False, True]
    assert nonzero_masks("uniform", weights, 0.25)["b"].tolist() == [False, True, True, True]
    assert nonzero_masks("global", weights, 0.25)["b"].all()


def test_biases_bear_no_penalty():
    model, data = ce.trained("lenet5", "digits"), few(64)
    heavy = RegularizedPruning(strength=50.0, sparsity=0.0, epochs=1, lr=1e-3, layers="-fc2")(model, data)
    light = RegularizedPruning(strength=0.0, sparsity=0.0, epochs=1, lr=1e-3, layers="-fc2")(model, data)
    assert zeros(heavy) > 0.5 and torch.equal(heavy.conv1.bias, light.conv1.bias)
    assert torch.equal(heavy.fc2.weight, light.fc2.weight)  # not selected: trained, without the penalty


def test_a_mask_that_is_there_stays_in_force():
    once = MagnitudePruning(sparsity=0.5)(ce.trained("lenet5", "digits"))
    again = RegularizedPruning(sparsity=0.6, epochs=1)(once, few(64))
    for name in LAYERS:
        assert not (again.get_submodule(name).mask & ~once.get_submodule(name).mask).any()


def test_a_penalty_that_leaves_nothing_is_refused_by_name():
    with pytest.raises(CompressionError, match=r"RegularizedPruning\(.*left no weight in .*fc1.*lower the strength"):
        RegularizedPruning(strength=1e4, epochs=1)(ce.trained("lenet5", "digits"), few(64))


def test_what_is_pulled_to_zero_is_missed_less_than_what_is_cut():
    model, data = ce.load("lenet5", "digits")
    pulled = RegularizedPruning(strength=1.0, sparsity=0.98, epochs=5)(model, data)
    cut = MagnitudePruning(sparsity=0.98, budget="lamp")(FineTune(epochs=5, lr=1e-3)(model, data))
    found = evaluate(pulled, data).correct, evaluate(cut, data).correct
    assert found[0] > found[1] + 20, found


def test_biased_decay_without_bias_is_l1_in_the_loss():
    model, data = ce.trained("lenet5", "digits"), few(128)
    biased = weights_of(BiasedWeightDecay(epsilon=0, strength=1e-3, epochs=1)(model, data))
    lasso = weights_of(RegularizedPruning(step="subgradient", strength=1e-3, epochs=1)(model, data))
    assert all(torch.equal(biased[name], lasso[name]) for name in LAYERS)


def test_biased_decay_spares_large_weights_and_shrinks_small_ones():
    model, data = ce.trained("lenet5", "digits"), few(320)
    dense, biased, lasso = (
        weights_of(made)["fc1"].abs()
        for made in (
            model,
            *(
                BiasedWeightDecay(epsilon=e, strength=1e-3, sparsity=0, epochs=6, lr=3e-3)(model, data)
                for e in (100, 0)
            ),
        )
    )
    large, small = dense > dense.quantile(0.99), dense < dense.quantile(0.5)
    assert biased[large].mean() > 1.3 * lasso[large].mean()
    assert biased[small].mean() < min(lasso[small].mean(), 0.2 * dense[small].mean())
