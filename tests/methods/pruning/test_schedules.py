"""Schedules: sparsity over time by its formula, masks that only tighten, and what pruning in portions is good for."""

import itertools
import math

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.errors import CompressionError
from compedu.methods import (
    BiasedWeightDecay,
    FineTune,
    GradualPruning,
    IterativePruning,
    MagnitudePruning,
    MovementPruning,
    RegularizedPruning,
)  # fmt: skip
from compedu.methods.pruning.shared.schedules import cubic_sparsity, geometric_sparsity
from compedu.training import listening

LAYERS = ("conv1", "conv2", "fc1", "fc2")


def few(train=640):
    return ce.load_data("digits").shortened(train=train, validation=200, test=8)


def watched(method, data):
    """The masks of the network after every step, and the result."""
    masks = []
    with listening(lambda step: masks.append({name: step.model.get_submodule(name).mask.clone() for name in LAYERS})):
        result = method(ce.trained("lenet5", "digits"), data)
    return masks, result


def sparsities(masks):
    return [1 - sum(int(m.sum()) for m in one.values()) / sum(m.numel() for m in one.values()) for one in masks]


def test_the_cubic_curve_by_hand():
    assert [cubic_sparsity(0.8, p) for p in (0, 0.5, 1, 2)] == [0, pytest.approx(0.7), 0.8, 0.8]


def test_each_round_takes_the_same_share_of_what_is_left():
    left = [1 - geometric_sparsity(0.9, r, 4) for r in range(5)]
    assert left[0] == 1 and left[-1] == pytest.approx(0.1)
    shares = [after / before for before, after in itertools.pairwise(left)]
    assert max(shares) == pytest.approx(min(shares))


def test_gradual_masks_follow_the_curve_and_only_tighten():
    masks, result = watched(GradualPruning(epochs=4, every=5, ramp=0.5, sparsity=0.9), few())
    assert len(masks) == 40
    found = sparsities(masks)
    for step, sparsity in enumerate(found, start=1):
        reached = step - step % 5 if step < 20 else 20
        assert sparsity == pytest.approx(cubic_sparsity(0.9, reached / 20), abs=1e-3)
    for before, after in itertools.pairwise(masks):
        assert all(not (after[name] & ~before[name]).any() for name in LAYERS)
    for name in LAYERS:
        layer = result.get_submodule(name)
        assert not layer.dense()[~layer.mask].any()


def test_the_final_sparsity_is_reached_however_short_the_training():
    _, result = watched(GradualPruning(epochs=1, every=100, ramp=0.01), few(64))
    assert sparsities([{name: result.get_submodule(name).mask for name in LAYERS}])[0] == pytest.approx(0.9, abs=1e-3)


def test_iterative_rounds_prune_at_their_starts_and_train_between():
    masks, _ = watched(IterativePruning(rounds=3, epochs=2, sparsity=0.9), few())
    found = sparsities(masks)
    assert len(found) == 3 * 2 * 10
    # a step is shown after the pruning that follows it: the first of a round stands one step before
    for start, done in ((0, 1), (20, 2), (40, 3)):
        assert found[start] == found[start + 18] == pytest.approx(1 - 0.1 ** (done / 3), abs=1e-3)


@pytest.mark.parametrize("budget", ["uniform", "global", "lamp", "erdos-renyi"])
@pytest.mark.parametrize("cls", [GradualPruning, IterativePruning])
def test_every_budget_is_kept(cls, budget):
    _, result = watched(cls(epochs=1, sparsity=0.8, budget=budget), few(128))
    assert sparsities([{name: result.get_submodule(name).mask for name in LAYERS}])[0] == pytest.approx(0.8, abs=2e-3)


def test_sparsities_by_layer_are_reached_and_other_layers_named():
    result = GradualPruning(epochs=1, sparsity={"fc*": 0.9, "conv2": 0.5})(ce.trained("lenet5", "digits"), few(64))
    assert not isinstance(result.conv1, ce.forms.Masked)
    assert [s.layer for s in result.compression.skipped] == ["conv1"]
    assert result.fc1.mask.float().mean().item() == pytest.approx(0.1, abs=1e-3)
    assert result.conv2.mask.float().mean().item() == pytest.approx(0.5, abs=1e-3)


def test_one_round_is_pruning_followed_by_fine_tuning():
    model, data = ce.trained("lenet5", "digits"), few()
    once = IterativePruning(rounds=1, epochs=2, sparsity=0.8, lr=1e-3)(model, data)
    pair = (MagnitudePruning(sparsity=0.8) | FineTune(epochs=2, lr=1e-3))(model, data)
    for name in LAYERS:
        assert torch.equal(once.get_submodule(name).dense(), pair.get_submodule(name).dense())


def test_dropout_weakens_with_the_root_of_what_is_left():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10))
    seen = []
    with listening(lambda step: seen.append(step.model[3].p)):
        IterativePruning(rounds=2, epochs=1, sparsity=0.84)(model, few(64))
    assert seen[0] == pytest.approx(0.5 * math.sqrt(0.16)) and model[3].p == 0.5  # one step a round: the next has begun
    once = IterativePruning(rounds=1, epochs=1, sparsity=0.75)(model, few(64))
    again = IterativePruning(rounds=1, epochs=1, sparsity=0.75)(once, few(64))
    assert once[3].p == again[3].p == pytest.approx(0.25)  # nothing more was taken
    result = IterativePruning(rounds=1, epochs=1, sparsity=0.75, layers="-4")(model, few(64))
    assert result[3].p == 0.5  # the layer behind it kept its weights


@pytest.mark.parametrize("cls, budget, sparsity", [
    (GradualPruning, "uniform", 0.999), (GradualPruning, "erdos-renyi", 0.99995), (IterativePruning, "uniform", 0.999),
    (IterativePruning, "erdos-renyi", 0.99995), (MovementPruning, "uniform", 0.999),
    (GradualPruning, "uniform", {"conv1": 0.9995, "*": 0.5}), (RegularizedPruning, "uniform", 0.999),
    (BiasedWeightDecay, "erdos-renyi", 0.99995),
])  # fmt: skip
def test_a_sparsity_that_empties_a_layer_in_the_end_is_refused_before_training(cls, budget, sparsity):
    steps = []
    with (
        listening(steps.append),
        pytest.raises(CompressionError, match="would leave no weight in conv1 .*lower the sparsity"),
    ):
        cls(epochs=1, sparsity=sparsity, budget=budget)(ce.trained("lenet5", "digits"), few(320))
    assert steps == []


@pytest.mark.parametrize("cls, budget", [
    (GradualPruning, "global"), (GradualPruning, "lamp"), (IterativePruning, "lamp"), (MovementPruning, "global"),
    (RegularizedPruning, "lamp"),
])  # fmt: skip
def test_fewer_weights_than_layers_are_refused_before_training(cls, budget):
    steps, size = [], 500 + 25_000 + 400_000 + 5_000
    message = r"would leave 3 of 430,500 weights, fewer than the 4 layers conv1, .*must be at most 0\.999990708"
    with listening(steps.append), pytest.raises(CompressionError, match=message):
        cls(epochs=1, sparsity=1 - 3 / size, budget=budget)(ce.trained("lenet5", "digits"), few(320))
    assert steps == []


def test_as_many_weights_as_layers_are_allowed():
    method = GradualPruning(epochs=1, sparsity=0.999990708, budget="lamp")
    result = method(ce.trained("lenet5", "digits"), few(64))
    assert [int(result.get_submodule(name).mask.sum()) for name in LAYERS] == [1, 1, 1, 1]
