"""Ranks of all layers: under one budget, by energy, by variational Bayes; and factors that look at the inputs."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.evaluation import evaluate
from compedu.forms import Factored, Geometry, NormalizedFactors
from compedu.methods import compression_of
from compedu.methods.input_moments import input_moments
from compedu.methods.low_rank.shared import factorization
from compedu.methods.low_rank.shared.output_fit import linear_for_outputs, vertical_horizontal_for_outputs
from compedu.methods.low_rank.shared.rank_budget import between, rank_scan, tried_ranks
from compedu.methods.low_rank.shared.svd import factors, rank_of_energy
from compedu.methods.low_rank.shared.vbmf import signal_rank
from compedu.methods.low_rank.shared.vertical_horizontal import vertical_horizontal
from compedu.methods.low_rank.truncated_svd import TruncatedSVD
from compedu.methods.shared_budget import Choice
from compedu.methods.task import Task


@pytest.fixture(scope="module")
def glyphs():
    return ce.load("lenet5", "glyphs")


def ranks_of(model):
    return {name: form.ranks for name, form in model.named_modules() if isinstance(form, Factored)}


def blocks_of(model):
    return {name: block.ranks for name, block in model.named_modules() if isinstance(block, NormalizedFactors)}


def weights_of(model):
    return sum(parameter.numel() for name, parameter in model.named_parameters() if "bias" not in name)


@pytest.mark.parametrize("budget", TruncatedSVD.shared_budgets)
def test_one_budget_for_all_layers_keeps_as_many_weights_as_equal_fractions_and_far_more_accuracy(glyphs, budget):
    model, data = glyphs
    equal, shared = (TruncatedSVD(rank=0.1, budget=one)(model, data) for one in ("uniform", budget))
    assert weights_of(shared) <= weights_of(equal)
    right = [evaluate(one, data, "validation").correct for one in (equal, shared)]
    assert right[1] > right[0] + 2000


def test_a_layer_that_the_budget_leaves_as_it_is_is_named(glyphs):
    model, data = glyphs
    made = TruncatedSVD(rank=0.1, budget="singular values")(model, data)
    reasons = {one.layer: one.reason for one in compression_of(made).skipped}
    assert reasons["conv1"] == "one budget for all layers (singular values) leaves it as it is"
    assert "conv1" not in ranks_of(made)


def test_the_cut_of_singular_values_does_not_change_where_one_layer_scales_what_the_next_undoes(glyphs):
    model, _ = glyphs
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.conv2.weight *= 16
        scaled.conv2.bias *= 16
        scaled.fc1.weight /= 16
    method = TruncatedSVD(rank=0.15, budget="singular values")
    assert ranks_of(method(scaled)) == ranks_of(method(model)) != {}


def test_the_scan_measures_each_layer_alone(glyphs):
    model, data = glyphs
    method = TruncatedSVD(budget="sensitivity", calibration_images=40)
    task = Task(method, model, data, source=model)
    (choices,) = rank_scan(method, task, {"fc1": model.fc1}, 40).choices.values()
    tried = tried_ranks(method, Geometry.of(model.fc1))
    assert [choice.value for choice in choices] == [*tried, None] and len(tried) == 12 and tried[0] == (1,)
    alone = TruncatedSVD(rank=tried[3][0], layers="fc1")(model)
    shown = torch.linspace(0, len(data.x_train) - 1, 40).round().long()
    expected = nn.functional.cross_entropy(alone(data.x_train[shown]), data.y_train[shown])
    assert choices[3].loss == pytest.approx(expected.item(), rel=1e-4)
    assert choices[3].cost == tried[3][0] * (500 + 1250)


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_by_energy_each_layer_keeps_the_fewest_singular_values_that_hold_the_share(glyphs, share):
    model, _ = glyphs
    made = TruncatedSVD(budget="energy", energy=share, allow_larger=True)(model)
    for name, (rank,) in ranks_of(made).items():
        weight = model.get_submodule(name).weight.detach().double().numpy()
        matrix = weight if weight.ndim == 2 else weight.transpose(1, 2, 0, 3).reshape(-1, len(weight) * weight.shape[3])
        kept = np.cumsum(np.linalg.svd(matrix, compute_uv=False) ** 2)
        kept /= kept[-1]
        assert rank == len(kept) or kept[rank - 1] >= share - 1e-6
        assert rank == 1 or kept[rank - 2] < share
    assert len(ranks_of(made)) == 3


def test_the_energy_of_zeros_needs_one_rank():
    assert rank_of_energy(torch.zeros(4), 0.9) == 1


@pytest.mark.parametrize(
    "shape, rank, noise", [((50, 80), 5, 1.0), ((192, 64), 10, 0.5), ((60, 60), 0, 1.0), ((40, 50), 3, 0.0)]
)
@pytest.mark.parametrize("seed", range(3))
def test_variational_bayes_finds_a_planted_rank_under_noise_whatever_the_scale(shape, rank, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    left, right, errors = (
        torch.randn(size, generator=generator) for size in ((shape[0], rank), (rank, shape[1]), shape)
    )
    matrix = left @ right + noise * errors
    assert signal_rank(matrix) == signal_rank(1e-3 * matrix) == rank


def test_variational_bayes_leaves_layers_of_noise_alone_by_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 80), nn.ReLU(), nn.Linear(80, 60), nn.ReLU(), nn.Linear(60, 10))
    with torch.no_grad():
        model[1].weight.normal_()
        model[3].weight.copy_(torch.randn(60, 4) @ torch.randn(4, 80))
    made = TruncatedSVD(budget="vbmf")(model.eval())
    assert ranks_of(made) == {"3": (4,)}
    assert compression_of(made).skipped[-1].reason == "no singular value of its weight stands out from noise"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"budget": "sensitivity", "rank": 8}, "must be one fraction when budget is 'sensitivity', got 8"),
        ({"budget": "singular values", "rank": {"fc*": 0.5}}, "must be one fraction when budget is 'singular values'"),
        ({"budget": "vbmf", "rank": 0.5}, "rank is 0.5, yet budget='vbmf' finds the ranks itself"),
    ],
)
def test_a_budget_refuses_ranks_that_it_would_not_heed(settings, message):
    with pytest.raises(ValueError, match=message):
        TruncatedSVD(**settings)


def second_moment(size, seed=0):
    """Second moments of correlated inputs, two of which never occur."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(500, size, generator=generator, dtype=torch.float64) @ torch.randn(
        size, size, generator=generator, dtype=torch.float64
    )
    inputs[:, :2] = 0
    return inputs.T @ inputs / 500


def error(change, second):
    rows = change.flatten(1).double()
    return float(((rows @ second) * rows).sum())


def test_factors_for_outputs_reach_the_least_error_of_any_product_of_that_rank():
    weight = torch.randn(9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    second = second_moment(14)
    first, last = linear_for_outputs(weight, second, 4)
    left, right = factors(weight, 4)
    found = error(weight - last @ first, second)
    root = np.real(np.linalg.cholesky(second.numpy() + 1e-12 * np.eye(14)))
    dropped = np.linalg.svd(weight.numpy() @ root, compute_uv=False)[4:]
    assert found == pytest.approx((dropped**2).sum(), rel=1e-4)
    assert found < 0.8 * error(weight - left @ right, second)


def test_two_convolutions_for_outputs_come_close_to_what_gradient_descent_from_many_starts_finds():
    weight = torch.randn(5, 3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    second = second_moment(18)

    def meaning(vertical, horizontal):
        return torch.einsum("rci,nrj->ncij", vertical[..., 0], horizontal[:, :, 0])

    found = error(weight - meaning(*vertical_horizontal_for_outputs(weight, second, 3)), second)
    assert found < 0.9 * error(weight - meaning(*vertical_horizontal(weight, 3)), second)
    best = []
    for seed in range(6):
        torch.manual_seed(seed)
        pair = [torch.randn(s, dtype=torch.float64).requires_grad_() for s in ((3, 3, 3, 1), (5, 3, 1, 2))]
        optimizer = torch.optim.LBFGS(pair, max_iter=400, line_search_fn="strong_wolfe")

        def loss(pair=pair, optimizer=optimizer):
            optimizer.zero_grad()
            rows = (weight - meaning(*pair)).flatten(1)
            value = ((rows @ second) * rows).sum()
            value.backward()
            return value

        optimizer.step(loss)
        best.append(error(weight - meaning(*pair).detach(), second))
    assert found < 1.25 * min(best)


def test_fitted_to_outputs_a_network_keeps_more_of_its_outputs(glyphs):
    model, data = glyphs
    made = {fit: TruncatedSVD(rank=0.2, fit=fit, layers="fc1")(model, data) for fit in ("weights", "outputs")}
    moments = input_moments(model, "fc1", model.fc1, data, 512)
    with torch.no_grad():
        changes = {fit: moments.output_error(network.fc1.dense() - model.fc1.weight) for fit, network in made.items()}
    assert changes["outputs"] < 0.5 * changes["weights"]


@pytest.mark.parametrize(
    "second", [torch.zeros(25, 25), 0.3 * torch.eye(25), torch.eye(25)], ids=["zero", "0.3", "one"]
)
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_factors_for_outputs_never_do_worse_than_the_closest_ones_where_inputs_say_nothing(second, size):
    weight = size * torch.randn(20, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    second = second.double()
    for rank in (1, 4, 5):
        made, closest = vertical_horizontal_for_outputs(weight, second, rank), vertical_horizontal(weight, rank)
        changes = [weight - torch.einsum("rci,nrj->ncij", v[..., 0], h[:, :, 0]) for v, h in (made, closest)]
        assert error(changes[0], second) <= error(changes[1], second) * (1 + 1e-9) + 1e-20
        assert max(factor.abs().max() for factor in made) < 100 * size + 10


def test_measured_ranks_include_the_smallest_and_those_of_equal_fractions(glyphs):
    model, data = glyphs
    small = TruncatedSVD(rank=0.01, budget="sensitivity")(model, data)
    assert weights_of(small) <= weights_of(TruncatedSVD(rank=0.01)(model))
    equal, shared = (
        ce.TuckerDecomposition(rank=0.2, layers="conv2", budget=budget)(model, data)
        for budget in ("uniform", "sensitivity")
    )
    assert ranks_of(shared) == ranks_of(equal) == {"conv2": (4, 10)}


def test_frozen_layers_stay_frozen_in_factors(glyphs):
    model, data = glyphs
    model = copy.deepcopy(model)
    model.fc1.weight.requires_grad_(False)
    made = (TruncatedSVD(rank=0.1, layers="fc1") | ce.FineTune(epochs=1))(model, data.shortened(train=64))
    frozen = {name for name, parameter in made.named_parameters() if not parameter.requires_grad}
    assert frozen == {"fc1.first.weight", "fc1.second.weight"}


def test_advice_names_ranks_that_are_allowed():
    model = nn.Sequential(nn.Conv2d(1, 20, 5), nn.Conv2d(20, 8, 5))
    with pytest.raises(
        ce.CompressionError, match="ranks 1, 20 save nothing .*choose at most rank 1, or allow_larger=True"
    ):
        ce.TuckerDecomposition(rank=1.0, layers="0")(model)
    with pytest.raises(
        ce.CompressionError, match="budget='energy' asks for that: choose a lower energy, another budget"
    ):
        TruncatedSVD(budget="energy", energy=1.0, layers="0")(model)


def named(model, layer, attribute):
    """The network with an attribute of the user's on one layer, which a form in its place has as well."""
    model = copy.deepcopy(model)
    setattr(model.get_submodule(layer), attribute, "mine")
    return model


@pytest.mark.parametrize("budget", ["uniform", "singular values", "sensitivity"])
def test_a_layer_that_no_form_can_replace_is_named_and_stops_no_other(glyphs, budget):
    model, data = glyphs
    made = TruncatedSVD(rank=0.1, budget=budget, calibration_images=16)(named(model, "conv2", "rank"), data)
    reasons = {one.layer: one.reason for one in compression_of(made).skipped}
    assert reasons["conv2"] == "it has an attribute 'rank' of its own, and so has the Factored in its place"
    assert "fc1" in ranks_of(made) and made.conv2.rank == "mine"


@pytest.mark.parametrize("budget", ["singular values", "sensitivity"])
def test_a_layer_that_cannot_be_replaced_has_no_share_of_one_budget(glyphs, budget):
    model, data = glyphs
    options = {"rank": 0.1, "budget": budget, "calibration_images": 16}
    made = TruncatedSVD(**options)(named(model, "conv2", "rank"), data)
    assert ranks_of(made) == ranks_of(TruncatedSVD(layers="-last,-conv2", **options)(model, data))


@pytest.mark.parametrize("budget", ["singular values", "sensitivity"])
def test_a_factor_whose_place_no_block_can_take_has_no_share_of_one_budget(glyphs, budget):
    model, data = glyphs[0], glyphs[1].shortened(train=64)
    factored = TruncatedSVD(rank=0.1, layers="fc1")(model, data)
    options = {"rank": 0.1, "budget": budget, "epochs": 1, "calibration_images": 16}
    made, alone = (ce.LowRankTraining(layers=layers, **options)(factored, data) for layers in ("-last", "-last,-fc1.*"))
    assert blocks_of(made) == blocks_of(alone) == {"conv2": (8,)}
    reasons = {one.layer: one.reason for one in compression_of(made).skipped}
    assert reasons["fc1.first"].startswith("is a factor of a Factored, which needs a dense weight")


def test_a_network_of_which_no_layer_can_be_replaced_says_so(glyphs):
    model, data = glyphs
    method = TruncatedSVD(rank=0.1, budget="sensitivity", layers="fc1")
    with pytest.raises(ce.CompressionError, match="found nothing to compress: .*it has an attribute 'rank' of its own"):
        method(named(model, "fc1", "rank"), data)


def test_training_knobs_and_ranks_need_no_new_scan(glyphs, monkeypatch):
    model, data = copy.deepcopy(glyphs[0]), glyphs[1].shortened(train=64)
    scans = []
    measured = factorization.rank_scan
    monkeypatch.setattr(factorization, "rank_scan", lambda *given: scans.append(given[0]) or measured(*given))

    def ranks(**changed):
        options = {"rank": 0.1, "budget": "sensitivity", "epochs": 1, "calibration_images": 8} | changed
        ce.LowRankTraining(**options)(model, data)

    for same in ({}, {"epochs": 2}, {"lr": 1e-4, "seed": 5}, {"rank": 0.2}, {"normalize": False}):
        ranks(**same)
    assert len(scans) == 1
    ranks(calibration_images=9)
    ranks(layers="fc1")
    ce.TruncatedSVD(rank=0.1, budget="sensitivity", calibration_images=8)(model, data)
    assert len(scans) == 4


def test_the_loss_of_the_layer_as_it_is_is_that_of_the_whole_network(glyphs):
    model, data = glyphs
    method = TruncatedSVD(budget="sensitivity")
    task = Task(method, model, data, source=model)
    found = rank_scan(method, task, {"conv2": model.conv2, "fc1": model.fc1}, 40).choices
    shown = torch.linspace(0, len(data.x_train) - 1, 40).round().long()
    expected = nn.functional.cross_entropy(model(data.x_train[shown]), data.y_train[shown]).item()
    for name, choices in found.items():
        (kept,) = [one for one in choices if one.value is None]
        assert kept.loss == pytest.approx(expected, rel=1e-4)
        assert kept.cost == model.get_submodule(name).weight.numel()


def test_ranks_between_measured_ones_lie_on_lines_and_let_the_budget_be_spent(glyphs):
    model, data = glyphs
    geometry = Geometry.of(model.fc1)
    measured = [Choice((10,), 17_500, 2.0), Choice((20,), 35_000, 1.0), Choice(None, 625_000, 0.5)]
    found = {one.value: one for one in between(TruncatedSVD(), geometry, measured)}
    assert found[15,] == Choice((15,), 26_250, 1.5) and (9,) not in found and (357,) in found and (358,) not in found
    assert found[357,].loss == pytest.approx(1 - 0.5 * (357 * 1750 - 35_000) / 590_000)
    equal, shared = (TruncatedSVD(rank=0.05, budget=budget)(model, data) for budget in ("uniform", "sensitivity"))
    assert 0.98 * weights_of(equal) < weights_of(shared) <= weights_of(equal)
