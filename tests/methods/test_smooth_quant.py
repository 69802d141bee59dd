"""SmoothQuant: the formula against a loop, no change before the rounding, and the rescue of planted outliers."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys.transformer import FEATURES, plant_outliers, transformer

import compedu as ce
from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset
from compedu.explorers.main_knob import main_knob
from compedu.forms import ActivationQuantizer, Quantized
from compedu.methods.calibration import calibration_set
from compedu.methods.quantization.smooth_quant import smoothing_factors
from compedu.networks import build
from compedu.testing.networks import data as digits
from compedu.testing.networks import lively


def pictures(side: int = 28, dtype: torch.dtype = torch.float32) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 1, side, side, generator=generator, dtype=dtype)
    y = torch.arange(24) % 10
    return Dataset("random", x, y, x, y, x, y, classes=tuple("0123456789"))


def unrounded(model: nn.Module) -> nn.Module:
    """A copy of `model` with the weights and activations that were rounded, as they were before."""
    made = copy.deepcopy(model)
    for name, form in [(name, module) for name, module in made.named_modules() if isinstance(module, Quantized)]:
        around, _, last = name.rpartition(".")
        weight = form.latent.detach() * form.mask
        setattr(made.get_submodule(around), last, form.geometry.layer(weight, form.bias))
    return made


def reasons(model: nn.Module) -> dict[str, str]:
    return {skipped.layer: skipped.reason for skipped in compression_of(model).skipped}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_factors_of_a_layer_norm_and_the_layers_that_read_it_are_those_of_the_formula(alpha):
    model, data = transformer(), digits()
    small = ce.SmoothQuant(alpha=alpha, calibration_images=16)(model, data)
    images, _ = calibration_set(data, 16)
    seen = []
    handle = model.blocks[1].norm1.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    model(images)
    handle.remove()
    before, after = model.blocks[1], small.blocks[1]
    for j in range(FEATURES):
        x = max(abs(float(v)) for v in seen[0][:, :, j].flatten().tolist())
        w = max(
            abs(float(v)) for layer in (before.query, before.key, before.value) for v in layer.weight[:, j].tolist()
        )
        s = x**alpha / w ** (1 - alpha)
        assert after.norm1.weight[j].item() == pytest.approx(before.norm1.weight[j].item() / s, rel=1e-5)
        assert after.norm1.bias[j].item() == pytest.approx(before.norm1.bias[j].item() / s, rel=1e-5)
        for name in ("query", "key", "value"):
            one, same = (block.get_submodule(name) for block in (after, before))
            torch.testing.assert_close(one.latent[:, j], same.weight[:, j] * s)
    assert torch.equal(after.fc2.latent, before.fc2.weight) and torch.equal(after.out.latent, before.out.weight)


def test_at_both_ends_weights_or_activations_are_equal_and_in_between_both_come_closer():
    model, data = transformer(), digits()
    plant_outliers(model, 50)
    spread = {}
    for alpha in (0.0, 0.5, 1.0):
        small = unrounded(ce.SmoothQuant(alpha=alpha, activation_bits=0)(model, data))
        seen = []
        small.blocks[0].norm2.register_forward_hook(lambda layer, inputs, output, seen=seen: seen.append(output))
        small(calibration_set(data, 128)[0])
        largest = seen[0].abs().amax((0, 1)), small.blocks[0].fc1.weight.abs().amax(0)
        spread[alpha] = [(values.max() / values.min()).item() for values in largest]
    assert spread[0.0][1] == pytest.approx(1, rel=1e-5) and spread[1.0][0] == pytest.approx(1, rel=1e-5)
    assert spread[0.5] == pytest.approx([spread[0.5][0]] * 2, rel=1e-4), "at 0.5 both are the same products"
    assert 1.01 < spread[0.5][0] < min(spread[0.0][0], spread[1.0][1])


def test_rare_channels_have_the_factor_one():
    inputs = torch.tensor([0.0, 2.0, 0.0, 1e-30, 1e30, 8.0, torch.inf, torch.nan])
    weights = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.5, 1.0, 1.0])
    for alpha in (0.0, 0.5, 1.0):
        factors = smoothing_factors(inputs, weights, alpha)
        assert factors[[0, 1, 2]].tolist() == [1, 1, 1] and factors.isfinite().all()
        assert factors[5] == pytest.approx(8**alpha / 0.5 ** (1 - alpha))
    assert smoothing_factors(inputs, weights, 0.5)[[3, 4, 6, 7]].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "name, moved",
    [
        ("lenet5", 2 + 1), ("vgg(width=0.25)", 8), ("resnet", 9), ("mobilenet(width=0.25)", 17),
        ("inception(width=0.25)", 43), ("transformer", 9),
    ],
)  # fmt: skip
def test_before_the_rounding_nothing_changes(name, moved):
    """In float64; `moved` layers read scaled channels."""
    model = (transformer() if name == "transformer" else lively(build(name, seed=0))).double()
    data = pictures(28 if name in ("lenet5", "transformer") else 32, torch.float64)
    small = ce.SmoothQuant(alpha=0.7)(model, data)
    same = unrounded(small)(data.x_test)
    expected = model(data.x_test)
    torch.testing.assert_close(same, expected, rtol=1e-10, atol=1e-10 * float(expected.detach().abs().max()))
    plain = ce.LinearQuantization(activation_bits=8)(model, data)
    forms = {form: module for form, module in small.named_modules() if isinstance(module, Quantized)}
    scaled = [form for form, module in forms.items() if module.act.scale != plain.get_submodule(form).act.scale]
    assert len(scaled) == moved
    assert all(isinstance(module.act, ActivationQuantizer) and module.act.bits == 8 for module in forms.values())


def test_dead_channels_and_biases_stay_exact():
    model, data = build("lenet5", seed=0).double(), pictures(dtype=torch.float64)
    with torch.no_grad():
        model.conv1.weight[2] = 0
        model.conv1.bias[2] = -1  # never passes the ReLU
        model.conv2.weight[:, 5] = 0  # nothing reads it
    small = ce.SmoothQuant()(model, data)
    assert small.conv1.bias[2] == -1 and torch.equal(small.conv1.latent[5], model.conv1.weight[5])
    assert not torch.equal(small.conv1.bias[3], model.conv1.bias[3])
    torch.testing.assert_close(unrounded(small)(data.x_test), model(data.x_test), rtol=1e-10, atol=1e-12)


def test_pruned_layers_are_smoothed_and_stay_pruned():
    model, data = lively(build("mobilenet(width=0.25)", seed=0)).double(), pictures(32, torch.float64)
    pruned = ce.MagnitudePruning(sparsity=0.6)(model)
    small = ce.SmoothQuant()(pruned, data)
    expected = pruned(data.x_test).detach()
    torch.testing.assert_close(unrounded(small)(data.x_test), expected, rtol=1e-10, atol=1e-10 * float(expected.max()))
    for name, form in [(name, module) for name, module in small.named_modules() if isinstance(module, Quantized)]:
        assert torch.equal(form.mask, pruned.get_submodule(name).mask)


def test_a_layer_that_rounds_its_inputs_already_keeps_their_scale():
    model, data = ce.MagnitudePruning(sparsity=0.5)(build("lenet5", seed=0)), pictures()
    model.conv2.act = ActivationQuantizer.for_range(0, 1)
    small = ce.SmoothQuant()(model, data)
    assert torch.equal(small.conv1.latent, model.conv1.latent) and "made by 'conv2', a Masked" in reasons(small)["fc1"]


def error(method: ce.LinearQuantization, model: nn.Module) -> float:
    x = digits().x_validation
    with torch.no_grad():
        exact = model(x)
        return float((method(model, digits())(x) - exact).norm() / exact.norm())


@pytest.mark.parametrize("activation_bits, gain", [(8, 4), (4, 3)])
def test_planted_outliers_ruin_rounded_activations_and_smoothing_rescues_them(activation_bits, gain):
    """The planted network computes the same: only the range of its activations is fifty times as large."""
    plain, planted = transformer(), transformer()
    plant_outliers(planted, 50)
    x = digits().x_validation
    torch.testing.assert_close(planted(x), plain(x), rtol=1e-4, atol=1e-5)
    knobs = {"bits": 8, "activation_bits": activation_bits}
    linear, smooth = ce.LinearQuantization(**knobs), ce.SmoothQuant(**knobs)
    assert error(linear, planted) > gain * error(linear, plain)
    assert error(linear, planted) > gain * error(smooth, planted)
    assert error(smooth, planted) < 1.2 * error(smooth, plain), "to smoothing both networks are one and the same"


def test_what_is_not_smoothed_is_rounded_all_the_same_and_named_with_the_reason():
    small = ce.SmoothQuant()(transformer(), digits())
    assert all(isinstance(small.get_submodule(name), Quantized) for name in ("patch", "blocks.0.fc2", "head"))
    named = reasons(small)
    assert set(named) == {"patch", *(f"blocks.{i}.{name}" for i in (0, 1) for name in ("out", "fc2"))}
    assert named["patch"] == "its inputs keep their scale: they are a network's input"
    assert named["blocks.1.fc2"] == "its inputs keep their scale: they are the result of 'blocks.1.gelu', a GELU"


def test_layers_that_are_left_out_keep_their_weights_and_the_scales_beside_them():
    model, data = build("lenet5", seed=0), pictures()
    small = ce.SmoothQuant(layers="-conv2")(model, data)
    assert torch.equal(small.conv2.weight, model.conv2.weight) and torch.equal(small.conv2.bias, model.conv2.bias)
    assert torch.equal(small.conv1.latent, model.conv1.weight), "its only reader stays"
    assert not torch.equal(small.fc2.latent, model.fc2.weight)
    assert "made by 'conv2', a Conv2d that stays as it is" in reasons(small)["fc1"]
    by_layer = ce.SmoothQuant(bits={"conv*": 4, "fc2": 8})(model, data)
    assert torch.equal(by_layer.fc1.weight, model.fc1.weight) and torch.equal(by_layer.fc2.latent, model.fc2.weight)
    twice = ce.SmoothQuant()(ce.LinearQuantization(bits=3, layers="conv1")(model), data)
    assert "Quantized that stays" in reasons(twice)["conv2"]
    ratios = (twice.conv2.latent / model.conv2.weight).flatten(1)  # only its filters are divided, for fc1
    torch.testing.assert_close(ratios, ratios[:, :1].expand_as(ratios))


def test_a_layer_whose_hooks_or_attributes_may_depend_on_its_weight_is_not_scaled():
    model, data = build("lenet5", seed=0), pictures()
    model.conv2.note = "mine"
    small = ce.SmoothQuant()(model, data)
    assert torch.equal(small.conv2.latent, model.conv2.weight) and small.conv2.note == "mine"
    assert "made by 'conv2'" in reasons(small)["fc1"]
    model.relu1.register_forward_hook(lambda layer, inputs, output: None)
    small = ce.SmoothQuant()(model, data)
    assert (
        "no scales are moved" in reasons(small)["(network)"]
        and "relu1 has forward hooks" in reasons(small)["(network)"]
    )
    assert torch.equal(small.fc2.latent, model.fc2.weight)


class Decides(nn.Module):
    """A network that cannot be traced: it looks at its data."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(784, 12)
        self.last = nn.Linear(12, 10)

    def forward(self, x):
        y = self.first(x.flatten(1)).relu()
        return self.last(y if y.sum() > 0 else 2 * y)


def test_a_network_that_cannot_be_traced_is_rounded_unsmoothed_and_says_so():
    model = Decides().eval()
    small = ce.SmoothQuant()(model, pictures())
    assert torch.equal(small.first.latent, model.first.weight) and isinstance(small.last.act, ActivationQuantizer)
    assert list(reasons(small)) == ["(network)"] and "cannot be traced" in reasons(small)["(network)"]


def test_the_main_slider_is_the_strength_and_unknown_values_are_refused():
    assert main_knob(ce.SmoothQuant) == "alpha" and ce.SmoothQuant().needs == "calibration"
    assert (ce.SmoothQuant().bits, ce.SmoothQuant().activation_bits) == (8, 8)
    with pytest.raises(ValueError, match=r"SmoothQuant\.alpha must be a number from 0 to 1, got 1\.5"):
        ce.SmoothQuant(alpha=1.5)


def test_the_same_channels_serve_every_strength_and_new_weights(monkeypatch):
    """What is found in the graph does not depend on knobs or values; it is searched for once."""
    from compedu.methods.quantization import smooth_quant

    calls = []
    search = smooth_quant.scalable_channels
    monkeypatch.setattr(smooth_quant, "scalable_channels", lambda *given: calls.append(1) or search(*given))
    model, data = build("lenet5", seed=0), pictures()
    for alpha in (0.2, 0.4, 0.6):
        ce.SmoothQuant(alpha=alpha)(model, data)
    assert len(calls) == 1
    model.conv1 = nn.Conv2d(1, 24, 5)
    model.conv2 = nn.Conv2d(24, 50, 5)
    assert ce.SmoothQuant()(model, data).conv2.latent.shape[1] == 24 and len(calls) == 2


def test_half_precision_networks_are_smoothed():
    data = pictures()
    data = replace(data, **{f"x_{part}": data.split(part)[0].half() for part in ("train", "validation", "test")})
    model = transformer()
    plant_outliers(model, 50)
    model = model.half()
    small = ce.SmoothQuant()(model, data)
    assert small.blocks[0].norm1.weight.dtype == torch.float16
    exact = model(data.x_test).float()
    assert (small(data.x_test).float() - exact).norm() < 0.1 * exact.norm()
