"""Moments of what layers read: against numpy, in order of execution, from the compressed prefix, in bounded memory."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys.least_squares_rounding import LeastSquaresRounding

from compedu.datasets.digits import digits
from compedu.errors import CompressionError, Skip
from compedu.forms import Geometry, Masked
from compedu.methods import input_moments as module
from compedu.methods.input_moments import MomentSum, in_order_of_execution, input_columns, input_moments
from compedu.methods.quantization.linear import LinearQuantization
from compedu.reproducible import seeded

DATA = digits(size=8).shortened(train=70, validation=8, test=8)
CONVOLUTIONS = [
    nn.Conv2d(6, 4, 3), nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 2)), nn.Conv2d(6, 6, 3, padding=1, groups=6),
    nn.Conv2d(6, 8, 2, dilation=2, groups=2), nn.Conv2d(6, 2, 1),
]  # fmt: skip


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def vectors(geometry, x):
    """What the rows of each group of a weight meet, by loops in numpy: (groups, positions of all images, n)."""
    if geometry.kind == "linear":
        return x.double().numpy().reshape(1, -1, x.shape[-1])
    (top, left), (down, right), (high, wide) = geometry.padding, geometry.stride, geometry.shape[2:]
    x = np.pad(x.double().numpy(), ((0, 0), (0, 0), (top, top), (left, left)))
    spread = geometry.dilation
    rows = range(0, x.shape[2] - (high - 1) * spread[0], down)
    columns = range(0, x.shape[3] - (wide - 1) * spread[1], right)
    groups = np.split(x, geometry.groups, axis=1)
    return np.stack([
        np.concatenate([
            group[:, :, i : i + (high - 1) * spread[0] + 1 : spread[0], j : j + (wide - 1) * spread[1] + 1 : spread[1]]
            .reshape(len(x), -1)
            for i, j in itertools.product(rows, columns)
        ])
        for group in groups
    ])  # fmt: skip


@pytest.mark.parametrize("layer", [nn.Linear(6, 3), *CONVOLUTIONS], ids=lambda layer: layer.extra_repr())
def test_moments_equal_those_of_numpy(layer):
    geometry, x = Geometry.of(layer), random(5, 6) if isinstance(layer, nn.Linear) else random(5, 6, 7, 8)
    total = MomentSum(geometry)
    for part in x.split(2):
        total.add(part)
    moments, read = total.moments(), vectors(geometry, x)
    assert moments.count == read.shape[1] and moments.second.dtype == torch.float64
    np.testing.assert_allclose(moments.mean.numpy(), read.mean(1), atol=1e-7)
    np.testing.assert_allclose(moments.second.numpy(), read.swapaxes(1, 2) @ read / read.shape[1], atol=1e-6)


@pytest.mark.parametrize("layer", [nn.Linear(6, 3), *CONVOLUTIONS], ids=lambda layer: layer.extra_repr())
def test_the_error_of_a_changed_kernel_is_what_the_layer_gives_differently(layer):
    geometry, x = Geometry.of(layer), random(5, 6) if isinstance(layer, nn.Linear) else random(5, 6, 7, 8)
    total, change = MomentSum(geometry), random(*layer.weight.shape, seed=1)
    total.add(x)
    differs = geometry.apply(x.double(), change.double(), None)
    positions = differs.numel() / layer.weight.shape[0]
    assert total.moments().output_error(change) == pytest.approx(float(differs.square().sum()) / positions, rel=1e-5)


def test_tokens_are_positions():
    total, x = MomentSum(Geometry.of(nn.Linear(6, 3))), random(2, 5, 6)
    total.add(x)
    assert total.count == 10 and input_columns(total.geometry, x).shape == (2, 1, 6, 5)
    torch.testing.assert_close(total.moments().second[0], (x.flatten(0, 1).T @ x.flatten(0, 1)).double() / 10)


class Crossed(nn.Module):
    """Layers that run in another order than they stand in, one twice, one for few images alone, one never."""

    def __init__(self):
        super().__init__()
        self.last, self.never, self.rare = nn.Linear(8, 10), nn.Linear(2, 2), nn.Linear(8, 8)
        self.twice, self.first = nn.Linear(8, 8), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1)).relu()
        h = self.twice(self.twice(h).relu()).relu()
        if len(x) < 10:  # the last images of a calibration set
            h = h + self.rare(h)
        return self.last(h)


def layers_of(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, Masked))}


def test_layers_come_in_order_of_execution_and_those_that_no_image_reaches_last():
    model = Crossed().eval()
    assert list(in_order_of_execution(model, layers_of(model), DATA, 70)) == ["first", "twice", "last", "rare", "never"]
    assert list(in_order_of_execution(model, layers_of(model), DATA, 64)) == ["first", "twice", "last", "never", "rare"]


def test_all_calls_of_a_layer_count_and_a_layer_without_calls_is_skipped_by_name():
    model = Crossed().eval()
    assert input_moments(model, "twice", model.twice, DATA, 70).count == 140
    assert input_moments(model, "rare", model.rare, DATA, 70).count == 6
    with pytest.raises(Skip, match="^no calibration image reaches it$"):
        input_moments(model, "never", model.never, DATA, 70)


class OneByOne(nn.Module):
    """Layers that stand in the opposite order of that in which they run."""

    def __init__(self):
        super().__init__()
        with seeded(1):
            self.last, self.second, self.first = nn.Linear(8, 10), nn.Linear(8, 8), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x.flatten(1)).relu()).relu())


def test_each_layer_sees_what_the_finished_network_gives_it():
    seen = {}

    class Watched(LeastSquaresRounding):
        def compress_calibrated(self, name, layer, moments):
            seen[name] = moments
            return super().compress_calibrated(name, layer, moments)

    model = OneByOne().eval()
    small = Watched(bits=2, calibration_images=70)(model, DATA)
    assert list(seen) == ["first", "second", "last"]
    for name, moments in seen.items():
        after, before = (input_moments(net, name, net.get_submodule(name), DATA, 70) for net in (small, model))
        torch.testing.assert_close(moments.second, after.second)
        assert torch.allclose(moments.second, before.second) == (name == "first")


def test_a_form_is_asked_for_what_its_kernel_reads():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    rounded = LinearQuantization(bits=8, activation_bits=2)(model, DATA)
    moments = input_moments(rounded, "1", rounded[1], DATA, 70)
    x = rounded[1].act(DATA.x_train.flatten(1)).double()
    torch.testing.assert_close(moments.second[0], x.T @ x / 70)
    assert len(x.unique()) <= 4


def test_memory_is_bounded_whatever_the_images(monkeypatch):
    layer = nn.Conv2d(1, 4, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).eval()
    whole = input_moments(model, "0", layer, DATA, 70)
    largest = []

    def watched(geometry, read):
        largest.append(input_columns(geometry, read).numel())
        return input_columns(geometry, read)

    monkeypatch.setattr(module, "input_columns", watched)
    monkeypatch.setattr(module, "COLUMNS", 2000)
    parts = input_moments(model, "0", layer, DATA, 70)
    assert max(largest) <= 2000 and len(largest) == 22 + 2
    assert parts.count == whole.count == 70 * 64
    torch.testing.assert_close(parts.second, whole.second)
    monkeypatch.setattr(module, "LARGEST", 600)
    with pytest.raises(Skip, match="the moments of its inputs would take 0 MiB, more than 0"):
        input_moments(model, "0", layer, DATA, 70)


def test_inputs_that_are_not_finite_are_refused_by_name():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10)).eval()
    with torch.no_grad():
        model[1].bias.fill_(torch.inf)
    with pytest.raises(CompressionError, match="layer '2' reads values that are not finite, or too large .* 'digits"):
        input_moments(model, "2", model[2], DATA, 16)
