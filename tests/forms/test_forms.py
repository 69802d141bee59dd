"""Laws of all forms: forward equals dense, stored parts rebuild the layer, gradients flow inside the form."""

import copy
import math

import pytest
import torch
from torch import nn

from compedu.errors import CompressionError
from compedu.forms import (
    FORMS,
    ActivationQuantizer,
    Adapted,
    BlockCirculant,
    BlockFloats,
    Codes,
    CReLUFilters,
    Factored,
    Floats,
    Geometry,
    Masked,
    Positions,
    Predicted,
    Quantized,
    Reordered,
    weight_of,
)
from compedu.forms.adapted import adapter_pair
from compedu.forms.number_formats import FORMATS
from compedu.methods.quantization.block_formats import block_scales

LAYERS = {
    "linear": (lambda: nn.Linear(13, 10), (4, 13)),
    "conv": (lambda: nn.Conv2d(6, 10, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 6, 11, 14)),
    "conv without bias": (lambda: nn.Conv2d(5, 8, 3, bias=False), (2, 5, 7, 9)),
    "square linear": (lambda: nn.Linear(13, 13, bias=False), (4, 13)),
    "square pointwise": (lambda: nn.Conv2d(6, 6, 1, bias=False), (2, 6, 4, 5)),
}
SQUARE = ("square linear", "square pointwise")  # what channels in another order can stand for


def masked(layer):
    return Masked(Geometry.of(layer), layer.weight, layer.weight > 0, layer.bias)


def coded(layer, bits=4):
    g = Geometry.of(layer)
    scale = layer.weight.detach().abs().amax(dim=tuple(range(1, len(g.shape))), keepdim=True) / max(
        2 ** (bits - 1) - 1, 1
    )
    return Quantized(g, layer.weight, scale, bits, layer.bias, layer.weight > -0.05)


def grouped(layer):
    g = Geometry.of(layer)
    rows = nn.functional.pad(layer.weight.detach().flatten(1), (0, -math.prod(g.shape[1:]) % 4))
    rows = rows.reshape(g.shape[0], -1, 4)
    low, high = rows.amin(2).clamp(max=0), rows.amax(2).clamp(min=0)
    scale = ((high - low) / 7).clamp(min=1e-6)
    kept = layer.weight > -0.05
    return Quantized(g, layer.weight, scale, 3, layer.bias, kept, zero_point=torch.round(-low / scale), group=4)


def in_blocks(layer, name="mxfp4"):
    g = Geometry.of(layer)
    scale = block_scales(layer.weight.detach(), g, FORMATS[name], 12)
    return BlockFloats(g, layer.weight, scale, name, 12, layer.bias, layer.weight > -0.05)


def circulant(layer):
    g = Geometry.of(layer)
    places = g.shape[2] * g.shape[3] if g.kind == "conv2d" else 1
    columns = torch.randn(-(-g.shape[0] // 4), -(-g.shape[1] // 4) * places, 4, dtype=layer.weight.dtype)
    return BlockCirculant(g, columns, layer.bias, flips=7)


def factored(layer):
    g = Geometry.of(layer)
    if g.kind == "linear":
        pair = nn.Linear(g.shape[1], 3, bias=False), nn.Linear(3, g.shape[0])
    else:
        (sv, sh), (pv, ph), (dv, dh), (kv, kh) = g.stride, g.padding, g.dilation, g.shape[2:]
        pair = (
            nn.Conv2d(g.shape[1], 3, (kv, 1), (sv, 1), (pv, 0), (dv, 1), bias=False),
            nn.Conv2d(3, g.shape[0], (1, kh), (1, sh), (0, ph), (1, dh)),
        )
    return Factored(g, *(layer.double() for layer in pair))


def crelu(layer):
    g, half = Geometry.of(layer), layer.weight.shape[0] // 2
    return CReLUFilters(g, layer.weight[:half], None if layer.bias is None else layer.bias[:half])


def reordered(layer):
    return Reordered(Geometry.of(layer), torch.randperm(len(layer.weight)), layer.weight.dtype)


def predicted(layer):
    g = Geometry.of(layer)
    grid = (13, 1) if g.kind == "linear" else None
    channels = 1 if g.kind == "linear" else g.shape[1]
    return Predicted(g, torch.randn(g.shape[0], channels, 4, dtype=torch.float64), layer.bias, 1.5, 1e-3, grid)


def adapted(layer):
    g = Geometry.of(layer)
    down, up = (one.layer(torch.randn(one.shape, dtype=torch.float64), None) for one in adapter_pair(g, 2))
    return Adapted(g, coded(layer), down, up, alpha=3.0)


MAKERS = [
    masked, coded, lambda layer: coded(layer, 1), grouped, in_blocks, lambda layer: in_blocks(layer, "nf4"), circulant,
    factored, predicted, adapted, crelu, reordered,
]  # fmt: skip
CASES = [
    pytest.param(make, kind, id=f"{index} {kind}")
    for index, make in enumerate(MAKERS)
    for kind in LAYERS
    if (make is reordered) == (kind in SQUARE) and not (make is crelu and kind == "linear")
]
TRAINED = [case for case in CASES if case.values[0] is not reordered]  # it has no parameters


def trained(form):
    return {name: value for name, value in form.named_parameters() if not name.startswith("base.")}


def example(make, kind):
    torch.manual_seed(3)
    layer, size = LAYERS[kind]
    return make(layer().double()), torch.randn(size, dtype=torch.float64)


@pytest.mark.parametrize("make, kind", CASES)
def test_forward_equals_the_dense_layer_on_quantized_input(make, kind):
    form, x = example(make, kind)
    expected = form.geometry.apply(x, form.dense(), form.dense_bias())
    assert form.dense().shape == form.geometry.shape
    torch.testing.assert_close(form(x), expected, rtol=1e-10, atol=1e-10)
    form.act = ActivationQuantizer.for_range(-1.0, 2.0)
    assert not torch.equal(form.act(x), x)
    torch.testing.assert_close(
        form(x), form.geometry.apply(form.act(x), form.dense(), form.dense_bias()), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("make, kind", CASES)
def test_a_form_has_what_networks_ask_of_the_layer_it_stands_for(make, kind):
    form, x = example(make, kind)
    torch.manual_seed(3)
    layer = LAYERS[kind][0]()
    asked = [
        name
        for name in (
            "in_features",
            "out_features",
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
            "transposed",
            "output_padding",
        )
        if hasattr(layer, name)
    ]
    linear = form.geometry.kind == "linear"
    assert len(asked) == (2 if linear else 10)
    assert {name: getattr(form, name) for name in asked} == {name: getattr(layer, name) for name in asked}
    assert not hasattr(form, "in_channels" if linear else "in_features")
    assert torch.equal(form(input=x), form(x))


@pytest.mark.parametrize("make, kind", TRAINED)
def test_the_weight_and_bias_of_a_form_are_what_it_means(make, kind):
    """Readers beside `forward` get the dense weight, differentiable: never latent weights, never an error."""
    form, x = example(make, kind)
    torch.testing.assert_close(form.geometry.apply(x, form.weight, form.bias), form(x), rtol=1e-10, atol=1e-10)
    assert (form.bias is None) == (form.dense_bias() is None)
    through, by_calling = (
        torch.autograd.grad(y.sin().sum(), trained(form).values())
        for y in (form.geometry.apply(x, form.weight, form.bias), form(x))
    )
    for one, other in zip(through, by_calling, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make, kind", CASES)
def test_stored_parts_rebuild_the_layer(make, kind):
    form, x = example(make, kind)
    parts = {name: part.tensor for name, part in form.stored().items()}
    again = type(form).restore(form.geometry, form.settings(), parts)
    for name in again.declared_layers(form.settings()):
        again.add_module(name, form.get_submodule(name))
    assert torch.equal(again(x), form(x))


@pytest.mark.parametrize("make, kind", CASES)
def test_stored_codes_and_positions_keep_their_ranges(make, kind):
    form, _ = example(make, kind)
    for part in form.stored().values():
        if isinstance(part, Codes):
            low = -(2 ** (part.bits - 1)) if part.signed else 0
            assert low <= part.tensor.min() and part.tensor.max() < low + 2**part.bits
        elif isinstance(part, Positions):
            assert (part.tensor.diff() > 0).all() and part.tensor.min() >= 0 and part.tensor.max() < part.size
        else:
            assert isinstance(part, Floats) and part.tensor.is_floating_point()


@pytest.mark.parametrize("make, kind", TRAINED)
def test_training_moves_every_parameter_and_stays_inside_the_form(make, kind):
    form, x = example(make, kind)
    before = {name: value.detach().clone() for name, value in trained(form).items()}
    optimizer = torch.optim.SGD(form.parameters(), lr=0.5)
    form(x).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in trained(form).items())
    torch.testing.assert_close(form(x), form.geometry.apply(x, form.dense(), form.dense_bias()), rtol=1e-9, atol=1e-9)
    if hasattr(form, "mask"):
        assert (form.dense()[~form.mask] == 0).all()


def test_the_circulant_weight_is_the_matrix_of_the_definition():
    from scipy.linalg import circulant as scipy_circulant

    column = torch.tensor([1.0, 2.0, 3.0, 4.0])
    form = BlockCirculant(Geometry("linear", (4, 4)), column.view(1, 1, 4), None)
    assert torch.equal(form.dense(), torch.from_numpy(scipy_circulant(column.numpy())))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_circulant_layers_run_in_half_precision(dtype):
    form = circulant(nn.Linear(13, 10)).to(dtype)
    x = torch.randn(4, 13).to(dtype)
    y = form(x)
    assert y.dtype == dtype
    torch.testing.assert_close(
        y.float(), nn.functional.linear(x.float(), form.dense().float(), form.bias.float()), rtol=0.02, atol=0.02
    )


def test_sign_flips_of_another_hash_are_not_taken_for_ours():
    form = circulant(nn.Linear(13, 10))
    parts, settings = {"columns": form.columns.detach()}, form.settings()
    with pytest.raises(ValueError, match="hash version 0; this compedu has version 1"):
        BlockCirculant.restore(form.geometry, settings | {"hash": 0}, parts)
    without = BlockCirculant.restore(form.geometry, settings | {"hash": 0, "flips": 0}, parts)
    assert torch.equal(without.signs, torch.ones(13))


def test_circulant_gradients_equal_those_of_the_dense_product():
    form, x = example(circulant, "linear")
    x.requires_grad_()
    fast = torch.autograd.grad(form(x).sin().sum(), [x, form.columns])
    slow = torch.autograd.grad(form.geometry.apply(x, form.dense(), form.bias).sin().sum(), [x, form.columns])
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_activation_codes_agree_with_torch_fake_quantization():
    x = torch.randn(1000) * 3
    quantizer = ActivationQuantizer.for_range(-2.0, 3.0, bits=5)
    expected = torch.fake_quantize_per_tensor_affine(x, quantizer.scale, quantizer.zero_point, 0, 31)
    torch.testing.assert_close(quantizer(x), expected)
    assert len(torch.unique(quantizer(x))) == 32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("high", [4e-6, 1.0, 3e4])
def test_activations_are_rounded_to_the_same_codes_in_every_precision(dtype, high):
    quantizer = ActivationQuantizer.for_range(0.0, high)
    x = torch.linspace(0, high, 99).to(dtype)
    wanted = quantizer(x.double())
    assert torch.equal(quantizer.codes(x), quantizer.codes(x.double()).float())
    assert quantizer(x).dtype == dtype and torch.equal(quantizer(x), wanted.to(dtype))
    quantizer.to(dtype)
    assert torch.equal(quantizer(x), wanted.to(dtype))


def test_a_network_made_half_afterwards_keeps_its_scales():
    layer = coded(nn.Linear(13, 10).float())
    layer.scale *= 1e-5
    layer.act = ActivationQuantizer.for_range(0.0, 4e-6)
    small, x = copy.deepcopy(layer).half(), 4e-6 * torch.rand(3, 13)
    assert small.scale.dtype == small.act.scale.dtype == torch.float32
    assert torch.equal(small.scale, layer.scale) and torch.equal(small.act.scale, layer.act.scale)
    assert small(x.half()).isfinite().all()


@pytest.mark.parametrize("low, high", [(0.0, math.inf), (-math.inf, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_a_range_without_end_has_no_grid(low, high):
    with pytest.raises(CompressionError, match="have no grid: its ends must be finite"):
        ActivationQuantizer.for_range(low, high)


@pytest.mark.parametrize("high", [1e-45, 1e-40, 1e-36, 3.4e38])
def test_a_grid_at_the_ends_of_single_precision_is_one(high):
    quantizer = ActivationQuantizer.for_range(0.0, high)
    y = quantizer(torch.tensor([0.0, high / 2, high]))
    assert quantizer.scale > 0 and y.isfinite().all() and y[0] == 0 and (y.diff() >= 0).all()


def test_every_listed_form_is_tested():
    assert {type(example(*case.values)[0]) for case in CASES} == set(FORMS)


def test_every_form_is_listed_once():
    assert len(set(FORMS)) == len(FORMS) == 9
    assert weight_of(nn.Linear(2, 3)).shape == (3, 2)


@pytest.mark.parametrize("make, kind", CASES)
def test_an_input_with_too_few_channels_is_refused(make, kind):
    form, x = example(make, kind)
    with pytest.raises(RuntimeError):
        form(x[:, :1])


def test_linear_forms_take_any_leading_dimensions():
    for make in MAKERS[:-2]:
        form, x = example(make, "linear")
        torch.testing.assert_close(form(x[None, :, None]), form(x)[None, :, None])
