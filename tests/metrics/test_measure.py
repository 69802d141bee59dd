"""What a report says, against independent counts, bytes on disk and the deployed network; its progress; refusals."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compedu import files
from compedu.datasets import DATASETS
from compedu.datasets.dataset import Dataset
from compedu.deployment import deploy
from compedu.errors import Cancelled, CompressionError
from compedu.forms import (
    ActivationQuantizer,
    BlockCirculant,
    CReLUFilters,
    Factored,
    Geometry,
    Masked,
    Predicted,
    Quantized,
)
from compedu.graph import fold_batch_norm
from compedu.methods import FilterPruning, LinearQuantization, MagnitudePruning
from compedu.metrics import Baseline, Report, Timing, costs, measure, measuring
from compedu.metrics.counting import Counter
from compedu.metrics.latency import MIN_ROUNDS
from compedu.networks import build
from compedu.networks.shipped import trained
from compedu.torchvision_import import import_torchvision

QUICK = Timing(batch_size=2, budget_s=0.0)


@pytest.fixture(scope="module")
def data():
    return DATASETS["digits"]()


@pytest.fixture(scope="module")
def model():
    return trained("lenet300", "digits")


@pytest.fixture(scope="module")
def baseline(model, data):
    return Baseline.of(model, data)


@pytest.fixture(scope="module")
def pruned(model):
    return MagnitudePruning(sparsity=0.95)(model)


@pytest.fixture(scope="module")
def report(pruned, data, baseline):
    return measure(pruned, data, baseline=baseline, speed=QUICK)


def random_images(count=3, channels=3, size=16):
    x = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))
    y = torch.arange(count) % 10
    return Dataset("random images", x, y, x, y, x, y, tuple("0123456789"))


# Accuracy


def test_accuracy_is_that_of_the_deployed_network(report, pruned, model, data):
    with torch.inference_mode():
        before, after = deploy(model)(data.x_validation).argmax(1), deploy(pruned)(data.x_validation).argmax(1)
    true = data.y_validation
    assert (report.correct, report.seen, report.total) == (int((after == true).sum()), 397, 397)
    wrong = [i for i in range(397) if before[i] == true[i] != after[i]]
    right = [i for i in range(397) if before[i] != true[i] == after[i]]
    assert [flip.image for flip in report.newly_wrong] == wrong and [flip.image for flip in report.newly_right] == right
    assert (report.change.broke, report.change.fixed, report.change.total) == (len(wrong), len(right), 397) and wrong
    first = report.newly_wrong[0]
    assert (first.true, first.before, first.after) == (true[wrong[0]], before[wrong[0]], after[wrong[0]])


def test_change_is_the_difference_of_the_two_accuracies(report, baseline, data):
    expected = report.accuracy - baseline.evaluation.correct / 397
    assert report.change.difference == pytest.approx(expected) and expected < 0


def test_the_neutral_setting_changes_nothing(model, data, baseline):
    same = measure(MagnitudePruning(sparsity=0.0)(model), data, baseline=baseline, speed=False)
    assert (same.change.broke, same.change.fixed, same.change.p_value) == (0, 0, 1.0)
    assert (same.compression_rate, same.index_space_saving) == (1, 0) and all(row.error == 0 for row in same.layers)


def test_the_answers_of_a_baseline_are_not_asked_for_again(model, data, baseline, monkeypatch):
    asked = measure(copy.deepcopy(model), data, baseline=baseline, speed=False)
    monkeypatch.setattr("compedu.metrics.measurement.evaluating", lambda *given: pytest.fail("asked again"))
    assert measure(model, data, baseline=baseline, speed=False) == asked


def test_the_split_is_the_one_asked_for(model, data):
    found = measure(model, data, split="test", speed=False)
    assert found.split == "test" and found.total == len(data.x_test) != len(data.x_validation)


# Size


def test_sizes_are_the_lengths_of_files_on_disk(report, pruned, model, tmp_path):
    for coding, size in (("packed", report.file_bytes), ("ans", report.entropy_coded_bytes)):
        files.save(pruned, tmp_path / coding, coding)
        assert (tmp_path / coding).stat().st_size == size
    files.save(model, tmp_path / "baseline")
    assert (tmp_path / "baseline").stat().st_size == report.baseline_file_bytes
    assert report.entropy_coded_bytes < report.file_bytes < report.baseline_file_bytes


def test_bytes_add_up_by_role_and_by_layer(report):
    assert sum(report.size_by_role.values()) == report.file_bytes
    assert report.size_by_role["header"] + sum(row.bytes for row in report.layers) == report.file_bytes
    assert report.size_by_role["indices"] > 0 and report.size_by_role["values"] == 4 * sum(
        row.parameters - row.shape[0] for row in report.layers
    )


def test_bits_per_weight_count_everything_that_a_layer_stores(report):
    row = report.layers[0]
    assert row.bits_per_weight == pytest.approx(8 * row.bytes / math.prod(row.shape))
    assert 32 * 0.05 < row.bits_per_weight < 4  # the values alone, and with their positions


@pytest.mark.parametrize("method", [LinearQuantization(bits=4, activation_bits=8), FilterPruning()], ids=repr)
def test_bytes_add_up_with_batch_norm_and_activation_codes(method):
    data = random_images(40)
    small = method(build("resnet(size=16, channels=3, width=0.5)"), data)
    found = measure(small, data, speed=False)
    assert found.size_by_role["header"] + sum(row.bytes for row in found.layers) == found.file_bytes
    assert {row.name for row in found.layers} >= {"conv", "stage2.0.shortcut.0", "fc"}


# Parameters


def linear(out=12, inside=20):
    torch.manual_seed(0)
    return nn.Linear(inside, out)


def forms():
    layer, conv = linear(), nn.Conv2d(4, 8, 3)
    g, h = Geometry.of(layer), Geometry.of(conv)
    mask = torch.zeros(12, 20, dtype=torch.bool)
    mask[:, :3] = True
    coded = Quantized(g, layer.weight, torch.tensor(0.01), 1, layer.bias, mask)
    coded.act = ActivationQuantizer.for_range(0.0, 1.0)
    second = Quantized(Geometry("linear", (12, 2)), torch.ones(12, 2), torch.tensor(1.0), 4, layer.bias)
    return {
        "dense": (layer, 12 * 20 + 12),
        "masked": (Masked(g, layer.weight, mask, layer.bias), 12 * 3 + 12),
        "one bit, masked, codes in": (coded, 12 * 3 + 12),
        "block circulant": (BlockCirculant(g, torch.randn(3, 5, 4), layer.bias), 3 * 5 * 4 + 12),
        "factored": (Factored(g, nn.Linear(20, 2, bias=False), second), 20 * 2 + 12 * 2 + 12),
        "predicted": (Predicted(h, torch.randn(8, 4, 2), conv.bias, 2.0, 1e-3, None), 8 * 4 * 2 + 8),
        "CReLU": (CReLUFilters(h, conv.weight[:4], conv.bias[:4]), 4 * 4 * 9 + 4),
        "batch norm": (nn.BatchNorm2d(7), 14),
    }


@pytest.mark.parametrize("kind", forms())
def test_parameters_are_the_numbers_that_were_learned(kind):
    layer, expected = forms()[kind]
    assert sum(costs.parameters(layer).values()) == expected
    assert costs.parameters(nn.Sequential(nn.ReLU(), layer)) == {"1": expected}


def test_parameters_of_a_dense_network_are_torchs():
    network = build("resnet(width=0.5)")
    assert sum(costs.parameters(network).values()) == sum(p.numel() for p in network.parameters())


def test_tied_layers_count_once():
    shared = nn.Linear(5, 5)
    other = nn.Linear(5, 5, bias=False)
    other.weight = shared.weight
    assert costs.parameters(nn.Sequential(shared, nn.ReLU(), shared, other)) == {"0": 30, "3": 0}


def test_compression_rate_by_parameters_does_not_see_quantization(model, data, baseline):
    quantized = measure(LinearQuantization(bits=8)(model), data, baseline=baseline, speed=False)
    assert quantized.compression_rate == 1 and 3.8 < quantized.compression_rate_bytes < 4


def test_criteria_of_the_survey(report):
    alpha = report.baseline_parameters / report.parameters
    assert report.compression_rate == alpha > 15
    assert report.compression_rate_bytes == report.baseline_file_bytes / report.file_bytes < alpha
    assert report.index_space_saving_printed == pytest.approx(alpha - 1)
    assert report.index_space_saving == pytest.approx(1 - 1 / alpha)
    assert report.speed_up_rate == report.latency.speed_up


# Multiply-accumulates


def counted_by_torch(network, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() // 2


def test_counting_does_not_import_the_compiler_of_torch():
    """Torch guards the method of each such mode, unless told otherwise; the guard imports the compiler (seconds)."""
    assert not hasattr(Counter.__torch_dispatch__, "__wrapped__")


@pytest.mark.parametrize("spec", ["lenet300(size=16)", "lenet5(size=16)", "vgg(size=16)", "resnet(size=16)"])
def test_macs_of_dense_networks_equal_the_flop_counter(spec):
    data = random_images(channels=1)
    network = build(spec)
    assert costs.macs(network, data).total == counted_by_torch(network, data.example)


def test_macs_of_factored_grouped_and_crelu_layers_equal_the_flop_counter():
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1)
    first = nn.Conv2d(6, 4, (3, 1), (2, 1), (1, 0), bias=False)
    second = nn.Conv2d(4, 8, (1, 3), (1, 2), (0, 1))
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3),
        Factored(Geometry.of(conv), first, second),
        CReLUFilters(Geometry("conv2d", (10, 8, 1, 1)), torch.randn(5, 8, 1, 1), None),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    data = random_images()
    network(data.example)
    counts = costs.macs(network, data)
    assert counts.total == counted_by_torch(network, data.example)
    after_first = 7 * 14 * first.weight.numel()  # 14 x 14 positions before it
    assert counts.layers["1"] == after_first + 7 * 7 * second.weight.numel()


def test_a_layer_that_runs_twice_counts_twice_and_the_fft_counts_its_products():
    layer, circulant = nn.Linear(256, 256), BlockCirculant(Geometry("linear", (10, 256)), torch.randn(2, 32, 8), None)
    network = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, circulant)
    counts = costs.macs(network, random_images(channels=1))
    assert counts.layers == {"1": 2 * 256 * 256, "4": 4 * 2 * 32 * 5}


def by_forward(forward, **layers):
    network = type("Net", (nn.Module,), {"forward": forward})()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network.eval()


def test_pixels_and_channels_in_the_batch_count_where_the_weights_are_used():
    pixels = by_forward(
        lambda net, x: net.b(net.a(x.permute(0, 2, 3, 1).reshape(-1, 3)).reshape(1, -1, 5).mean(1)),
        a=nn.Linear(3, 5),
        b=nn.Linear(5, 10),
    )
    assert costs.macs(pixels, random_images(size=8)).layers == {"a": 64 * 3 * 5, "b": 50}
    channels = by_forward(
        lambda net, x: net.b(net.a(x.flatten(0, 1)[:, None]).mean((0, 2, 3)))[None],
        a=nn.Conv2d(1, 2, 3, padding=1),
        b=nn.Linear(2, 10),
    )
    assert costs.macs(channels, random_images(size=8)).layers == {"a": 3 * 64 * 2 * 9, "b": 20}
    masked = MagnitudePruning(sparsity=0.5, layers="a")(pixels)
    assert costs.macs(masked, random_images(size=8)).layers == {"a": 64 * 3 * 5, "b": 50}


def test_transposed_convolutions_and_attention_count():
    transposed = by_forward(
        lambda net, x: net.b(net.a(x).mean((2, 3))), a=nn.ConvTranspose2d(3, 4, 2, stride=2), b=nn.Linear(4, 10)
    )
    assert costs.macs(transposed, random_images(size=8)).layers == {"a": 64 * 3 * 4 * 4, "b": 40}
    block = nn.TransformerEncoderLayer(64, 2, 96, batch_first=True)
    encoder = by_forward(lambda net, x: net.b(net.block(x.flatten(2)).mean(1)), block=block, b=nn.Linear(64, 10))
    projections, products = 3 * 4 * 64 * 64, 2 * 3 * 3 * 64  # of three tokens: what each asks, finds, tells and gives
    assert costs.macs(encoder, random_images(size=8)).layers == {
        "block.self_attn": projections + products,
        "block.linear1": 3 * 64 * 96,
        "block.linear2": 3 * 96 * 64,
        "b": 640,
    }


def test_a_vision_transformer_counts_what_torchvision_says():
    models = import_torchvision().models
    with torch.device("meta"):
        network = models.vit_b_16(weights=None)
    counts = costs.macs(network.to_empty(device="cpu"), random_images(1, size=224))
    documented = models.ViT_B_16_Weights.IMAGENET1K_V1.meta["_ops"]
    assert counts.total == pytest.approx(1e9 * documented, rel=1e-3) and counts.uncounted == ()


def test_products_without_a_formula_are_named():
    network = by_forward(
        lambda net, x: net.a(x.mean((2, 3)), x.amax((2, 3))) + torch.fft.rfft(x).real.mean(), a=nn.Bilinear(3, 3, 10)
    )
    report = measure(network, random_images(), speed=False)
    assert report.macs == 0 and report.uncounted == ("_trilinear in a", "_fft_r2c in the network itself")
    assert "not counted" in str(report) and "_trilinear in a" in str(report)
    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_zeros_are_multiplied_unless_the_kernel_skips_them():
    network = build("lenet5(size=32)")
    small = MagnitudePruning(sparsity=0.98)(network)
    rows = {row.name: row for row in measure(small, random_images(4, 1, 32), speed=False).layers}
    assert "CSR" not in rows["conv2"].kernel and rows["conv2"].macs == 10 * 10 * network.conv2.weight.numel()
    assert "CSR" in rows["fc1"].kernel and rows["fc1"].macs == int(small.fc1.dense().count_nonzero()) == 12_500


# The table of layers


def test_every_layer_says_what_it_is_and_what_runs(report, pruned):
    assert [(row.name, row.form) for row in report.layers] == [(name, "Masked") for name in ("fc1", "fc2", "fc3")]
    assert [row.kernel for row in report.layers] == [deploy(pruned).kernels[name] for name in ("fc1", "fc2", "fc3")]
    assert sum(row.parameters for row in report.layers) == report.parameters
    assert sum(row.macs for row in report.layers) == report.macs


def test_the_error_of_a_layer_is_relative_to_the_baselines_weight(report, pruned, model):
    for row in report.layers:
        weight = pruned.get_submodule(row.name).dense().detach()
        reference = model.get_submodule(row.name).weight.detach()
        assert row.error == pytest.approx(float((weight - reference).norm() / reference.norm()), rel=1e-6)


def test_a_weight_with_batch_norm_folded_in_is_compared_with_the_folded_one():
    data = random_images(8, channels=1)
    network = build("vgg(size=16, width=0.2)")
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.fill_(25.0)  # folding divides the weights by 5
    folded = measure(LinearQuantization(bits=8)(network), data, baseline=network, speed=False)
    masked = measure(MagnitudePruning(sparsity=0.0)(network), data, baseline=network, speed=False)
    errors = [row.error for row in folded.layers if row.form == "Quantized"]
    assert len(errors) == 9 and 0 < max(errors) < 0.02
    assert {row.error for row in masked.layers if row.form == "Masked"} == {0.0}
    folded_weight = fold_batch_norm(network).features.conv1_1.weight
    assert not torch.allclose(folded_weight, network.features.conv1_1.weight)


def test_removed_filters_have_no_error_as_there_is_nothing_to_compare():
    data = random_images(8)
    network = build("lenet5(size=16, channels=3)")
    found = measure(FilterPruning(sparsity=0.5)(network, data), data, baseline=network, speed=False)
    row = found.layers[0]
    assert row.error is None and row.shape[0] == 10 and "error" not in found.as_dict()["layers"][0]


def test_skipped_layers_are_listed(model, data):
    small = MagnitudePruning(layers="fc1")(model)
    assert {s.layer for s in measure(small, data, speed=False).skipped} == {"fc2", "fc3"}


def test_a_network_that_is_one_form_is_measured():
    data = random_images(4, channels=1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    small = MagnitudePruning(sparsity=0.5)(network)
    assert measure(small, data, baseline=network, speed=False).model == "Sequential"


# Time


def test_time_is_taken_against_the_baseline_and_itself(report):
    assert report.latency.rounds == MIN_ROUNDS and report.latency.batch_size == 2
    assert report.latency.verdict in ("faster", "slower", "not distinguishable", "withheld: A/A arm failed")


def test_without_a_baseline_only_the_time_itself_is_taken(model, data):
    found = measure(model, data, speed=QUICK)
    assert found.latency.latency_ms > 0 and found.latency.verdict is None and found.speed_up_rate is None


# Progress


def test_the_first_partial_report_comes_after_the_first_batch_and_each_is_finer(pruned, data, baseline):
    partials = []
    final = measure(pruned, data, baseline=baseline, speed=QUICK, on_partial=partials.append)
    assert all(report.partial for report in partials) and not final.partial
    assert [report.seen for report in partials] == [128, 397]
    assert partials[0].file_bytes is None and partials[0].change.total == 128 and partials[0].macs == final.macs
    assert partials[1].file_bytes == final.file_bytes and partials[1].latency is None and final.latency is not None
    assert final.seen == final.total


@pytest.mark.parametrize("times", [2, 3])  # asked before sizes are taken, and before the second batch
def test_what_is_no_longer_wanted_is_cancelled_between_batches(pruned, data, baseline, times):
    asked = []

    def stale():
        asked.append(True)
        return len(asked) == times

    seen = []
    with pytest.raises(Cancelled):
        measure(pruned, data, baseline=baseline, on_partial=lambda report: seen.append(report.seen), stale=stale)
    assert seen == [128] and len(asked) == times


def test_time_is_cancelled_between_rounds(pruned, data, baseline):
    answers = {"late": False}
    reports = measuring(pruned, data, baseline=baseline, speed=Timing(budget_s=600.0), stale=lambda: answers["late"])
    for report in reports:
        if report.seen == report.total:
            answers["late"] = True
            break
    with pytest.raises(Cancelled):
        next(reports)


def test_the_model_is_untouched_even_in_training_mode(data):
    network = build("vgg(size=28, width=0.1)").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure(network, data.shortened(validation=20), speed=False)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


# Refusals


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value, data, baseline):
    broken = build("lenet300")
    broken.fc2.weight.data[3, 4] = value
    for arguments in ((broken, data), (build("lenet300"), data, broken)):
        with pytest.raises(CompressionError, match="fc2.weight holds 1 value"):
            measure(*arguments[:2], baseline=arguments[2] if len(arguments) > 2 else None)


def test_images_of_another_size_are_refused_before_anything_slow(data):
    with pytest.raises(CompressionError, match=r"lenet300\(size=32.*cannot take images of 'digits', shape \(1, 28"):
        measure(build("lenet300(size=32)"), data)


class Particular(nn.Module):
    """A network whose forward says no in its own words, as torchvision's transformers do, or returns no logits."""

    def __init__(self, answer):
        super().__init__()
        self.layer, self.answer = nn.Linear(784, 10), answer

    def forward(self, x):
        return self.answer(self.layer(x.flatten(1)))


def wrong_height(logits):
    raise AssertionError("Wrong image height! Expected 224 but got 28!")


@pytest.mark.parametrize(
    "answer, reason",
    [
        (wrong_height, "Particular cannot take images of 'digits.*Wrong image height! Expected 224"),
        (lambda logits: {"out": logits}, "Particular returns a dict; it must return one tensor of logits"),
        (lambda logits: (logits, logits), r"Particular returns \(\(1, 10\), \(1, 10\)\); it must return"),
    ],
)
def test_networks_that_say_no_or_return_no_logits_are_refused_by_name(data, answer, reason):
    with pytest.raises(CompressionError, match=reason):
        measure(Particular(answer), data, speed=False)


def test_too_few_classes_are_refused(data):
    with pytest.raises(CompressionError, match="build it with classes=10"):
        measure(build("lenet300(classes=4)"), data)


def test_an_empty_split_cannot_be_measured(data, model):
    with pytest.raises(CompressionError, match="split 'validation' is empty"):
        measure(model, data.shortened(validation=0))
    with pytest.raises(CompressionError, match="no split 'holdout'"):
        measure(model, data, split="holdout")


def test_a_baseline_of_other_images_is_refused(model, data, baseline, pruned):
    for other, split in ((data, "test"), (data.shortened(validation=50), "validation")):
        with pytest.raises(CompressionError, match="the baseline was prepared on .*Baseline.of"):
            measure(pruned, other, baseline=baseline, split=split)
    equal = dataclasses.replace(data)
    assert measure(pruned, equal, baseline=baseline, speed=False).change is not None


def test_logits_that_overflow_are_refused(data):
    huge = build("lenet300")
    for layer in (huge.fc1, huge.fc2, huge.fc3):
        layer.weight.data.fill_(1e30)
    with pytest.raises(CompressionError, match="logits that are not finite"):
        measure(huge, data)


# Other forms of the report


def test_a_report_survives_json(report, model, data):
    for original in (report, measure(model, data, speed=False)):
        text = json.dumps(original.as_dict(), allow_nan=False)
        assert Report.from_dict(json.loads(text)) == original


def test_what_is_not_measured_is_absent(model, data):
    found = measure(model, data, speed=False)
    absent = {"latency", "change", "baseline_file_bytes", "compression_rate", "speed_up_rate", "newly_wrong"}
    assert not absent & found.as_dict().keys() and None not in found.as_dict().values()
    assert not any(word in str(found) for word in ("speed", "alpha", "change", "None"))


def test_derived_figures_are_in_the_json_form(report):
    values = report.as_dict()
    assert values["accuracy"] == report.correct / 397 and values["compression_rate"] == report.compression_rate
    assert values["change"]["p_value"] == report.change.p_value
    assert values["latency"]["verdict"] == report.latency.verdict


def test_something_else_is_no_report():
    for wrong in ({}, {"method": "x"}, {"change": {"broke": 1}}, {"layers": 3}, {"latency": "fast"}):
        with pytest.raises(ValueError, match="this is not a report"):
            Report.from_dict(wrong)


def test_the_card_shows_every_figure_with_its_unit(report):
    text = str(report)
    assert text.startswith("MagnitudePruning(sparsity=0.95): lenet300(") and "validation split" in text.splitlines()[0]
    for figure in (
        f"({report.correct} of 397 correct)",
        f"{report.file_bytes:,} bytes packed",
        f"{report.entropy_coded_bytes:,} bytes entropy-coded",
        f"broke {report.change.broke}",
        f"alpha {report.compression_rate:.3g} by parameters",
        "ms for 2 images on 1 thread,",
        "the baseline against itself",
        report.latency.verdict,
        "indices",
        "CSR",
    ):
        assert figure in text, figure


def test_a_partial_card_says_how_far_it_is(pruned, data, baseline):
    first = next(measuring(pruned, data, baseline=baseline))
    assert "measuring: 128 of 397 images" in str(first) and "bytes" not in str(first).split("\n\n")[0]
