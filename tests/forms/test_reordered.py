"""Channels in another order: a permutation that multiplies nothing, alone, as a factor, in files and deployed."""

import pytest
import torch
from torch import nn

import compedu as ce
from compedu import files
from compedu.deployment import deploy
from compedu.deployment.integer_chain import Call, On
from compedu.errors import CompressionError
from compedu.forms import Factored, Geometry, Reordered
from compedu.forms.reordered import order_bits
from compedu.graph import Channels
from compedu.methods import compression_of
from compedu.metrics.costs import macs, parameters
from compedu.testing.networks import data, plain

ORDER = torch.tensor([3, 0, 4, 1, 2])


def pointwise(out: int, inside: int) -> Geometry:
    return Geometry("conv2d", (out, inside, 1, 1))


def chained(seed: int = 0) -> Factored:
    """A convolution as a pointwise one, an order, one in groups, and an order."""
    torch.manual_seed(seed)
    g = Geometry("conv2d", (6, 5, 3, 3), (2, 1), (1, 0))
    return Factored(
        g, Reordered(pointwise(5, 5), ORDER), nn.Conv2d(5, 4, 1, bias=False),
        Reordered(pointwise(4, 4), torch.tensor([2, 0, 3, 1])), nn.Conv2d(4, 6, 3, (2, 1), (1, 0), groups=2),
        Reordered(pointwise(6, 6), torch.tensor([5, 1, 0, 2, 4, 3])),
    ).eval()  # fmt: skip


def network() -> nn.Module:
    return nn.Sequential(chained(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


def filled() -> nn.Module:
    torch.manual_seed(1)
    model = network()
    model(torch.randn(1, 5, 9, 9))
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_output_i_is_the_input_that_the_order_names_bit_for_bit(dtype):
    x = torch.randn(2, 5, 3, 4).to(dtype)
    form = Reordered(pointwise(5, 5), ORDER, dtype)
    assert torch.equal(form(x), torch.stack([x[:, j] for j in ORDER.tolist()], 1))
    rows = Reordered(Geometry("linear", (5, 5)), ORDER, dtype)
    assert torch.equal(rows(x[..., 0].mT), x[..., 0].mT[..., ORDER])
    assert torch.equal(rows(x[0, :, 0, 0]), x[0, ORDER, 0, 0])
    assert form.dense().dtype == dtype and rows.dense().tolist() == torch.eye(5)[ORDER].tolist()


def test_the_dense_weight_follows_the_network_into_another_precision():
    form = chained()
    for made in (form.double(), form.half(), form.float()):
        assert made.dense().dtype == made.get_submodule("second").weight.dtype
        assert all(factor.order.dtype == torch.int64 for factor in made.factors if isinstance(factor, Reordered))


@pytest.mark.parametrize("geometry", [
    pointwise(4, 5), Geometry("conv2d", (5, 5, 3, 3)), Geometry("linear", (5, 4)),
    Geometry("conv2d", (5, 5, 1, 1), (2, 1)), Geometry("conv2d", (5, 5, 1, 1), padding=(0, 1)),
    Geometry("conv2d", (5, 1, 1, 1), groups=5),
], ids=str)  # fmt: skip
def test_a_geometry_without_a_permutation_matrix_is_refused(geometry):
    with pytest.raises(ValueError, match="has no permutation matrix as its weight"):
        Reordered(geometry, ORDER)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 4, 5], [-1, 0, 1, 2, 3], [[0, 1, 2, 3, 4]]])
def test_an_order_that_leaves_a_channel_out_is_refused(order):
    with pytest.raises(ValueError, match="an order that is not one of 5 channels"):
        Reordered(pointwise(5, 5), torch.tensor(order))


def test_another_number_of_channels_is_refused():
    for shape in ((1, 4, 2, 2), (1, 6, 2, 2)):
        with pytest.raises(RuntimeError, match="5 channels are reordered, got an input of shape"):
            Reordered(pointwise(5, 5), ORDER)(torch.zeros(shape))


# As a factor


def test_a_chain_with_orders_equals_its_dense_layer_built_channel_by_channel():
    form = chained().double()
    mixing, filters = (form.get_submodule(name).weight for name in ("second", "fourth"))
    inner, last = (form.get_submodule(name).order.tolist() for name in ("third", "fifth"))
    expected = torch.zeros(6, 5, 3, 3, dtype=torch.float64)
    for n in range(6):
        made = last[n]  # the output of the grouped convolution that output n is
        for place in range(2):
            read = inner[2 * (made // 3) + place]  # the output of the pointwise convolution that it reads there
            for c in range(5):
                expected[n, ORDER[c]] += mixing[read, c, 0, 0] * filters[made, place]
    torch.testing.assert_close(form.dense(), expected)
    x = torch.randn(2, 5, 8, 9, dtype=torch.float64)
    bias = form.get_submodule("fourth").bias[last]
    torch.testing.assert_close(form.bias, bias)
    torch.testing.assert_close(form(x), nn.functional.conv2d(x, expected, bias, (2, 1), (1, 0)))


def test_an_order_counts_as_no_rank_no_product_and_no_number():
    form = chained()
    weights = 4 * 5 + 6 * 2 * 9
    assert (form.ranks, form.rank, form.macs(7), form.free_numbers()) == ((4,), 4, 7 * weights, weights)
    model = nn.Sequential(form)
    assert parameters(model) == {"0": weights + 6}
    counted = macs(nn.Sequential(chained(), nn.Flatten(), nn.Linear(6 * 4 * 6, 10)), images()).layers
    assert counted["0"] == 4 * 5 * 64 + 6 * 2 * 9 * 24


def images():
    x = torch.randn(4, 5, 8, 8)
    y = torch.arange(4)
    return ce.datasets.Dataset("pictures", x, y, x, y, x, y, tuple("0123456789"))


def test_a_chain_of_orders_alone_has_the_full_rank():
    twice = Factored(pointwise(5, 5), Reordered(pointwise(5, 5), ORDER), Reordered(pointwise(5, 5), ORDER))
    assert (twice.ranks, twice.rank) == ((), 5)


# What further methods do with it


@pytest.mark.parametrize("method", [
    ce.MagnitudePruning(sparsity=0.5), ce.LinearQuantization(bits=4), ce.BlockFormats(block=4), ce.TruncatedSVD(rank=1),
], ids=repr)  # fmt: skip
def test_methods_leave_it_by_name_and_compress_the_layers_beside_it(method):
    model = filled()
    made = method(model)
    reasons = {skipped.layer: skipped.reason for skipped in compression_of(made).skipped}
    for name in ("0.first", "0.third", "0.fifth"):
        assert reasons[name] == "is already compressed (Reordered): it only moves channels and has no weights"
        assert torch.equal(made.get_submodule(name).order, model.get_submodule(name).order)
    with pytest.raises(CompressionError, match=r"nothing.*0\.third.*: is already compressed \(Reordered\)"):
        type(method)(layers="0.third")(model)


def test_it_is_neither_the_first_nor_the_last_layer():
    pruned = ce.MagnitudePruning(sparsity=0.5, layers="first")(filled())
    assert [name for name, layer in pruned.named_modules() if type(layer).__name__ == "Masked"] == ["0.second"]


def test_channels_that_it_moves_are_not_removed():
    model = ce.BiclusteredSVD(rank=0.5, layers="conv2")(plain())
    channels = Channels(model, data().example)
    assert "conv2" not in {group.name for group in channels.groups}
    assert "already compressed (Factored)" in channels.why_left_out("conv1")
    small = ce.FilterPruning(sparsity=0.5)(model)
    assert small.fc1.weight.shape[0] < model.fc1.weight.shape[0]
    assert torch.equal(small.conv2.dense(), model.conv2.dense())


# Files


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("coding", files.CODINGS)
def test_a_file_holds_the_order_in_the_bits_that_it_takes(coding, dtype):
    model = filled().to(dtype)
    read = files.from_bytes(files.model_bytes(model, coding), into=model)
    again = read[0]
    assert torch.equal(again.dense(), model[0].dense()) and again.dense().dtype == dtype
    rows = {row.layer: row for row in files.map_of(files.model_bytes(model)).rows if row.part == "order"}
    assert {name: (row.role, row.numbers, row.encoding, row.bytes) for name, row in rows.items()} == {
        "0.first": ("indices", 5, "3-bit codes, packed", 2), "0.third": ("indices", 4, "2-bit codes, packed", 1),
        "0.fifth": ("indices", 6, "3-bit codes, packed", 3),
    }  # fmt: skip


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 256, 257])
def test_the_largest_number_fits_into_the_bits(channels):
    bits = order_bits(channels)
    assert channels - 1 < 2**bits and (bits == 1 or channels - 1 >= 2 ** (bits - 1))
    model = nn.Sequential(Reordered(pointwise(channels, channels), torch.arange(channels).flip(0)))
    assert torch.equal(files.from_bytes(files.model_bytes(model), into=model)[0].order, model[0].order)


# Deployed


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_a_deployed_chain_moves_channels_and_names_it(last):
    model = filled()
    x = torch.randn(3, 5, 9, 9)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    deployed = deploy(model, x)
    assert deployed.kernels["0"] == "five layers in sequence"
    assert {deployed.kernels[f"0.{name}"] for name in ("first", "third", "fifth")} == {"channels reordered"}
    torch.testing.assert_close(deployed(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits, activation_bits", [(8, 8), (4, 3)])
def test_codes_stay_codes_where_channels_are_moved(bits, activation_bits):
    """The integers that one product returns are those that the next one takes: no step in between is in float32."""
    model = ce.BiclusteredSVD(rank=0.75, allow_larger=True)(plain())
    small = ce.LinearQuantization(bits=bits, activation_bits=activation_bits)(model, data())
    deployed = deploy(small, data().example)
    moved = {step.name: step.on for step in deployed.plan.steps if isinstance(step, Call) and "conv2" in step.name}
    assert moved == dict.fromkeys(("conv2.first", "conv2.fourth", "conv2.sixth"), On.CODES)
    x = data().x_validation
    with torch.no_grad():
        expected = small(x)
    assert (deployed(x) - expected).abs().max() < 0.03 * expected.std()


def test_an_order_that_rounds_its_inputs_runs_as_its_dense_layer():
    form = Reordered(pointwise(5, 5), ORDER)
    form.act = ce.forms.ActivationQuantizer.for_range(-1.0, 1.0, 4)
    model = nn.Sequential(form).eval()
    x = torch.randn(2, 5, 3, 3)
    deployed = deploy(model, x)
    assert deployed.kernels == {"0": "float32 dense, decoded from Reordered, inputs rounded in float32"}
    torch.testing.assert_close(deployed(x), form(x))
