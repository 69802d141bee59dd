"""Channels that can be scaled: dividing and multiplying them changes nothing; all others are named with the reason."""

import copy

import pytest
import torch
import torch.nn.functional as F
from structures import Network, conv, head, images, masked
from torch import nn
from toys.transformer import transformer

from compedu.errors import CompressionError
from compedu.forms import Masked
from compedu.graph import fold_batch_norm
from compedu.graph.rescaling import along_inputs, largest_by_input, rescaled
from compedu.graph.scaling import Scalable, scalable_channels
from compedu.methods.layers import compressible
from compedu.networks import build
from compedu.testing.networks import lively


def found(model: nn.Module, x: torch.Tensor, without: tuple[str, ...] = ()) -> Scalable:
    return scalable_channels(model, [name for name in compressible(model)[0] if name not in without], x)


def spread_out(count: int) -> torch.Tensor:
    """Factors from 0.1 to 10."""
    return 10 ** (2 * torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1)


def leaves(outputs) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def assert_unchanged(model: nn.Module, x: torch.Tensor) -> Scalable:
    """Scale all channels of `model`, in float64, and compare; the layers themselves must have changed."""
    model = copy.deepcopy(model).double().eval()
    x = x.double()
    channels = found(model, x)
    before = copy.deepcopy(model.state_dict())
    other = rescaled(model, channels, spread_out(channels.count), x)
    for one, same in zip(leaves(other(x)), leaves(model(x)), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-12, atol=1e-12 * float(same.detach().abs().max()))
    for name in [*channels.makers, *channels.readers]:
        numbers = [side[name] for side in (channels.makers, channels.readers) if name in side]
        one, same = (net.get_submodule(name)._parameters["weight"] for net in (other, model))
        assert torch.equal(one, same) == (not any(bool((part >= 0).any()) for part in numbers)), name
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    return channels


@pytest.mark.parametrize(
    "name, count",
    [  # channels behind each layer but the last, after folding; in the residual network those inside its blocks
        ("lenet5", 20 + 50 + 500),
        ("vgg(width=0.25)", 2 * 8 + 2 * 16 + 2 * 32 + 2 * 56),
        ("resnet", 3 * 16 + 3 * 32 + 3 * 64),
        ("mobilenet(width=0.25)", 8 + 8 + 16 + 16 + 32 * 4 + 64 * 6 + 64 + 128 + 128 + 128 - 64),
        ("inception", None),
    ],
)
def test_scaled_channels_change_nothing_in_networks_with_folded_batch_norms(name, count):
    model = lively(build(name, seed=0))
    side = 28 if name == "lenet5" else 32
    x = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(2))
    channels = assert_unchanged(fold_batch_norm(model), x)
    assert count is None or channels.count == count
    assert_unchanged(model, x)  # with batch norms, which are scaled themselves


def test_scaled_channels_change_nothing_in_a_transformer_and_what_stays_is_named():
    channels = assert_unchanged(transformer(), torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(2)))
    assert channels.count == 5 * 16
    reads = {name for name, numbers in channels.readers.items() if bool((numbers >= 0).all())}
    assert reads == {f"blocks.{i}.{name}" for i in (0, 1) for name in ("query", "key", "value", "fc1")} | {"head"}
    reasons = channels.obstacles
    assert "a network's input" in reasons["patch"] and "'blocks.0.gelu', a GELU" in reasons["blocks.0.fc2"]
    assert "scaled_dot_product_attention" in reasons["blocks.1.out"] and len(reasons) == 5


PASSING = {
    "pooled, flattened and viewed": (
        lambda net, x: net.fc(F.max_pool2d(net.a(x).relu(), 2).flatten(1).view(-1, 72)),
        {"a": conv(3, 8), "fc": nn.Linear(72, 4)},
        8,
    ),
    "padded with zeros, averaged, leaky": (
        lambda net, x: net.fc(head(net.b(F.avg_pool2d(F.pad(F.leaky_relu(net.a(x)), (1, 1)), 3, 1)))),
        {"a": conv(3, 8), "b": conv(8, 5), "fc": nn.Linear(5, 4)},
        13,
    ),
    "with a slope for each channel": (
        lambda net, x: net.b(net.prelu(net.a(x))),
        {"a": conv(3, 8), "prelu": nn.PReLU(8), "b": conv(8, 5)},
        8,
    ),
    "grouped and depthwise": (
        lambda net, x: net.d(net.c(net.b(net.a(x).relu()).relu()).relu()),
        {"a": conv(3, 8), "b": conv(8, 12, groups=4), "c": conv(12, 12, groups=12), "d": conv(12, 4, groups=2)},
        8 + 12 + 12,
    ),
    "cut in pieces that are shuffled": (
        lambda net, x: _pieces(net, net.a(x).relu()),
        {"a": conv(3, 8), "b": conv(4, 5), "c": conv(5, 5)},
        7,  # nothing reads the fourth
    ),
    "two readers": (
        lambda net, x: _both(net, F.relu(net.a(x))),
        {"a": conv(3, 8), "b": conv(8, 5), "c": conv(8, 5)},
        8,
    ),
    "joined": (
        lambda net, x: net.c(torch.cat([net.a(x).relu(), x, net.b(x)], 1)),
        {"a": conv(3, 8), "b": conv(3, 5), "c": conv(16, 4)},
        13,
    ),
    "a layer that is called twice": (
        lambda net, x: net.c(net.b(net.b(net.a(x).relu()).relu()).relu()),
        {"a": conv(3, 8), "b": conv(8, 8), "c": conv(8, 4)},
        8,
    ),
    "norms of several kinds": (
        lambda net, x: net.d(net.rms(net.c(net.group(net.b(net.batch(x).relu())).mean((2, 3))))),
        {
            "batch": nn.BatchNorm2d(3),
            "b": conv(3, 8),
            "group": nn.GroupNorm(2, 8),
            "c": nn.Linear(8, 6),
            "rms": nn.RMSNorm(6),
            "d": nn.Linear(6, 4),
        },
        3 + 8 + 6,
    ),
}


def _pieces(net: Network, y: torch.Tensor) -> torch.Tensor:
    first, second = y.chunk(2, 1)
    return net.b(second) + net.c(torch.cat([first[:, 1:3], y[:, :3]], 1))


def _both(net: Network, y: torch.Tensor) -> torch.Tensor:
    return net.b(y) + net.c(F.max_pool2d(y, 3, 1, 1))


@pytest.mark.parametrize("name", PASSING)
def test_scales_pass_where_nothing_but_positively_homogeneous_operations_stand_between(name):
    forward, layers, count = PASSING[name]
    assert assert_unchanged(Network(forward, **layers), images()).count == count


def test_masked_layers_are_scaled_and_their_pruned_weights_stay_zero():
    model = Network(lambda net, x: net.b(net.a(x).relu()), a=conv(3, 8), b=conv(8, 5))
    mask = torch.rand(5, 8, 3, 3, generator=torch.Generator().manual_seed(3)) > 0.5
    model.b = Masked(masked(model.b).geometry, model.b.weight, mask, model.b.bias)
    assert assert_unchanged(model, images()).count == 8
    channels = found(model, images())
    other = rescaled(model, channels, spread_out(8), images())
    assert bool((other.b.dense()[~mask] == 0).all()) and torch.equal(other.b.mask, mask)


class Fickle(nn.Module):
    """Stands for a module of the user's that is not positively homogeneous."""

    def forward(self, x):
        return x * x


def two(between, **layers):
    """A network in which `between` stands between the layers a and b."""
    return lambda: Network(lambda net, x: net.b(between(net, net.a(x))), a=conv(3, 8), b=conv(8, 5), **layers)


def own_forward():
    model = two(lambda net, y: net.relu(y), relu=nn.ReLU())()
    model.relu.forward = lambda x: x + 1
    return model


def tied():
    model = two(lambda net, y: net.c(y.relu()), c=conv(8, 8), d=conv(8, 8))()
    model.d.weight = model.c.weight
    return model


STAYING = {
    "gelu": (two(lambda net, y: F.gelu(y)), "'gelu' in the network's own forward"),
    "sigmoid": (two(lambda net, y: y.sigmoid()), "the result of 'sigmoid'"),
    "clipped at six": (two(lambda net, y: F.relu6(y)), "'relu6'"),
    "an offset": (two(lambda net, y: y.relu() + 1), "'add'"),
    "a shortcut": (two(lambda net, y: y + net.c(y), c=conv(8, 8)), "'add'"),
    "padded with ones": (two(lambda net, y: F.pad(y, (1, 1), value=1.0)), "'pad'"),
    "constant padding": (two(lambda net, y: net.pad(y), pad=nn.ConstantPad2d(1, 2.0)), "a ConstantPad2d"),
    "a module of the user's": (two(lambda net, y: net.square(y), square=Fickle()), "'mul' in module 'square'"),
    "a forward of its own": (own_forward, "the result of 'relu', a ReLU"),
    "also the output": (
        lambda: Network(lambda net, x: (lambda y: (net.b(y), y))(net.a(x)), a=conv(3, 8), b=conv(8, 5)),
        "its channels are the network's output",
    ),
    "a shared weight": (tied, "'c', a Conv2d that shares a parameter with 'd'"),
    "a weight that is read": (
        lambda: Network(lambda net, x: net.b(net.a(x)) + net.b.weight.sum(), a=conv(3, 8), b=conv(8, 5)),
        "read by 'b', a Conv2d that has tensors that the network also reads directly",
    ),
    "also normalized": (
        lambda: Network(
            lambda net, x: (lambda y: net.b(y) + net.c(net.norm(y)))(net.a(x)),
            a=conv(3, 8),
            b=conv(8, 5),
            c=conv(8, 5),
            norm=nn.GroupNorm(2, 8),
        ),
        "read by 'norm', a GroupNorm that does not pass their scales on",
    ),
    "a transposed convolution": (
        two(lambda net, y: net.up(y), up=nn.ConvTranspose2d(8, 8, 2)),
        "made by 'up', a ConvTranspose2d that stays as it is",
    ),
    "a norm without factors": (
        two(lambda net, y: net.norm(y), norm=nn.GroupNorm(2, 8, affine=False)),
        "made by 'norm', a GroupNorm that has no factor for each channel",
    ),
    "a norm over several dimensions": (
        two(lambda net, y: net.norm(y), norm=nn.LayerNorm((8, 6, 6))),
        "made by 'norm', a LayerNorm that has no factor for each channel",
    ),
}


@pytest.mark.parametrize("name", STAYING)
def test_channels_keep_their_scale_where_anything_else_reads_or_makes_them(name):
    make, why = STAYING[name]
    model = make()
    channels = found(model, images())
    assert bool((channels.readers["b"] < 0).all())
    assert channels.obstacles["b"].startswith("its inputs keep their scale: ") and why in channels.obstacles["b"]
    if name != "a forward of its own":  # which the float64 copy of the comparison runs on other layers
        assert_unchanged(model, images())


def test_layers_that_must_stay_keep_the_scales_on_both_sides():
    model = Network(lambda net, x: net.c(net.b(net.a(x).relu()).relu()), a=conv(3, 8), b=conv(8, 6), c=conv(6, 4))
    channels = found(model, images(), without=("b",))
    assert channels.count == 0 and set(channels.obstacles) == {"a", "c"}
    assert "made by 'b', a Conv2d that stays as it is" in channels.obstacles["c"]


def test_some_inputs_can_keep_their_scale_alone():
    model = Network(PASSING["joined"][0], **PASSING["joined"][1])
    channels = found(model, images())
    assert (channels.readers["c"] < 0).nonzero().flatten().tolist() == [8, 9, 10]
    assert channels.obstacles["c"] == "3 of its 16 inputs keep their scale: they are a network's input"


def test_a_layer_that_is_not_called_is_named():
    model = two(lambda net, y: y, spare=conv(3, 3))()
    assert "does not call it as a separate layer" in found(model, images()).obstacles["spare"]


def test_networks_with_hooks_or_that_cannot_be_traced_are_refused():
    model = two(lambda net, y: y.relu())()
    handle = model.a.register_forward_hook(lambda layer, inputs, output: None)
    with pytest.raises(CompressionError, match="a has forward hooks"):
        found(model, images())
    handle.remove()
    model = two(lambda net, y: y if y.sum() > 0 else -y)()
    with pytest.raises(CompressionError, match="cannot be traced"):
        found(model, images())
    model = two(lambda net, y: y.relu() + 0 * net.calls.add_(1))()
    model.register_buffer("calls", torch.zeros(()))
    with pytest.raises(CompressionError, match="Network changes calls when it runs"):
        found(model, images())


def test_scaling_that_changes_the_outputs_is_refused():
    model = two(lambda net, y: y.relu())()
    right = found(model, images())
    wrong = Scalable(right.count, right.makers, {}, {})
    with pytest.raises(CompressionError, match="scaling channels of Network is not shown to change nothing: outputs"):
        rescaled(model, wrong, spread_out(right.count), images())


def test_types_frozen_parameters_and_shared_tensors_are_kept():
    model = Network(lambda net, x: net.c(net.b(net.a(x).relu()).sigmoid()), a=conv(3, 8), b=conv(8, 6), c=conv(6, 4))
    model.a.weight.requires_grad_(False)
    made = rescaled(model, found(model, images()), spread_out(8), images())
    assert made.a.weight.dtype == torch.float32 and not made.a.weight.requires_grad and made.b.weight.requires_grad
    assert torch.equal(made.b.bias, model.b.bias) and made.c.weight is not model.a.weight


def test_factors_and_maxima_by_input_channel_are_those_of_a_loop_over_the_weight():
    for groups in (1, 2, 4):
        layer = conv(8, 12, groups=groups).double()
        geometry = masked(layer).geometry
        values = torch.arange(1.0, 9.0, dtype=torch.float64)
        expected = layer.weight.detach().clone()
        largest = torch.zeros(8, dtype=torch.float64)
        for out in range(12):
            for place in range(8 // groups):
                channel = out // (12 // groups) * (8 // groups) + place
                largest[channel] = max(largest[channel], expected[out, place].abs().max())
                expected[out, place] *= values[channel]
        assert torch.equal(layer.weight.detach() * along_inputs(values, geometry), expected)
        assert torch.equal(largest_by_input(layer.weight, geometry), largest)
