"""Block formats as a method: what a file of them holds byte by byte, what is refused, and training through them."""

import math

import pytest
import torch
from torch import nn

import compedu as ce
from compedu import files
from compedu.deployment import deploy
from compedu.errors import CompressionError
from compedu.files import map_of
from compedu.forms import BlockFloats, Codes, Floats, Positions
from compedu.forms.number_formats import FORMATS
from compedu.metrics import measure


def forms(model: nn.Module) -> dict[str, BlockFloats]:
    return {name: module for name, module in model.named_modules() if isinstance(module, BlockFloats)}


@pytest.fixture(scope="module")
def pair():
    model, data = ce.load("lenet5", "digits")
    return model, data.shortened(train=640, validation=200, test=10)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("block", [16, 32, 64])
def test_a_weight_takes_the_bits_of_its_format_and_its_share_of_a_scale(name, block):
    """Counted in the written file: 4.25 bits for NormalFloats in blocks of 64, and for 4-bit MX floats in 32s."""
    model = nn.Sequential(nn.Linear(256, 64, bias=False))
    small = ce.BlockFormats(format=name, block=block)(model)
    data = files.model_bytes(small, "packed")
    per_weight = 8 * sum(row.bytes for row in map_of(data).rows if row.layer == "0") / (256 * 64)
    assert per_weight == {"nf4": 4 + 16 / block}.get(name, FORMATS[name].bits + 8 / block)
    assert len(files.model_bytes(small, "ans")) <= len(data)
    assert torch.equal(files.from_bytes(data, into=model)[0].weight, small[0].weight)


def test_the_blocks_of_the_papers_are_known_and_that_of_the_default_format_is_the_default():
    assert ce.BlockFormats().block == FORMATS[ce.BlockFormats().format].block == 64
    assert {name: numbers.block for name, numbers in FORMATS.items()} == {
        name: 64 if name == "nf4" else 32 for name in FORMATS
    }


def test_a_file_holds_unsigned_codes_and_biased_exponents_or_half_precision(pair):
    for name in ("mxfp4", "nf4"):
        form = ce.BlockFormats(format=name, block=32)(pair[0]).conv2
        codes, scale, bias = form.stored().values()
        assert isinstance(codes, Codes) and (codes.bits, codes.signed) == (4, False)
        blocks = (50, math.ceil(500 / 32))
        if name == "mxfp4":
            assert isinstance(scale, Codes) and scale.bits == 8 and tuple(scale.tensor.shape) == blocks
            assert torch.equal(2.0 ** (scale.tensor.double() - 127), form.scale.double())
        else:
            assert isinstance(scale, Floats) and scale.tensor.dtype == torch.float16
            assert torch.equal(scale.tensor.float(), form.scale) and tuple(scale.tensor.shape) == blocks
        assert bias.role == "bias" and scale.role == "codebook"


@pytest.mark.parametrize("name", FORMATS)
def test_pruned_weights_stay_exactly_zero_and_only_the_kept_ones_are_stored(pair, name):
    pruned = ce.MagnitudePruning(sparsity=0.9)(pair[0])
    both = ce.BlockFormats(format=name)(pruned)
    assert set(forms(both)) == {"conv1", "conv2", "fc1", "fc2"}
    for layer, form in forms(both).items():
        mask = pruned.get_submodule(layer).mask
        parts = form.stored()
        assert torch.equal(form.mask, mask) and not form.dense()[~mask].any()
        assert isinstance(parts["positions"], Positions) and parts["codes"].tensor.numel() == int(mask.sum())
    trained = ce.FineTune(epochs=1)(both, pair[1])
    assert all(not form.dense()[~form.mask].any() for form in forms(trained).values())
    again = files.from_bytes(files.model_bytes(trained))
    assert all(torch.equal(form.dense(), trained.get_submodule(layer).dense()) for layer, form in forms(again).items())


@pytest.mark.parametrize("name", ["nf4", "mxfp4", "mxint8"])
def test_fine_tuning_moves_the_weights_between_the_values_and_leaves_the_scales(pair, name):
    _, data = pair
    small = ce.BlockFormats(format=name, block=256)(ce.build("lenet5"))
    tuned = ce.FineTune(epochs=2, lr=1e-3)(small, data)
    assert ce.evaluate(tuned, data, "train").loss < 0.5 * ce.evaluate(small, data, "train").loss
    for layer, form in forms(tuned).items():
        before = small.get_submodule(layer)
        assert torch.equal(form.scale, before.scale) and not torch.equal(form.codes(), before.codes())
        values = torch.tensor(FORMATS[name].values)[form.codes().long()]
        scales = form.scale.repeat_interleave(256, 1)[:, : form.latent[0].numel()].view(form.latent.shape)
        assert torch.equal(form.dense(), values * scales)


def test_a_scale_belongs_to_consecutive_weights_of_one_output():
    """Of a convolution too: blocks run over the kernel window, then over the channels, and end with the filter."""
    layer = nn.Conv2d(5, 3, 3)
    form = ce.BlockFormats(format="nf4", block=10)(nn.Sequential(layer))[0]
    rows = layer.weight.detach().reshape(3, 45)
    expected = torch.stack([rows[:, start : start + 10].abs().amax(1) for start in range(0, 45, 10)], 1)
    assert torch.equal(form.scale, expected.half().float()) and form.scale.shape == (3, 5)


def errors(model: nn.Module, name: str, blocks: tuple[int, ...]) -> list[float]:
    made = (ce.BlockFormats(format=name, block=block)(model).fc1.dense().detach() for block in blocks)
    return [float((weight - model.fc1.weight.detach()).norm() / model.fc1.weight.detach().norm()) for weight in made]


def test_smaller_blocks_take_more_bytes_and_have_smaller_errors(pair):
    model, _ = pair
    blocks = (1, 4, 16, 64, 256)
    small = [ce.BlockFormats(format="nf4", block=block)(model) for block in blocks]
    sizes = [len(files.model_bytes(one, "packed")) for one in small]
    found = errors(model, "nf4", blocks)
    assert sizes == sorted(sizes, reverse=True) and found == sorted(found) and found[0] < 1e-3 < 0.05 < found[2]


def test_no_block_is_so_small_that_a_power_of_two_would_scale_it_well(pair):
    """Even alone, a weight of 4-bit MX floats lies anywhere in 4 to 8, whose values are 4 and 6."""
    alone, common = errors(pair[0], "mxfp4", (1, 32))
    assert common < alone
    u = torch.linspace(4, 8, 100_001, dtype=torch.float64)[:-1]
    made = torch.where(u < 5, 4.0, 6.0)
    uniform = float((made - u).norm() / u.norm())  # of a weight that is anywhere in its power of two
    assert alone == pytest.approx(uniform, rel=0.2)


def test_blocks_can_differ_by_layer_and_a_block_longer_than_a_filter_is_the_filter(pair):
    model, _ = pair
    small = ce.BlockFormats(block={"conv*": 16, "fc1": 10**9})(model)
    assert {name: tuple(form.scale.shape) for name, form in forms(small).items()} == {
        "conv1": (20, 2), "conv2": (50, 32), "fc1": (500, 1),
    }  # fmt: skip
    assert [skipped.layer for skipped in small.compression.skipped] == ["fc2"]


def test_weights_too_large_for_a_scale_leave_their_layer_as_it_is_by_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    nn.init.constant_(model[0].weight, 1e5)
    small = ce.BlockFormats(format="nf4")(model)
    (skipped,) = small.compression.skipped
    assert (skipped.layer, skipped.reason) == ("0", "its largest weight 1e+05 needs a scale above 65504, the largest")
    assert isinstance(small[1], BlockFloats) and isinstance(ce.BlockFormats(format="mxfp4")(model)[0], BlockFloats)
    model.double()
    nn.init.constant_(model[0].weight, 1e300)
    with pytest.raises(CompressionError, match=r"found nothing to compress: .*its largest weight 1e\+300 needs a"):
        ce.BlockFormats(format="mxfp4", layers="0")(model)


def test_batch_norm_is_folded_before_weights_are_rounded():
    model = ce.build("resnet(size=8, channels=1, width=0.25, blocks=1)").eval()
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    small = ce.BlockFormats(format="mxint8")(model)
    x = torch.randn(2, 1, 8, 8)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert (small(x) - model(x)).norm() < 0.05 * model(x).norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["nf4", "mxfp4", "mxfp8_e5m2", "mxint8"])
def test_networks_of_other_precisions_come_back_from_a_file_bit_by_bit(name, dtype):
    model = nn.Sequential(nn.Linear(40, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype)
    model[0].weight.data.mul_(1e-4)
    small = ce.BlockFormats(format=name)(model)
    again = files.from_bytes(files.model_bytes(small), into=model)
    x = torch.randn(5, 40).to(dtype)
    assert torch.equal(again(x), small(x)) and again[0].weight.dtype == dtype
    assert torch.equal(again[0].codes(), small[0].codes())


def test_a_deployed_network_is_said_to_run_on_decoded_weights(pair):
    model, data = pair
    small = ce.BlockFormats()(model)
    deployed = deploy(small, data.example)
    assert {deployed.kernels[name] for name in forms(small)} == {"float32 dense, decoded from BlockFloats"}
    report = measure(small, data, baseline=model, speed=False)
    assert report.size_by_role["values"] == sum(-(-form.latent.numel() // 2) for form in forms(small).values())


def test_a_layer_in_a_block_format_is_left_alone_by_name(pair):
    once = ce.BlockFormats(layers="conv1")(pair[0])
    twice = ce.LinearQuantization(bits=8)(once)
    assert isinstance(twice.conv1, BlockFloats)
    assert [skipped.layer for skipped in twice.compression.skipped if "already" in skipped.reason] == ["conv1"]
