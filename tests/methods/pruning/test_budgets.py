"""Budgets: each rule against its formula computed independently, and the sensitivity scan against single prunings."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.methods import MagnitudePruning, RandomPruning
from compedu.methods.pruning.shared import weight_pruning
from compedu.methods.pruning.shared.budgets import (
    BUDGETS,
    budget_masks,
    densities_in_proportion,
    erdos_renyi_densities,
)  # fmt: skip
from compedu.methods.pruning.shared.lamp import CHUNK, lamp_scores
from compedu.methods.pruning.shared.masks import keep_largest_together
from compedu.methods.pruning.shared.sensitivity import (
    SPARSITIES,
    sensitivity_scan,
    sensitivity_sparsities,
    tolerated_sparsity,
)  # fmt: skip
from compedu.networks import build

SHAPES = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}


def weights_of(model):
    return {name: model.get_submodule(name).weight.detach() for name in SHAPES}


def kept(model):
    return {name: int(model.get_submodule(name).mask.sum()) for name in SHAPES}


def sparsity_of(model):
    return 1 - sum(kept(model).values()) / sum(map(math.prod, SHAPES.values()))


@pytest.mark.parametrize("budget", [*BUDGETS, "sensitivity"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.97])
def test_every_budget_takes_the_fraction_that_was_asked_for(budget, sparsity):
    data = ce.load_data("digits").shortened(train=64, validation=8, test=8)
    model = ce.trained("lenet5", "digits")
    assert sparsity_of(MagnitudePruning(sparsity=sparsity, budget=budget)(model, data)) == pytest.approx(
        sparsity, abs=2e-3
    )


def test_lamp_scores_are_those_of_a_loop_over_all_pairs():
    scores = torch.tensor([[0.3, 1.0, 0.3], [0.0, 2.0, 0.5]])
    flat = [value.item() for value in scores.double().flatten()]
    order = sorted(range(6), key=lambda i: (flat[i] ** 2, i))
    wanted = torch.zeros(6, dtype=torch.float64)
    for place, u in enumerate(order):
        wanted[u] = flat[u] ** 2 / sum(flat[v] ** 2 for v in order[place:])
    torch.testing.assert_close(lamp_scores(scores).flatten(), wanted)


def drawn(kind):
    """Scores of four layers: of one size, tied, of sizes that single precision cannot tell apart once squared."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"wide": (3, CHUNK // 2 + 7), "twin": (40, 25), "again": (40, 25), "one": (1,), "none": (0, 3)}
    scores = {name: torch.randn(shape, generator=generator).abs() for name, shape in shapes.items()}
    if kind == "tied":
        scores = {name: (4 * score).round() / 4 for name, score in scores.items()}
    if kind == "tiny":
        scores["wide"] = torch.exp(-60 * scores["wide"])
    if kind == "twins":
        scores["again"] = scores["twin"].flip(0)
    if kind == "zero":
        scores = {name: 0 * score for name, score in scores.items()}
    kinds = {"double": torch.float64, "bfloat16": torch.bfloat16}
    return {name: score.to(kinds.get(kind, torch.float32)) for name, score in scores.items()}


@pytest.mark.parametrize("kind", ["plain", "tied", "tiny", "twins", "zero", "double", "bfloat16"])
def test_lamp_masks_are_those_of_a_ranking_of_all_scores_in_full(kind):
    scores = drawn(kind)
    sizes = sum(score.numel() for score in scores.values())
    for sparsity in (0.0, 1 / sizes, 0.1, 0.5, 0.5 + 1 / sizes, 0.9, 1 - 1 / sizes):
        wanted = keep_largest_together({name: lamp_scores(score) for name, score in scores.items()}, sparsity)
        found = budget_masks("lamp", scores, sparsity)
        assert list(found) == list(scores)
        assert all(torch.equal(found[name], wanted[name]) for name in scores), sparsity


def test_lamp_ranks_by_scores_in_full_where_single_precision_sees_a_tie():
    def layer(small):
        return torch.stack([small, torch.tensor(3.2)])

    larger, smaller = torch.tensor(1.9), torch.tensor(1.9)
    while larger == smaller or lamp_scores(layer(larger))[0].float() != lamp_scores(layer(smaller))[0].float():
        larger, smaller = smaller, smaller.nextafter(torch.tensor(0.0))
    assert lamp_scores(layer(larger))[0] > lamp_scores(layer(smaller))[0]
    for first, second in ((larger, smaller), (smaller, larger)):
        masks = budget_masks("lamp", {"first": layer(first), "second": layer(second)}, 0.25)
        assert [bool(mask[0]) for mask in masks.values()] == [bool(first > second), bool(second > first)]
        assert all(bool(mask[1]) for mask in masks.values())


def test_lamp_empties_no_layer_where_a_ranking_of_all_weights_would():
    model = build("lenet5")
    with torch.no_grad():
        model.conv1.weight.mul_(1e-3)
    with pytest.raises(CompressionError, match="would leave no weight in conv1"):
        MagnitudePruning(sparsity=0.9, budget="global")(model)
    assert kept(MagnitudePruning(sparsity=0.999, budget="lamp")(model))["conv1"] >= 1


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_erdos_renyi_densities_follow_the_dimensions_and_keep_the_sum(density):
    found = erdos_renyi_densities(SHAPES, density)
    sizes = {name: math.prod(shape) for name, shape in SHAPES.items()}
    assert sum(found[n] * sizes[n] for n in found) == pytest.approx(density * sum(sizes.values()))
    assert max(found.values()) <= 1
    free = [n for n in found if found[n] < 1]
    factors = [found[n] * sizes[n] / sum(SHAPES[n]) for n in free]
    assert not factors or max(factors) == pytest.approx(min(factors))
    needed = factors[0] if factors else 0
    assert all(needed * sum(SHAPES[n]) / sizes[n] >= 1 - 1e-9 for n in found if found[n] == 1 and free)


def test_by_hand_leaves_out_what_the_mapping_does_not_name():
    masks = budget_masks("uniform", weights_of(build("lenet5")), {"fc*": 0.9, "conv1": 0.2})
    assert {name: round(1 - float(mask.float().mean()), 6) for name, mask in masks.items()} == {
        "conv1": 0.2,
        "fc1": 0.9,
        "fc2": 0.9,
    }


def test_tolerated_sparsity_reads_the_curve_along_straight_lines():
    curve = [1.0, 1.2, 1.1, 3.0]
    assert tolerated_sparsity([0, 0.4, 0.6, 1.0], curve, 0.1) == pytest.approx(0.2)
    assert tolerated_sparsity([0, 0.4, 0.6, 1.0], curve, 0.2) == pytest.approx(0.6 + 0.4 * 0.1 / 1.9)
    assert tolerated_sparsity([0, 0.4, 0.6, 1.0], curve, 5.0) == 1.0


def test_the_scan_prunes_one_layer_at_a_time_and_leaves_the_network_alone():
    model, data = ce.load("lenet5", "digits")
    few = data.shortened(train=128, validation=8, test=8)
    scores = {name: weight.abs() for name, weight in weights_of(model).items()}
    layers = {name: model.get_submodule(name) for name in SHAPES}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = sensitivity_scan(model, layers, scores, few, 128, (0.0, 0.9))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    for name in SHAPES:
        alone = MagnitudePruning(sparsity=0.9, layers=name)(model)
        assert found[name][1] == pytest.approx(evaluate(alone, few, "train").loss, rel=1e-4)
        assert found[name][0] == pytest.approx(evaluate(model, few, "train").loss, rel=1e-4)


def test_a_slider_for_the_sparsity_scans_once(monkeypatch):
    model, data = ce.load("lenet5", "digits")
    few = data.shortened(train=64, validation=8, test=8)
    scans = []
    monkeypatch.setattr(
        weight_pruning, "sensitivity_scan", lambda *given: scans.append(given[-1]) or sensitivity_scan(*given)
    )
    method = MagnitudePruning(budget="sensitivity", calibration_images=16)
    masks = [kept(replace(method, sparsity=sparsity)(model, few)) for sparsity in (0.5, 0.9, 0.5)]
    assert scans == [16] and masks[0] == masks[2] != masks[1]

    fresh = copy.deepcopy(model)
    assert kept(replace(method, sparsity=0.9)(fresh, few)) == masks[1] and scans == [16, 16]

    replace(method, calibration_images=32)(model, few)
    method(model, few.shortened(train=32))
    RandomPruning(budget="sensitivity", calibration_images=16)(model, few)
    model.fc2.weight.data *= 2
    method(model, few)
    assert scans == [16, 16, 32, 16, 16, 16]


def test_the_sensitivity_budget_spares_the_fragile_layer():
    losses = {"fragile": [0.0, 2.0, 4.0], "tough": [0.0, 0.0, 0.1]}
    found = sensitivity_sparsities(losses, {"fragile": 100, "tough": 100}, 0.4, (0.0, 0.5, 0.9))
    assert found["tough"] > 0.7 > 0.1 > found["fragile"]
    assert 100 * found["tough"] + 100 * found["fragile"] == pytest.approx(80)
    assert sensitivity_sparsities(losses, {"fragile": 1, "tough": 1}, 0.95, (0.0, 0.5, 0.9)) == dict.fromkeys(
        losses, 0.95
    )
    assert SPARSITIES[0] == 0


def test_the_rules_say_what_they_need_and_refuse_values_by_layer():
    assert MagnitudePruning().needs == "weights" and MagnitudePruning(budget="sensitivity").needs == "calibration"
    for budget in ("global", "lamp", "erdos-renyi", "sensitivity"):
        with pytest.raises(ValueError, match=f"must be one number when budget is '{budget}'"):
            MagnitudePruning(sparsity={"*": 0.5}, budget=budget)
    with pytest.raises(ValueError, match="RandomPruning.budget must be one of 'uniform', 'erdos-renyi', 'sensitivity'"):
        RandomPruning(budget="lamp")


def test_rules_beat_the_uniform_share_where_it_hurts():
    model, data = ce.load("lenet5", "glyphs")
    right = {
        b: evaluate(MagnitudePruning(sparsity=0.85, budget=b)(model, data), data).correct
        for b in (*BUDGETS, "sensitivity")
    }
    assert min(right["lamp"], right["global"], right["sensitivity"]) > right["uniform"]


def test_the_sensitivity_budget_leaves_a_weight_in_the_smallest_layer():
    losses = {"small": [0.0, 0.0, 0.0], "large": [0.0, 0.5, 1.0]}
    found = sensitivity_sparsities(losses, {"small": 10, "large": 990}, 0.4, (0.0, 0.5, 0.98))
    assert found["small"] == pytest.approx(0.9)
    assert 10 * found["small"] + 990 * found["large"] == pytest.approx(400)
    beyond = sensitivity_sparsities(losses, {"small": 10, "large": 990}, 0.99, (0.0, 0.5, 0.98))
    assert beyond == {"small": 0.9, "large": pytest.approx(981 / 990)}


def test_a_small_layer_that_the_loss_hardly_needs_keeps_a_weight():
    data = ce.load_data("digits").shortened(train=64, validation=8, test=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32, 10))
    for sparsity in (0.5, 0.9, 0.98):
        pruned = MagnitudePruning(sparsity=sparsity, budget="sensitivity")(model, data)
        left = [int(pruned[i].mask.sum()) for i in (0, 4)]
        assert min(left) >= 1 and sum(left) == pytest.approx((1 - sparsity) * 338, abs=1)


def test_shares_are_scaled_to_the_density_that_is_asked_for():
    sizes = {"a": 100, "b": 1000, "c": 10}
    found = densities_in_proportion({"a": 3.0, "b": 1.0, "c": 50.0}, sizes, 0.2)
    assert sum(found[name] * sizes[name] for name in sizes) == pytest.approx(0.2 * 1110)
    assert found["c"] == 1.0 and found["a"] == pytest.approx(3 * found["b"])


def test_lamp_sees_the_size_of_a_saliency_not_its_square():
    """With one curvature of all weights, the saliency of Optimal Brain Damage ranks as magnitude does; so must LAMP."""
    model = ce.build("lenet300(width=0.1)", seed=1)
    damage, magnitude = (cls(sparsity=0.9, budget="lamp") for cls in (ce.OptimalBrainDamage, ce.MagnitudePruning))
    scores = {name: model.get_submodule(name).weight.detach().abs() for name in ("fc1", "fc2", "fc3")}
    layers = {name: model.get_submodule(name) for name in scores}
    by_saliency = damage.masks(None, layers, {name: 0.5 * score**2 for name, score in scores.items()})
    by_size = magnitude.masks(None, layers, scores)
    assert all(torch.equal(by_saliency[name], by_size[name]) for name in scores)
