"""Neuron merging: twins merge without a trace, saliencies are those of a naive loop, what cannot be merged is named."""

import copy

import laws
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.methods import MagnitudePruning, NeuronMerging, compression_of
from compedu.methods.pruning.merging import by_channel, merge_neurons, merging_saliencies, put_by_channel
from compedu.networks import build


def images(count=5, channels=1, size=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)


def dataset(channels=1, size=12):
    x, y = images(4, channels, size).float(), torch.arange(4) % 3
    return Dataset("noise", x, y, x, y, x, y, tuple("abc"))


class Network(nn.Module):
    """Layers by name, and a function that calls them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.called = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.called(self, x)


def network(forward, **layers):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        for layer in layers.values():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        return laws.lively(Network(forward, **layers)).double()


def make_twins(model, layer, i, j, norm=None):
    """Let neuron j of a layer do just what i does; its readers stay as they are."""
    for name in ("weight", "bias"):
        tensor = getattr(model.get_submodule(layer), name)
        if tensor is not None:
            tensor.data[j] = tensor.data[i]
    for tensor in ((norm and model.get_submodule(norm).state_dict(keep_vars=True)) or {}).values():
        if tensor.ndim:
            tensor.data[j] = tensor.data[i]


def side_by_side(m, maps):
    return m.head(m.drop(m.pool(maps)).view(maps.size(0), -1)) + m.side(maps.mean((2, 3)))


def viewed_by_shapes(m, x, maps):
    batch, channels = maps.shape[0], maps.shape[1]
    return m.head(maps.view(batch, channels, -1).view(x.shape[0], -1))


CHAINS = {
    "linear": (
        lambda m, x: m.head(torch.sigmoid(m.first(x.flatten(1)))),
        lambda: {"first": nn.Linear(144, 6), "head": nn.Linear(6, 3)}, None,
    ),
    "convolution, pooling, flatten": (
        lambda m, x: m.head(F.max_pool2d(torch.tanh(m.first(x)), 2).flatten(1)),
        lambda: {"first": nn.Conv2d(1, 6, 3, bias=False), "head": nn.Linear(150, 3)}, None,
    ),
    "behind a batch norm": (
        lambda m, x: (m.head(F.relu6(m.norm(m.first(x)))) + m.other(F.relu6(m.norm2(m.first2(x))))).mean((2, 3)),
        lambda: {"first": nn.Conv2d(1, 6, 3), "norm": nn.BatchNorm2d(6), "head": nn.Conv2d(6, 3, 3, padding=1),
                 "first2": nn.Conv2d(1, 5, 3), "norm2": nn.BatchNorm2d(5), "other": nn.Conv2d(5, 3, 1)}, "norm",
    ),
    "readers side by side, viewed by size": (
        lambda m, x: side_by_side(m, m.act(m.norm(m.first(x)))),
        lambda: {"first": nn.Conv2d(1, 6, 3), "norm": nn.BatchNorm2d(6), "act": nn.SiLU(),
                 "pool": nn.AdaptiveAvgPool2d(2), "drop": nn.Dropout(), "head": nn.Linear(24, 3),
                 "side": nn.Linear(6, 3)}, "norm",
    ),
    "viewed by shapes": (
        lambda m, x: viewed_by_shapes(m, x, m.first(x).relu()),
        lambda: {"first": nn.Conv2d(1, 6, 3, stride=3), "head": nn.Linear(96, 3)}, None,
    ),
}  # fmt: skip


def chain(name):
    forward, layers, norm = CHAINS[name]
    return network(forward, **layers()), norm


@pytest.mark.parametrize("name", CHAINS)
def test_twins_merge_without_a_trace(name):
    model, norm = chain(name)
    make_twins(model, "first", 1, 4, norm)
    smaller = NeuronMerging(sparsity={"first": 0.17})(model, dataset())
    assert smaller.first.weight.shape[0] == 5
    assert compression_of(smaller).removed[0].channels in ((1,), (4,))
    torch.testing.assert_close(smaller(images()), model(images()), rtol=1e-11, atol=1e-12)
    random_ = copy.deepcopy(model)  # the same neuron, but nobody speaks for it
    random_.first.weight.data[4] = -random_.first.weight.data[4] + 1
    apart = NeuronMerging(sparsity={"first": 0.17})(random_, dataset())
    assert (apart(images()) - random_(images())).abs().max() > 1e-6


@pytest.mark.parametrize("name", CHAINS)
def test_triplets_and_pairs_merge_down_to_one_each(name):
    model, norm = chain(name)
    for j in (2, 5):
        make_twins(model, "first", 0, j, norm)
    make_twins(model, "first", 1, 4, norm)
    smaller = NeuronMerging(sparsity={"first": 0.5})(model, dataset())
    assert smaller.first.weight.shape[0] == 3
    torch.testing.assert_close(smaller(images()), model(images()), rtol=1e-11, atol=1e-12)


def naive(incoming, outgoing, count):
    alive, outgoing, pairs = list(range(len(incoming))), [row.clone() for row in outgoing], []
    for _ in range(count):
        costs = {
            (i, j): (
                sum(a * a for a in outgoing[j]) / len(outgoing[j]) * (incoming[i] - incoming[j]).square().sum()
            ).item()
            for i in alive for j in alive if i != j
        }  # fmt: skip
        i, j = min(costs, key=costs.get)
        pairs.append((i, j))
        outgoing[i] = outgoing[i] + outgoing[j]
        alive.remove(j)
    return pairs, {i: outgoing[i] for i in alive}


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_merges_is_that_of_a_naive_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    incoming = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    outgoing = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    merged, pairs = merge_neurons(incoming, outgoing, 11)
    expected, left = naive(incoming, outgoing, 11)
    assert pairs == expected and len({j for _, j in pairs}) == 11
    for i, row in left.items():
        torch.testing.assert_close(merged[i], row)
    assert not merged[[j for _, j in pairs]].any()
    torch.testing.assert_close(merged.sum(0), outgoing.sum(0))
    saliencies = merging_saliencies(incoming, outgoing)
    for i in range(12):
        for j in range(12):
            cost = outgoing[j].square().mean() * (incoming[i] - incoming[j]).square().sum()
            assert saliencies[i, j] == (torch.inf if i == j else pytest.approx(cost.item(), rel=1e-9))


@pytest.mark.parametrize("shape, size", [((4, 6), 6), ((4, 12), 3), ((5, 4, 3, 3), 4)])
def test_what_is_read_from_each_channel_and_written_back(shape, size):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    channels = torch.arange(shape[1]) % size if size == 3 else torch.arange(shape[1]) * size // shape[1]
    values = by_channel(weight, channels)
    assert values.shape == (size, weight.numel() // size)
    for channel in range(size):
        assert sorted(values[channel].tolist()) == sorted(weight[:, channels == channel].flatten().tolist())
    before = weight.clone()
    put_by_channel(weight, channels, values)
    assert torch.equal(weight, before)
    put_by_channel(weight, channels, values * torch.arange(size)[:, None])
    assert torch.equal(weight, before * channels.view(1, -1, *[1] * (len(shape) - 2)))


def test_the_batch_norm_counts_as_part_of_the_neuron():
    model, _ = chain("behind a batch norm")
    make_twins(model, "first", 1, 4)  # same weights, another norm: no twins
    smaller = NeuronMerging(sparsity={"first": 0.17})(model, dataset())
    scaled = copy.deepcopy(model)
    make_twins(scaled, "first", 1, 4, "norm")
    scaled.first.weight.data[4] *= 3  # other weights, and a norm that undoes that: twins
    scaled.first.bias.data[4] *= 3
    scaled.norm.running_mean[4] *= 3
    scaled.norm.weight.data[4] *= (
        (9 * scaled.norm.running_var[4] + scaled.norm.eps) / (scaled.norm.running_var[4] + scaled.norm.eps)
    ).sqrt() / 3
    scaled.norm.running_var[4] *= 9
    merged = NeuronMerging(sparsity={"first": 0.17})(scaled, dataset())
    torch.testing.assert_close(merged(images()), scaled(images()), rtol=1e-10, atol=1e-11)
    assert (smaller(images()) - model(images())).abs().max() > 1e-6


def reasons(model, data=None, **knobs):
    """Why layers stay, whether some are merged or none."""
    try:
        return {s.layer: s.reason for s in compression_of(NeuronMerging(**knobs)(model, data or dataset())).skipped}
    except CompressionError as refusal:
        return {"": str(refusal)}


def gated(halves):
    return halves[0] * halves[1].sigmoid()


def before_and_behind(m, maps):
    return (m.head(F.relu(m.norm(maps))) + m.side(maps)).mean((2, 3))


OBSTACLES = {
    "softmax": (lambda m, x: m.head(m.first(x.flatten(1)).softmax(1)),
                {"first": nn.Linear(144, 6), "head": nn.Linear(6, 3)}, "first"),
    "own slopes": (lambda m, x: m.head(m.act(m.first(x.flatten(1)))),
                   {"first": nn.Linear(144, 6), "act": nn.PReLU(6), "head": nn.Linear(6, 3)},
                   "parameters of their own"),
    "normalizes behind": (lambda m, x: m.head(m.norm(F.relu(m.first(x)))).mean((2, 3)),
                          {"first": nn.Conv2d(1, 6, 3), "norm": nn.BatchNorm2d(6), "head": nn.Conv2d(6, 3, 1)},
                          "normalizes behind"),
    "together": (lambda m, x: m.head(m.first(x) + m.second(x)).mean((2, 3)),
                 {"first": nn.Conv2d(1, 6, 3), "second": nn.Conv2d(1, 6, 3), "head": nn.Conv2d(6, 3, 1)},
                 "produced by first, second together"),
    "groups": (lambda m, x: m.head(m.first(x)).mean((2, 3)),
               {"first": nn.Conv2d(1, 6, 3), "head": nn.Conv2d(6, 3, 1, groups=3)}, "is grouped"),
    "scaled by data": (lambda m, x: m.head(m.first(x) * x.mean((2, 3), keepdim=True)).mean((2, 3)),
                       {"first": nn.Conv2d(1, 6, 3), "head": nn.Conv2d(6, 3, 1)},
                       "joins its neurons with something else"),
    "only training": (lambda m, x: m.main(x.flatten(1)) + (m.head(m.first(x.flatten(1))) if m.training else 0),
                      {"first": nn.Linear(144, 6), "head": nn.Linear(6, 3), "main": nn.Linear(144, 3)},
                      "only training calls it"),
    "joined": (lambda m, x: m.head(torch.cat([m.first(x), m.second(x)], 1)).mean((2, 3)),
               {"first": nn.Conv2d(1, 6, 3), "second": nn.Conv2d(1, 5, 3), "head": nn.Conv2d(11, 3, 1)},
               "concatenated with those of other layers"),
    "gates": (lambda m, x: m.head(gated(m.first(x.flatten(1)).chunk(2, 1))),
              {"first": nn.Linear(144, 6), "head": nn.Linear(3, 3)}, "several of its filters produce one channel"),
    "maxout": (lambda m, x: m.head(m.first(x.flatten(1)).view(x.size(0), 2, -1).amax(1)),
               {"first": nn.Linear(144, 6), "head": nn.Linear(3, 3)}, "several of its filters produce one channel"),
    "read in front of the batch norm": (lambda m, x: before_and_behind(m, m.first(x)),
        {"first": nn.Conv2d(1, 6, 3), "norm": nn.BatchNorm2d(6), "head": nn.Conv2d(6, 3, 1),
         "side": nn.Conv2d(6, 3, 1)},
        "something else reads its neurons in front of 'norm'"),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_cannot_be_merged_is_named_with_the_reason(name):
    forward, layers, text = OBSTACLES[name]
    model = network(forward, **layers)
    found = reasons(model)
    assert any(text in reason for reason in found.values()), found


def test_networks_of_the_course():
    data = laws.data()
    smaller = NeuronMerging(sparsity=0.25)(build("lenet5(size=28)"), data)
    assert [getattr(smaller, name).weight.shape[0] for name in ("conv1", "conv2", "fc1", "fc2")] == [15, 38, 375, 10]
    assert [record.group for record in compression_of(smaller).removed] == ["conv1", "conv2", "fc1"]
    assert len(compression_of(smaller).removed[2].channels) == 125
    found = reasons(laws.normalized(), data)
    assert "together" in found["conv"] and "stage1.0.conv1" not in found
    factored = reasons(MagnitudePruning(layers="conv2")(build("lenet5(size=28)")), data)
    assert "already compressed (Masked)" in factored["conv2"]
    assert "no pattern" in reasons(build("lenet5(size=28)"), data, sparsity={"fc1": 0.5})["conv1"]
    assert "not selected" in reasons(build("lenet5(size=28)"), data, layers="fc1")["conv1"]
