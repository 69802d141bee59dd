"""CReLU: pairs of filters found and tied, a network that computes the same until it is tied, and what stays untied."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import CReLUFilters
from compedu.graph import find_channels
from compedu.hashing import model_digest
from compedu.methods import compression_of
from compedu.methods.compact_filters.crelu import CReLU, half_difference
from compedu.methods.compact_filters.shared.pairing import (
    can_be_reordered,
    moved_places,
    opposite_cosines,
    pairing_order,
    reorder_channels,
)
from compedu.methods.pruning.magnitude import MagnitudePruning
from compedu.networks import build
from compedu.training import Recipe, fit

DATA = digits(size=16).shortened(train=160, validation=100, test=20)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_base_is_the_least_squares_fit_of_filters_and_negatives():
    filters = random(6, 2, 3, 3).double()
    tie = np.concatenate([np.eye(3), -np.eye(3)])
    expected, *_ = np.linalg.lstsq(tie, filters.flatten(1).numpy(), rcond=None)
    np.testing.assert_allclose(half_difference(filters).flatten(1).numpy(), expected, atol=1e-12)


def test_planted_pairs_are_found_again():
    base = random(5, 2, 3, 3)
    shuffled = torch.cat([base, -2 * base])[torch.tensor([3, 9, 0, 5, 7, 1, 2, 8, 6, 4])]
    first, second = shuffled[pairing_order(shuffled)].chunk(2)
    cosines = nn.functional.cosine_similarity(first.flatten(1), second.flatten(1))
    torch.testing.assert_close(cosines, -torch.ones(5))
    torch.testing.assert_close(opposite_cosines(shuffled), -torch.ones(10))


def test_the_first_pair_is_the_most_opposite_of_all():
    weight = random(8, 3, 3, 3, seed=4)
    order = pairing_order(weight)
    angles = {
        pair: torch.cosine_similarity(weight[pair[0]].flatten(), weight[pair[1]].flatten(), dim=0).item()
        for pair in itertools.combinations(range(8), 2)
    }
    assert sorted(order.tolist()) == list(range(8))
    assert min(angles, key=angles.get) == tuple(sorted((order[0].item(), order[4].item())))


def with_batch_norm_used(model):
    """Give every batch norm statistics, scales and shifts that tell its channels apart."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.running_mean.copy_(random(count, seed=count))
            module.running_var.copy_(random(count, seed=count + 1).abs() + 0.5)
            module.weight.data.copy_(random(count, seed=count + 2))
            module.bias.data.copy_(random(count, seed=count + 3))
    return model.double()


SPECS = ["lenet5(size=16, width=0.4)", "vgg(size=16, width=0.2)", "resnet(size=16, width=0.5)"]


@pytest.mark.parametrize("spec", SPECS)
def test_reordering_channels_leaves_the_function_as_it_is(spec):
    model = with_batch_norm_used(build(spec))
    x = random(3, 1, 16, 16).double()
    before, moved = model(x).detach(), 0
    for group in find_channels(model, x).groups:
        layer = model.get_submodule(group.name)
        if can_be_reordered(group, group.name, len(layer.weight)):
            weight = layer.weight.detach().clone()
            reorder_channels(model, group, torch.arange(group.size).flip(0))
            assert torch.equal(layer.weight, weight.flip(0))
            moved += 1
    assert moved >= 3
    torch.testing.assert_close(model(x), before, rtol=1e-10, atol=1e-10)


def test_moved_places_keep_what_is_not_of_the_group_and_the_pixels_of_each_map_in_order():
    channels = torch.tensor([-1, 0, 0, 1, 1, 2, 2, -1])
    places = moved_places(channels, torch.tensor([2, 0, 1]))
    assert places.tolist() == [0, 5, 6, 1, 2, 3, 4, 7]


def paired_lenet():
    """A network whose filters of both convolutions are pairs of negatives in an order that hides it."""
    model = build("lenet5(size=16, width=0.4)")
    for name, seed in (("conv1", 1), ("conv2", 2)):
        layer = model.get_submodule(name)
        order = torch.randperm(len(layer.weight), generator=torch.Generator().manual_seed(seed))
        for tensor in (layer.weight.data, layer.bias.data):
            half = tensor[: len(tensor) // 2]
            tensor.copy_(torch.cat([half, -half])[order])
    return model.double()


def test_a_network_of_opposite_pairs_is_reproduced_exactly_without_training():
    model, x = paired_lenet(), random(4, 1, 16, 16).double()
    small = CReLU(epochs=0)(model, DATA)
    assert isinstance(small.conv1, CReLUFilters) and isinstance(small.conv2, CReLUFilters)
    torch.testing.assert_close(small(x), model(x), rtol=1e-10, atol=1e-10)


def test_the_input_of_the_relu_can_be_had_back_from_its_output():
    small, x = CReLU(epochs=0)(build("lenet5(size=16, width=0.4)"), DATA), random(4, 1, 16, 16)
    positive, negative = small.relu1(small.conv1(x)).chunk(2, dim=1)
    expected = nn.functional.conv2d(x, small.conv1.base, small.conv1.base_bias)
    torch.testing.assert_close(positive - negative, expected)
    assert (positive * negative == 0).all()


@pytest.mark.parametrize("start", ["paired", "scratch"])
@pytest.mark.parametrize("spec", ["lenet5(size=16, width=0.4)", "vgg(size=16, width=0.1)"])
def test_training_keeps_the_ties_moves_every_layer_and_depends_on_its_seed(spec, start):
    model = build(spec)
    digest = model_digest(model)
    small = CReLU(start=start, epochs=1)(model, DATA)
    tied = [layer for layer in small.modules() if isinstance(layer, CReLUFilters)]
    assert len(tied) >= 2 and model_digest(model) == digest
    for layer in tied:
        first, second = layer.dense().chunk(2)
        assert torch.equal(first, -second)
    fc = "fc2" if "lenet5" in spec else "fc"
    assert not torch.equal(small.get_submodule(fc).weight, model.get_submodule(fc).weight)
    assert model_digest(CReLU(start=start, epochs=1)(model, DATA)) == model_digest(small)
    assert model_digest(CReLU(start=start, epochs=1, seed=1)(model, DATA)) != model_digest(small)


def test_scratch_forgets_the_trained_weights():
    one, other = build("lenet5(size=16, width=0.4)"), build("lenet5(size=16, width=0.4)", seed=9)
    start = CReLU(start="scratch", epochs=1)
    assert model_digest(start(one, DATA)) == model_digest(start(other, DATA))


def test_layers_that_cannot_be_tied_are_skipped_by_name_with_the_reason():
    model = nn.Sequential(
        nn.Conv2d(1, 7, 3),
        nn.ReLU(),
        nn.Conv2d(7, 14, 3, groups=7),
        nn.ReLU(),
        nn.Conv2d(14, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.Sigmoid(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 10),
    ).eval()
    model = MagnitudePruning(layers="9")(model)
    small = CReLU(epochs=0, layers="all")(model, DATA)
    reasons = {s.layer: s.reason for s in compression_of(small).skipped if s.step.startswith("CReLU")}
    expected = {"0": "odd number", "2": "7 groups", "7": "not read by a ReLU", "9": "Masked", "12": "not a convolution"}
    assert reasons.keys() == expected.keys()
    assert all(words in reasons[layer] for layer, words in expected.items())
    assert isinstance(small[4], CReLUFilters) and small[4].base.shape == (4, 14, 3, 3)


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        return self.conv(x).relu().mean((2, 3)) if x.sum() > 0 else self.conv(x).mean((2, 3))


def test_networks_that_cannot_be_traced_or_have_nothing_to_tie_are_refused_by_name():
    with pytest.raises(CompressionError, match="Deciding cannot be traced"):
        CReLU(epochs=0)(Deciding().eval(), DATA)
    with pytest.raises(CompressionError, match="nothing to compress: fc1, .*is not a convolution"):
        CReLU(layers="all")(build("lenet300(size=16, width=0.1)"), DATA)
    with pytest.raises(CompressionError, match=r"fc1 \(Masked\) cannot be initialized again"):
        CReLU(start="scratch")(MagnitudePruning(layers="fc1")(build("lenet5(size=16, width=0.4)")), DATA)


def test_a_network_drawn_anew_needs_training():
    with pytest.raises(ValueError, match="CReLU.epochs must be at least 1 when start is 'scratch', got 0"):
        CReLU(start="scratch", epochs=0)
    assert (CReLU(epochs=0).needs, CReLU().needs) == ("calibration", "training")


def test_pairing_keeps_more_of_a_trained_network_than_one_epoch_from_scratch_reaches():
    model, data = build("lenet5(size=16, width=0.4)"), digits(size=16)
    fit(model, data, Recipe(epochs=10, lr=3e-3))
    paired = evaluate(CReLU(epochs=0)(model, data), data).correct
    scratch = evaluate(CReLU(start="scratch", epochs=1)(model, data), data).correct
    assert evaluate(model, data).correct > 360 and paired > scratch + 40
