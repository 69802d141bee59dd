"""Bad input, each kind refused by name: where it is, what is wrong, what is allowed, what to do; nothing is changed."""

import dataclasses
import math

import laws
import pytest
import torch
from laws import data, misfit, normalized, plain, quick, state
from torch import nn

import compedu as ce
from compedu import files
from compedu.errors import CompressionError, FileFormatError
from compedu.files import header
from compedu.forms import Quantized
from compedu.knobs import knobs
from compedu.methods import METHODS, SelectiveMethod
from compedu.methods.layers import compressible

methods = pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)


def refusal(call, *arguments, kind=CompressionError, untouched=(), **options):
    """The message with which `call` refuses; the networks `untouched` are the same afterwards."""
    before = [state(model) for model in untouched]
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert [state(model) for model in untouched] == before
    return str(caught.value)


def expect(message, *parts):
    """Assert that the message holds all of `parts`."""
    assert [part for part in parts if part not in message] == [], message


# Knobs: that each bad value of each knob is refused is a law; here is what several knobs say together.


@methods
def test_a_knob_that_a_method_does_not_have_is_refused(cls):
    expect(refusal(cls, kind=TypeError, nosuch=1), cls.__name__, "nosuch")


@pytest.mark.parametrize("cls", [ce.MagnitudePruning, ce.FilterPruning], ids=lambda cls: cls.__name__)
def test_sparsity_by_layer_is_refused_where_all_layers_are_ranked_together(cls):
    message = refusal(cls, kind=ValueError, budget="global", sparsity={"conv*": 0.5})
    expect(message, f"{cls.__name__}.sparsity must be one number when budget is 'global'", "got {'conv*': 0.5}")


BOTH = "model, data = compedu.load('lenet5', 'digits')"


@pytest.mark.parametrize("given, said", [
    ((1, 2), f"got a tuple; compedu.load returns both: {BOTH}"),
    ("lenet5", f"got 'lenet5'; compedu.load returns both: {BOTH}"),
    (None, "got None"), (nn.ReLU, "got the class ReLU: make one of it, ReLU(...)"), ([], "got a list"),
], ids=repr)  # fmt: skip
def test_what_is_not_a_network_is_refused_wherever_one_is_needed(given, said, tmp_path):
    method, images = ce.MagnitudePruning(), data()
    takers = [
        lambda: method(given), lambda: (method | method)(given), lambda: ce.evaluate(given, images),
        lambda: ce.measure(given, images), lambda: ce.save(given, tmp_path / "x"), lambda: ce.deploy(given),
        lambda: ce.explore(method, given, images), lambda: ce.sweep([method], given, images),
    ]  # fmt: skip
    takers += [] if given is None else [lambda: ce.measure(plain(), images, baseline=given)]
    for taker in takers:
        expect(refusal(taker, kind=TypeError), f"a network is needed, a torch.nn.Module, {said}")


@pytest.mark.parametrize("given", [(1, 2), "digits", nn.ReLU(), torch.ones(3)], ids=repr)
def test_what_is_not_a_data_set_is_refused_wherever_one_is_needed(given):
    model, method = plain(), ce.MagnitudePruning()
    for taker in (
        lambda: method(model, given), lambda: ce.evaluate(model, given), lambda: ce.measure(model, given),
        lambda: ce.explore(method, model, given), lambda: ce.sweep([method], model, given),
    ):  # fmt: skip
        expect(refusal(taker, kind=TypeError), "a compedu data set is needed, such as compedu.load_data(", "), got ")


@pytest.mark.parametrize("given", ["TruncatedSVD", None, nn.ReLU()], ids=repr)
def test_what_is_not_a_method_is_refused_wherever_one_is_needed(given):
    model, images = plain(), data()
    for taker in (
        lambda: ce.MagnitudePruning() | given, lambda: ce.explore(given, model, images),
        lambda: ce.sweep([ce.MagnitudePruning(), given], model, images),
    ):  # fmt: skip
        expect(refusal(taker, kind=TypeError), "a method is needed, such as MagnitudePruning(sparsity=0.5), got ")
    expect(refusal(lambda: ce.MagnitudePruning() | ce.FineTune, kind=TypeError), "the class FineTune: make one of it")
    alone = refusal(ce.sweep, ce.MagnitudePruning(), model, images, kind=TypeError)
    expect(alone, "a sweep goes over several methods: put MagnitudePruning() into a list")


@pytest.mark.parametrize("cls", [ce.TuckerDecomposition], ids=lambda cls: cls.__name__)
def test_weights_that_outgrow_half_precision_are_refused(cls):
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 4)).half()
    model[0].weight.data.fill_(20_000)
    message = refusal(cls(rank=0.3), model, untouched=[model])
    expect(message, "of finite weights: 0.", "not finite (NaN or infinity); the type of the weights", "model.float()")


def test_a_student_that_is_no_network_is_refused():
    message = refusal(ce.SoftTargetDistillation, kind=ValueError, student="lenet6")
    expect(message, "SoftTargetDistillation.student", "no network is called 'lenet6'", "there are: lenet300, lenet5")
    message = refusal(ce.SoftTargetDistillation, kind=ValueError, student="lenet5(width=-1)")
    expect(message, "SoftTargetDistillation.student", "lenet5.width must be a positive number, got -1")


def test_learning_nothing_from_scratch_is_refused():
    message = refusal(ce.CReLU, kind=ValueError, start="scratch", epochs=0)
    expect(message, "CReLU.epochs must be at least 1 when start is 'scratch', got 0")


def test_settings_that_leave_nothing_of_a_layer_or_cannot_be_reached_are_refused():
    model = plain()
    message = refusal(ce.MagnitudePruning(sparsity={"conv1": 0.999, "*": 0.5}), model, untouched=[model])
    expect(message, "MagnitudePruning(sparsity={'conv1': 0.999, '*': 0.5})", "no weight in conv1", "layers='-conv1'")
    message = refusal(ce.FilterPruning(sparsity=0.999, budget="global"), model, data(), untouched=[model])
    expect(message, "FilterPruning(sparsity=0.999, budget='global')", "every layer keeps one", "lower the sparsity")


# Networks


SELECTIVE = [cls for cls in METHODS if issubclass(cls, SelectiveMethod)]


@pytest.mark.parametrize("cls", SELECTIVE, ids=lambda cls: cls.__name__)
def test_a_selection_that_leaves_no_layer_is_refused_with_the_reason_of_each(cls):
    model = plain()
    message = refusal(quick(cls, layers="all,-all"), model, data(), untouched=[model])
    expect(message, quick(cls, layers="all,-all").__repr__(), "nothing", "not selected", *compressible(model)[0])


@methods
@pytest.mark.parametrize("empty", [nn.Sequential(), nn.Sequential(nn.Flatten(), nn.ReLU())], ids=["bare", "no weights"])
def test_a_network_with_nothing_to_compress_is_refused_in_a_pipeline_too(cls, empty):
    expect(refusal(ce.FineTune(epochs=0) | quick(cls), empty, data(), untouched=[empty]), "FineTune(epochs=0)")
    laws.a_network_with_nothing_to_compress_is_refused_by_name(cls)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("tensor", ["conv.weight", "fc.bias", "stage2.0.norm1.running_var"])
def test_values_that_are_not_finite_are_refused_wherever_they_are(tensor, value):
    model = normalized()
    model.state_dict()[tensor].view(-1)[1] = value
    for refused in (ce.MagnitudePruning(), ce.MagnitudePruning() | ce.LinearQuantization(), ce.FineTune(epochs=1)):
        message = refusal(refused, model, data())
        expect(message, f"{tensor} holds 1 value(s) that are not finite", "load intact weights or train again")
    expect(refusal(ce.measure, model, data()), tensor, "not finite")
    assert sum(int((~torch.isfinite(value)).sum()) for value in model.state_dict().values()) == 1


def test_a_mask_may_hide_with_infinity_but_not_with_what_is_no_number(tmp_path):
    model = plain()
    model.register_buffer("hidden", torch.tensor([0.0, -math.inf]))
    pruned = ce.MagnitudePruning(sparsity=0.5)(model)
    assert ce.measure(pruned, data(), speed=False).macs
    ce.save(pruned, tmp_path / "m.ce")
    assert files.load(tmp_path / "m.ce", into=model).hidden.tolist() == [0.0, -math.inf]
    quantized = ce.LinearQuantization()(plain())
    next(layer for layer in quantized.modules() if isinstance(layer, Quantized)).scale.view(-1)[0] = math.inf
    expect(refusal(ce.MagnitudePruning(layers="conv*"), quantized, data()), "scale holds 1 value(s)", "not finite")
    model.hidden[1] = math.nan
    expect(refusal(ce.MagnitudePruning(), model, data()), "hidden holds 1 value(s) that are not finite")


def test_a_step_of_a_pipeline_that_refuses_leaves_the_network_as_it_was():
    model = plain()
    message = refusal(ce.LinearQuantization(bits=3) | ce.MagnitudePruning(), model, data(), untouched=[model])
    expect(message, "MagnitudePruning() found nothing to compress", "already compressed (Quantized)", "prune before")


# Ranks


def test_a_rank_above_break_even_is_refused_with_the_largest_that_saves():
    model = plain()
    method = ce.TruncatedSVD(rank={"fc1": 190, "*": 0.2})
    message = refusal(method, model, untouched=[model])
    rows, columns = model.fc1.weight.shape
    largest = max(rank for rank in range(rows) if rank * (rows + columns) < rows * columns)
    even = rows * columns / (rows + columns)
    expect(message, repr(method), f"fc1: rank 190 is not below its break-even rank {even:.1f}")
    expect(message, f"choose at most rank {largest}", "allow_larger=True")
    assert ce.TruncatedSVD(rank={"fc1": largest, "*": 0.2})(model).fc1.rank == largest


def test_a_rank_above_the_full_rank_is_refused_even_where_layers_may_grow():
    model = plain()
    message = refusal(ce.TruncatedSVD(rank={"fc1": 5000, "*": 0.2}, allow_larger=True), model, untouched=[model])
    expect(message, "fc1: rank 5000 is above its full rank", f"at most rank {min(model.fc1.weight.shape)}")


def test_fractions_that_save_nothing_are_refused_with_the_reason_of_each_layer():
    model = plain()
    message = refusal(ce.TruncatedSVD(rank=1.0), model, untouched=[model])
    expect(message, "TruncatedSVD(rank=1.0) found nothing to compress", "fc2: not selected by layers='-last'")
    expect(message, "conv1: rank ", "conv2: rank ", "fc1: rank ", "not below its break-even rank", "choose at most")


# Data


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split_is_refused_by_name(split):
    message = refusal(data().shortened, **{split: 0})
    expect(message, "data set 'digits[", f"split {split!r} is empty", "at least one image")


def test_an_empty_calibration_set_is_refused():
    declared = knobs(ce.LinearQuantization)["calibration_images"]
    message = refusal(ce.LinearQuantization, kind=ValueError, activation_bits=8, calibration_images=0)
    must = "LinearQuantization.calibration_images must be a whole number from 1 to 2147483647, got 0"
    expect(message, must, declared.help)
    model = plain()
    message = refusal(ce.LinearQuantization(activation_bits=8), model, untouched=[model])
    expect(message, "LinearQuantization(activation_bits=8) needs data for calibration", "method(model, data)")


def test_images_and_labels_that_do_not_belong_together_are_refused():
    good = data()
    x, y = good.split("train")
    for change, parts in (
        (
            {"x_train": x[:-1]},
            ("split 'train'", "images (95, 1, 28, 28) and labels (96,)", "they must be (N, channels"),
        ),
        ({"x_test": good.x_test[:, 0]}, ("split 'test'", "images (32, 28, 28)")),
        ({"y_train": y + 1}, ("split 'train'", "labels outside 0..9")),
        ({"x_train": x.clone().index_fill_(0, torch.tensor([3]), math.nan)}, ("split 'train'", "not finite")),
    ):
        expect(refusal(dataclasses.replace, good, **change), "data set 'digits[", *parts)


@methods
def test_images_of_the_wrong_size_are_refused_with_their_shape(cls):
    model = ce.build("lenet5(size=20)")
    method = quick(cls)
    message = refusal(lambda: ce.measure(method(model, data()), data(), speed=False), untouched=[model])
    expect(message, "28, 28)")
    assert "cannot take images of 'digits[" in message or "cannot be followed" in message


@pytest.mark.parametrize("method", [ce.RandomPruning(), ce.LinearQuantization(activation_bits=8), ce.FineTune()])
@pytest.mark.parametrize("spec", ["lenet5(channels=3)", "lenet300(channels=3)"])
def test_gray_images_are_refused_by_a_network_for_colors(spec, method):
    model = ce.build(spec)
    message = refusal(lambda: ce.measure(method(model, data()), data(), speed=False), untouched=[model])
    expect(message, model.spec, "cannot take images of 'digits[", "(1, 28, 28)", "build it with this size and")


def test_a_network_of_too_few_classes_is_refused():
    model = ce.build("lenet300(classes=4)")
    message = refusal(ce.measure, model, data(), untouched=[model])
    expect(message, "logits of shape (4,)", "has 10 classes", "build it with classes=10")


def test_a_comparison_with_a_baseline_of_other_images_is_refused():
    model = plain()
    other = ce.metrics.Baseline.of(ce.build("lenet5(size=19)"), misfit())
    message = refusal(ce.measure, model, data(), baseline=other, untouched=[model])
    expect(message, "the baseline was prepared on", "Baseline.of")


# Model files


def newer(intact: bytes, monkeypatch) -> bytes:
    with monkeypatch.context() as later:
        later.setattr(header, "VERSION", header.VERSION + 1)
        return files.model_bytes(plain())


@pytest.mark.parametrize("kind, made, parts", [
    ("cut", lambda intact, _: intact[: len(intact) // 2], ("is damaged: cut short", "checksum", "write the file")),
    ("longer", lambda intact, _: intact + b"\0", ("is damaged", "write the file again with compedu.save")),
    ("flipped", lambda intact, _: intact[:-1] + bytes([intact[-1] ^ 1]), ("is damaged", "copy it again")),
    ("empty", lambda intact, _: b"", ("is empty", "write the file again")),
    ("foreign", lambda intact, _: b"PK\3\4" + intact, ("is not a compedu model file", r"begins with b'PK\x03\x04'")),
    ("newer", newer, (f"format version {header.VERSION + 1}", f"reads version {header.VERSION}", "update compedu")),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_a_file_that_is_no_intact_model_file_is_refused_by_name(kind, made, parts, tmp_path, monkeypatch):
    path, into = tmp_path / f"{kind}.ce", plain()
    content = made(files.model_bytes(ce.MagnitudePruning()(plain())), monkeypatch)
    path.write_bytes(content)
    for use, options in ((ce.load_model, {}), (files.load, {"into": into}), (ce.inspect, {}), (files.describe, {})):
        expect(refusal(use, path, kind=FileFormatError, untouched=[into], **options), str(path), *parts)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_network_is_refused_and_the_network_stays_as_it_was(tmp_path):
    ce.save(plain(), tmp_path / "m.ce")
    other = ce.build("lenet300(size=28)")
    message = refusal(files.load, tmp_path / "m.ce", into=other, untouched=[other])
    expect(message, str(tmp_path / "m.ce"), "conv1", "load into a network of the structure that was saved")


def test_a_network_that_no_file_can_hold_leaves_the_file_that_was_there(tmp_path):
    path, model = tmp_path / "m.ce", plain()
    ce.save(model, path)
    before = path.read_bytes()
    model.fc1.weight = nn.Parameter(model.fc1.weight.detach().to(torch.complex64))
    expect(refusal(ce.save, model, path), "fc1.weight", "complex64", "convert it to one of")
    expect(refusal(ce.save, plain(), path, kind=ValueError, coding="zip"), "packed, huffman, ans")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("method", [ce.GPTQ(), ce.LinearQuantization(activation_bits=8), ce.FineTune()])
def test_images_are_refused_by_a_network_of_half_precision_with_the_call_that_helps(method):
    model = ce.build("lenet5").half()
    message = refusal(lambda: method(model, data()), untouched=[model])
    expect(message, "its weights are torch.float16, the images torch.float32: give model.to(torch.float32)")
