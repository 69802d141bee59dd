"""Linear quantization: codes against torch's own, scales against brute force, calibration against hand values."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compedu import files
from compedu.datasets import DATASETS
from compedu.datasets.dataset import Dataset
from compedu.deployment import deploy
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import ActivationQuantizer, Factored, Geometry, Quantized
from compedu.methods import LinearQuantization, MagnitudePruning
from compedu.methods.quantization.shared.calibration import covering_range, input_ranges
from compedu.methods.quantization.shared.scales import best_scale, largest_scale, sign_scale, squared_error
from compedu.networks import build
from compedu.networks.shipped import trained


def pictures(count=40, channels=1, size=28, seed=0):
    """A data set of random pictures, ten classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, size, size, generator=generator)
    y = torch.arange(count) % 10
    return Dataset("random", x, y, x, y, x, y, classes=tuple("0123456789"))


def forms(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Quantized)}


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("scales", ["channel", "tensor"])
@pytest.mark.parametrize("clipping", ["max", "mse"])
def test_codes_and_kernels_agree_with_torch_fake_quantization(bits, scales, clipping):
    model = build("lenet5")
    small = LinearQuantization(bits=bits, scales=scales, clipping=clipping)(model)
    top = 2 ** (bits - 1) - 1
    for name, form in forms(small).items():
        kernel = model.get_submodule(name).weight.detach()
        if scales == "tensor":
            assert form.scale.shape == ()
            zero = torch.tensor(0, dtype=torch.int32)
            expected = torch.fake_quantize_per_tensor_affine(kernel, form.scale, zero, -top, top)
        else:
            assert form.scale.shape == Geometry.of(form).per_output
            scale, zeros = form.scale.reshape(-1), torch.zeros(len(kernel), dtype=torch.int32)
            expected = torch.fake_quantize_per_channel_affine(kernel, scale, zeros, 0, -top, top)
        # torch multiplies by 1 / scale where we divide: a weight in the middle of two levels may go either way
        apart = (form.dense() - expected).abs()
        assert (apart <= form.scale * 1.0001).all()
        assert (apart > form.scale * 0.01).float().mean() < 1e-4
        assert form.codes().abs().max() <= top


def test_the_largest_weight_of_each_filter_gets_the_largest_code():
    small = LinearQuantization(bits=5)(build("lenet5"))
    for form in forms(small).values():
        assert (form.codes().abs().flatten(1).amax(1) == 15).all()


def test_a_kernel_quantized_by_hand():
    layer = nn.Linear(4, 2)
    layer.weight.data = torch.tensor([[0.7, -0.3, 0.14, 0.0], [-6.0, 5.0, 1.0, 0.4]])
    form = LinearQuantization(bits=3)(nn.Sequential(layer))[0]
    assert form.codes().tolist() == [[3, -1, 1, 0], [-3, 2, 0, 0]]
    torch.testing.assert_close(form.scale, torch.tensor([[0.7 / 3], [2.0]]))
    one_bit = LinearQuantization(bits=1)(nn.Sequential(layer))[0]
    torch.testing.assert_close(one_bit.dense()[0], torch.tensor([0.285, -0.285, 0.285, 0.285]))
    per_tensor = LinearQuantization(bits=1, scales="tensor")(nn.Sequential(layer))[0]
    assert per_tensor.dense().abs().unique().tolist() == pytest.approx([13.54 / 8])


def test_weights_on_the_grid_stay_as_they_are():
    layer = nn.Linear(15, 3, bias=False)
    layer.weight.data = torch.arange(-7.0, 8.0).expand(3, 15) * torch.tensor([[0.5], [2.0], [0.25]])
    assert torch.equal(LinearQuantization(bits=4)(nn.Sequential(layer))[0].dense(), layer.weight)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 7]), st.sampled_from([40, 300]), st.booleans())
def test_the_best_scale_is_as_good_as_the_best_of_many_tried_in_turn(seed, top, count, heavy_tail):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, count, generator=generator)
    rows = rows**3 if heavy_tail else rows
    found = squared_error(rows, best_scale(rows, top), top)
    tried = [squared_error(rows, largest_scale(rows, top) * k / 500, top) for k in range(1, 501)]
    least = torch.stack(tried).amin(0)
    assert (found <= least * 1.05 + 1e-9).all()
    assert (found <= squared_error(rows, largest_scale(rows, top), top) * (1 + 1e-6)).all()


def test_the_one_bit_scale_is_the_least_squares_solution():
    rows = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).double()
    solved = torch.stack([torch.linalg.lstsq(row.sign()[:, None], row[:, None]).solution[0] for row in rows])
    torch.testing.assert_close(sign_scale(rows, torch.ones_like(rows, dtype=torch.bool)), solved)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pruned_weights_stay_zero_and_do_not_count_for_the_scale(bits):
    model = build("lenet5")
    pruned = MagnitudePruning(sparsity=0.9)(model)
    both = LinearQuantization(bits=bits)(pruned)
    for name, form in forms(both).items():
        mask = pruned.get_submodule(name).mask
        assert torch.equal(form.mask, mask) and (form.dense()[~mask] == 0).all()
        assert len(form.stored()["codes"].tensor) == int(mask.sum())
    if bits == 1:
        kept = pruned.conv2.weight[0][pruned.conv2.mask[0]]
        assert both.conv2.scale[0].item() == pytest.approx(kept.abs().mean().item())


@pytest.mark.parametrize("bits", [1, 4])
def test_a_filter_of_zeros_alone_stays_zero(bits):
    model = build("lenet5")
    model.conv1.weight.data[3] = 0
    for method in (LinearQuantization(bits=bits), MagnitudePruning(sparsity=0.5) | LinearQuantization(bits=bits)):
        form = method(model).conv1
        assert (form.dense()[3] == 0).all() and torch.isfinite(form.scale).all()


def test_both_layers_of_a_factored_one_are_quantized():
    model = build("lenet300")
    first, second = nn.Linear(784, 20, bias=False), nn.Linear(20, 300)
    model.fc1 = Factored(Geometry.of(model.fc1), first, second)
    small = LinearQuantization(bits=4, activation_bits=8)(model, pictures())
    assert isinstance(small.fc1.first, Quantized) and isinstance(small.fc1.second, Quantized)
    assert isinstance(small.fc1.second.act, ActivationQuantizer)
    assert small.compression.skipped == ()


def test_bits_per_layer_count_and_layers_without_a_pattern_are_named():
    small = LinearQuantization(bits={"conv*": 4, "fc2": 8})(build("lenet5"))
    assert {name: form.bits for name, form in forms(small).items()} == {"conv1": 4, "conv2": 4, "fc2": 8}
    (skipped,) = small.compression.skipped
    assert (skipped.layer, skipped.reason) == ("fc1", "no pattern of the per-layer values matches it")


def test_batch_norm_is_folded_before_weights_are_rounded():
    model, x = build("vgg(width=0.25)"), torch.randn(2, 1, 32, 32)
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    small = LinearQuantization(bits=8)(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in small.modules())
    kernel = model.features.conv1_1.weight * (
        model.features.norm1_1.weight / (model.features.norm1_1.running_var + model.features.norm1_1.eps).sqrt()
    ).view(-1, 1, 1, 1)
    torch.testing.assert_close(small.features.conv1_1.latent, kernel)
    assert (small(x) - model(x)).norm() < 0.1 * model(x).norm()


def test_batch_norm_is_folded_into_pruned_layers_too():
    model = build("vgg(width=0.25)")
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    pruned, x = MagnitudePruning(sparsity=0.5)(model), torch.randn(2, 1, 32, 32)
    small = LinearQuantization(bits=8)(pruned)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in small.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in pruned.modules())
    assert all(torch.equal(form.mask, pruned.get_submodule(name).mask) for name, form in forms(small).items())
    assert (small(x) - pruned(x)).norm() < 0.1 * pruned(x).norm()


class Decides(nn.Module):
    """A network that cannot be traced: it looks at its data."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x):
        if x.sum() > 0:
            x = -x
        return self.fc(self.norm(self.conv(x)).mean((2, 3)))


def test_a_network_that_cannot_be_traced_is_quantized_unfolded_and_says_so():
    small = LinearQuantization(activation_bits=8)(Decides().eval(), pictures())
    assert isinstance(small.conv, Quantized) and isinstance(small.norm, nn.BatchNorm2d)
    (skipped,) = small.compression.skipped
    assert skipped.layer == "(network)" and "not folded" in skipped.reason and "traced" in skipped.reason


def test_activations_of_every_quantized_layer_cover_the_calibration_images():
    model, data = build("lenet5"), pictures()
    small = LinearQuantization(activation_bits=8, calibration_images=40)(model, data)
    inputs = {}
    for name in forms(small):
        model.get_submodule(name).register_forward_pre_hook(lambda m, args, name=name: inputs.update({name: args[0]}))
    model(data.x_train)
    for name, form in forms(small).items():
        low, high = inputs[name].min().clamp(max=0), inputs[name].max()
        assert form.act.bits == 8
        assert form.act.scale.item() == pytest.approx(((high - low) / 255).item(), rel=1e-5)
        assert form.act.zero_point.item() == round((-low / form.act.scale).item())


def test_the_calibrated_ranges_are_those_of_the_evenly_spaced_images():
    model, data = build("lenet5"), pictures(40)
    ranges = input_ranges(model, {"conv1": model.conv1}, data, 4, 1.0)
    chosen = data.x_train[[0, 13, 26, 39]]
    assert ranges == {"conv1": (chosen.min().item(), chosen.max().item())}
    assert not model.conv1._forward_pre_hooks


@pytest.mark.parametrize("coverage", [0.9, 0.99, 0.999])
def test_coverage_leaves_out_the_tails_as_quantiles_do(coverage):
    model, data = build("lenet5"), pictures(200)
    low, high = input_ranges(model, {"conv1": model.conv1}, data, 200, coverage)["conv1"]
    tails = torch.tensor([(1 - coverage) / 2, (1 + coverage) / 2])
    expected = data.x_train.flatten().sort().values[(tails * (data.x_train.numel() - 1)).long()]
    width = (data.x_train.max() - data.x_train.min()) / 2048
    assert abs(low - expected[0]) <= 1.5 * width and abs(high - expected[1]) <= 1.5 * width


def test_the_covering_range_of_hand_made_histograms():
    even = torch.ones(10)
    assert covering_range(even, 0.0, 10.0, 1.0) == (0.0, 10.0)
    assert covering_range(even, 0.0, 10.0, 0.8) == (1.0, 9.0)
    assert covering_range(torch.tensor([90.0, 0, 0, 10]), -2.0, 2.0, 0.9) == (-2.0, 2.0)


def test_a_layer_that_no_image_reaches_keeps_float_activations_and_is_named():
    model = build("lenet5")
    model.spare = nn.Linear(3, 3)
    small = LinearQuantization(activation_bits=8)(model, pictures())
    assert isinstance(small.spare, Quantized) and isinstance(small.spare.act, nn.Identity)
    assert [s.layer for s in small.compression.skipped] == ["spare"]


def test_a_layer_quantized_before_is_skipped_by_name_and_keeps_its_codes():
    once = LinearQuantization(bits=3, layers="conv1")(build("lenet5"))
    twice = LinearQuantization(bits=8, activation_bits=8)(once, pictures())
    assert twice.conv1.bits == 3 and isinstance(twice.conv1.act, nn.Identity) and twice.conv2.bits == 8
    assert [s.layer for s in twice.compression.skipped if "already" in s.reason] == ["conv1"]


def test_an_empty_calibration_set_and_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="calibration_images must be a whole number from 1 to 2147483647, got 0"):
        LinearQuantization(activation_bits=8, calibration_images=0)
    with pytest.raises(CompressionError, match="'train' is empty"):
        LinearQuantization(activation_bits=8)(build("lenet5"), pictures().shortened(train=0))
    with pytest.raises(CompressionError, match="needs data for calibration"):
        LinearQuantization(activation_bits=8)(build("lenet5"))
    with pytest.raises(CompressionError, match="cannot take images"):
        LinearQuantization(activation_bits=8)(build("lenet5"), pictures(size=20))


@pytest.mark.parametrize("coverage", [1.0, 0.9])
def test_values_that_are_not_finite_have_no_range_and_their_layer_is_named(coverage):
    class Dividing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(784, 10), nn.Linear(10, 10)

        def forward(self, x):
            y = self.first(x.flatten(1))
            return self.last(y / (x.flatten(1)[:, :1] - 0.5).clamp(min=0))

    data = pictures(100)
    with pytest.raises(CompressionError, match="layer 'last' gets values from .* codes need finite ones"):
        LinearQuantization(activation_bits=8, coverage=coverage)(Dividing(), data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_and_its_deployed_twin_agree(dtype):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(784, 10), nn.Linear(10, 10)

        def forward(self, x):
            return self.last(self.first(x.flatten(1)).relu())

    torch.manual_seed(0)
    model, data = Small(), pictures()
    with torch.no_grad():
        model.first.weight.mul_(1e-6)
        model.first.bias.mul_(1e-6)
    data = replace(data, **{f"x_{split}": data.split(split)[0].to(dtype) for split in ("train", "validation", "test")})
    small = LinearQuantization(activation_bits=8)(model.to(dtype), data)
    x = data.x_validation
    y = small(x)
    assert y.dtype == dtype and y.isfinite().all() and small.last.act.scale < 6e-8
    torch.testing.assert_close(y.float(), deploy(small)(x), rtol=0.02, atol=0.02)


def test_eight_bits_keep_the_accuracy_of_a_trained_network_and_one_bit_does_not_keep_its_loss():
    model, data = trained("lenet5", "digits"), DATASETS["digits"]()
    before = evaluate(model, data)
    eight = evaluate(LinearQuantization(bits=8, activation_bits=8)(model, data), data)
    one = evaluate(LinearQuantization(bits=1)(model), data)
    assert before.correct > 0.97 * before.seen
    assert abs(eight.correct - before.correct) <= 2
    assert one.loss > 2 * before.loss


def test_a_far_outlier_is_clipped_where_the_error_is_least():
    """One planted weight makes all others of its filter zero, unless the range leaves it out."""
    layer = nn.Linear(4000, 1, bias=False)
    nn.init.uniform_(layer.weight, -1, 1, torch.Generator().manual_seed(0))
    layer.weight.data[0, 7] = 20.0
    widest, best = (LinearQuantization(bits=4, clipping=c)(nn.Sequential(layer))[0] for c in ("max", "mse"))
    assert int((widest.codes() != 0).sum()) == 1
    assert int((best.codes() != 0).sum()) > 3000 and best.dense().max() < 4


def test_two_bits_that_reach_to_the_largest_weight_are_worse_than_one_bit_and_better_when_clipped():
    """Three levels, of which the outer two are where hardly a weight is: most weights become zero."""
    model, data = trained("lenet5", "digits"), DATASETS["digits"]()

    def correct(**knobs):
        return evaluate(LinearQuantization(**knobs)(model), data).correct

    assert correct(bits=2) < correct(bits=1) - 50
    assert correct(bits=2, clipping="mse") >= correct(bits=1)


@pytest.mark.parametrize("scales, clipping", [("tensor", "mse"), ("channel", "max")])
def test_half_precision_weights_get_the_scales_of_the_same_weights_in_single_precision(scales, clipping):
    model = build("lenet300").half()
    method = LinearQuantization(bits=3, scales=scales, clipping=clipping)
    for name, form in forms(method(model)).items():
        expected = method(build("lenet300").half().float()).get_submodule(name).scale
        assert form.scale.dtype == torch.float32 and torch.equal(form.scale, expected)
        assert torch.isfinite(form.dense()).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_have_scales_in_single_precision(dtype):
    torch.manual_seed(0)
    for size in (1.0, 1e-3, 1e-5):
        net = nn.Sequential(nn.Linear(64, 32))
        net[0].weight.data *= size
        net = net.to(dtype)
        made = LinearQuantization(bits=8)(net)[0]
        kernel, weight = made.scale * made.codes(), net[0].weight.float()
        assert made.scale.dtype == torch.float32 and made(torch.randn(3, 64).to(dtype)).dtype == dtype
        assert (kernel - weight).norm() / weight.norm() < 0.006
        assert torch.equal(made.codes(), copy.deepcopy(made).float().codes())  # what is deployed has the same codes


def test_a_quantized_half_precision_network_is_loaded_bit_by_bit():
    net = nn.Sequential(nn.Linear(8, 4)).half()
    small = LinearQuantization(bits=4)(net)
    again = files.from_bytes(files.model_bytes(small), into=net)
    x = torch.randn(2, 8).half()
    assert torch.equal(again(x), small(x)) and again[0].weight.dtype == torch.float16
