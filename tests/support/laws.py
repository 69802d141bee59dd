"""The laws of every method, as functions of a method class: what METHODS lists is tested by being listed.

Each law finds what it needs from the class's own declarations (knobs, `identity_settings`, `needs`), so that it knows
no method by name. `LAWS` holds them all.
"""

import copy
import inspect
import math
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compedu import hashing, training
from compedu.datasets import DATASETS
from compedu.datasets.dataset import Dataset
from compedu.errors import Cancelled, CompressionError, MeaningChanged
from compedu.files import load, model_bytes, save
from compedu.forms import Form
from compedu.knobs import LARGEST, Knob, knobs
from compedu.methods import FAMILIES, METHODS, LayerByLayer, Method, Pipeline, SelectiveMethod
from compedu.methods.layers import compressible
from compedu.methods.method import NEEDS
from compedu.methods.training_method import TrainingMethod
from compedu.metrics import measure
from compedu.networks import build

QUICK = {"epochs": 1, "calibration_images": 16}  # knobs that decide how long a call takes
LONG = ("epochs", "rounds")  # the longest call that these allow never ends
CODINGS = ("packed", "huffman", "ans")
DOCUMENTED = ("$", "Stored:", "Skips:", "Paper:")


@cache
def data() -> Dataset:
    """A few real digits, 28 x 28."""
    return DATASETS["digits"]().shortened(train=96, validation=32, test=32)


def tiny() -> Dataset:
    """A dozen of these digits: for laws that call often."""
    return data().shortened(train=12, validation=8, test=8)


def misfit() -> Dataset:
    """Digits of another size than the networks here take."""
    return DATASETS["digits"](size=19).shortened(train=64, validation=8, test=8)


def lively(model: nn.Module) -> nn.Module:
    """Give batch norms statistics as after training; fresh ones are nearly the identity."""
    generator = torch.Generator().manual_seed(0)
    for norm in [module for module in model.modules() if isinstance(module, _BatchNorm)]:
        nn.init.normal_(norm.running_mean, 0, 0.2, generator)
        nn.init.uniform_(norm.running_var, 0.5, 2.0, generator)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator)
    return model.eval()


def plain() -> nn.Module:
    """A small LeNet-5."""
    return build("lenet5(size=28, width=0.4)", seed=1)


def normalized() -> nn.Module:
    """A network with batch norms and shortcuts."""
    return lively(build("resnet(size=28, width=0.5, blocks=1)", seed=1))


def normalized_linear() -> nn.Module:
    """A network of linear layers with batch norms behind them, which has no spec."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        hidden = nn.Linear(784, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.BatchNorm1d(16)
        return lively(nn.Sequential(nn.Flatten(), *hidden, nn.ReLU(), nn.Linear(16, 10)))


NETWORKS = (plain, normalized, normalized_linear)


class Odd(nn.Module):
    """A network that is none of ours, with layers that few methods can handle."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.relu = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.grouped, self.depthwise = nn.Conv2d(8, 16, 3, groups=2), nn.Conv2d(16, 16, 3, groups=16)
        self.wrapped = nn.Conv2d(16, 8, 3, padding=1, padding_mode="circular")
        self.up, self.prelu = nn.ConvTranspose2d(8, 8, 2, 2), nn.PReLU(8)
        self.fc, self.head = nn.Linear(8, 12), nn.Linear(12, 10)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.relu(self.grouped(self.relu(self.norm(self.stem(x))))))
        x = self.prelu(self.up(self.wrapped(x))).mean((2, 3))
        return self.head(self.relu(self.fc(x))) * self.gain


def quick(cls: type[Method], **given) -> Method:
    """The method with its defaults, but short."""
    return cls(**{name: value for name, value in QUICK.items() if name in knobs(cls)} | given)


def points(declared: Knob) -> list:
    """Two legal values beside the default: the ends of what is worth showing."""
    spread = [value for value in declared.points() if value != declared.default]
    return spread[:: max(1, len(spread) - 1)][:2]


def variants(cls: type[Method]) -> Iterator[Method]:
    """The quick method, and each of its knobs moved; knobs that cost time stay."""
    yield quick(cls)
    for name, declared in knobs(cls).items():
        for value in () if name in QUICK else points(declared):
            yield quick(cls, **{name: value})


@cache
def compressed(method: Method, make: Callable[[], nn.Module] = plain) -> nn.Module | None:
    """What `method` makes of a network, or None where it refuses, by name; not to be changed."""
    try:
        return method(make(), data())
    except CompressionError as refusal:
        assert type(method).__name__ in str(refusal) and not isinstance(refusal, MeaningChanged), refusal
        return None


def suited(cls: type[Method]) -> tuple[Callable[[], nn.Module], ...]:
    """The networks that the laws try `cls` on: those of `NETWORKS` that it takes.

    It takes a convolutional network, one without batch norms too unless it declares that it needs some.
    """
    found = tuple(make for make in NETWORKS if compressed(quick(cls), make) is not None)
    assert normalized in found and (plain in found) != cls.needs_batch_norm
    return found


def logits(model: nn.Module) -> Tensor:
    """The scores of the validation images."""
    with torch.inference_mode():
        return model.eval()(data().x_validation)


def state(model: nn.Module) -> dict:
    """All that a careless method could change of a model: tensors, modes, attributes, hooks."""
    return {
        "tensors": hashing.model_digest(model),
        "gradients": [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()],
        "modules": [(name, type(m), m.training, sorted(m.__dict__)) for name, m in model.named_modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


# The laws.


def defaults_construct(cls):
    method = cls()
    assert method.needs in NEEDS and cls.family in FAMILIES and cls.version >= 1
    assert repr(method) == f"{cls.__name__}()"
    if cls.identity_settings is not None:
        assert cls.identity_settings.keys() <= knobs(cls).keys() and cls(**cls.identity_settings)
    for name, declared in knobs(cls).items():
        assert declared.help and not declared.help[0].isupper() and not declared.help.endswith(".")
        for value in declared.points():
            assert declared.allows(value), f"{name} would show {value!r}, which is illegal"


def values_outside_the_range_are_refused_by_name(cls):
    for name, declared in knobs(cls).items():
        bad = list(declared.bad_values())
        if declared.per_layer:
            bad += [{}, {1: declared.default}] + [{"*": value} for value in declared.bad_values()]
        assert bad
        for value in bad:
            with pytest.raises(ValueError) as refusal:
                cls(**{name: value})
            message = str(refusal.value)
            assert message.startswith(f"{cls.__name__}.{name} must be {declared}"), message
            assert repr(value) in message and declared.help in message


def the_ends_of_what_is_legal_work_or_are_refused_by_name(cls):
    """No legal value ends in an error of torch: not the least, not the largest, not the smallest fraction.

    The knobs of all trainings are tried on those that train and do nothing else.
    """
    others = knobs(TrainingMethod) if cls.family != "training" else {}
    for name, declared in knobs(cls).items():
        for value in () if name in (*LONG, *others) else ends(declared):
            short = {long: 1 for long in LONG if long in knobs(cls)}
            try:
                assert logits(quick(cls, **short | {name: value})(suited(cls)[0](), tiny())).shape == (32, 10)
            except ValueError as refusal:
                assert cls.__name__ in str(refusal) or "diverged" in str(refusal), refusal


def ends(declared: Knob) -> list:
    """The legal values at the ends of a knob's range; where a fraction has none, the ends of what a float can be."""
    if declared.choices or declared.type not in (int, float):
        return []
    tried = (declared.low, declared.high, 5e-324, 1 - 2**-53, 2**70, 1.7976931348623157e308, LARGEST)
    return list({repr(value): value for value in tried if declared.allows(value)}.values())


def the_repr_is_the_method(cls):
    names = {method.__name__: method for method in (*METHODS, cls)} | {"nan": math.nan}
    for method in variants(cls):
        assert eval(repr(method), names) == method
    pair = quick(cls) | cls()
    assert eval(repr(pair), names) == pair and isinstance(pair, Pipeline)


def the_key_tells_every_setting_apart(cls):
    model, data_ = plain(), data()
    keys = [method.key(model, data_) for method in variants(cls)]
    assert len(set(keys)) == len(keys)
    assert quick(cls).key(plain(), data_) == keys[0]
    assert quick(cls).key(normalized(), data_) != keys[0] != quick(cls).key(model, misfit())


def the_input_is_untouched(cls):
    for make in suited(cls):
        model = make().train()
        before = state(model)
        result = quick(cls)(model, data())
        assert state(model) == before
        assert not any(module.training for module in result.modules())
        ours, theirs = ({p.data_ptr() for p in m.parameters()} for m in (model, result))
        assert not ours & theirs


def the_same_seed_gives_the_same_result(cls):
    results = []
    for global_seed in (1, 2):  # the library's own random stream may be anywhere, and stays there
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        results.append(quick(cls)(suited(cls)[0](), data()))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert hashing.model_digest(results[0]) == hashing.model_digest(results[1])


def another_seed_gives_another_result(cls):
    if "seed" in knobs(cls):
        other = compressed(quick(cls, seed=cls().seed + 1))
        assert hashing.model_digest(compressed(quick(cls))) != hashing.model_digest(other)


def the_neutral_setting_reproduces_the_model(cls):
    if cls.identity_settings is not None:
        for make in suited(cls):
            same = compressed(cls(**cls.identity_settings), make)
            torch.testing.assert_close(logits(same), logits(make()), rtol=1e-4, atol=1e-5)


def the_result_gives_scores(cls):
    for method in variants(cls):
        result = compressed(method)
        if result is not None:
            scores = logits(result)
            assert scores.shape == (32, 10) and torch.isfinite(scores).all()
            assert result.compression.steps == (repr(method),)


def forward_equals_dense(cls):
    for method in variants(cls):
        result = compressed(method)
        if result is not None:
            compare_with_dense(result, data())
    for make in suited(cls):
        compare_with_dense(compressed(quick(cls), make), data())


def compare_with_dense(model: nn.Module, images: Dataset) -> int:
    """Assert in float64 that every form gives what its dense layer gives; return the number of forms that ran."""
    ran = []

    def compare(form: Form, inputs: tuple[Tensor, ...], y: Tensor) -> None:
        expected = by_law(form, form.act(inputs[0]))
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9 * float(y.abs().max()))
        ran.append(form)

    model = copy.deepcopy(model).double()
    for form in [module for module in model.modules() if isinstance(module, Form)]:
        form.register_forward_hook(compare)
    with torch.inference_mode():
        model(images.x_validation.double())
    return len(ran)


def by_law(form: Form, x: Tensor) -> Tensor:
    """What a form must give for `x`, its input through `act`: the dense product, times its output scale, plus bias."""
    bias = form.dense_bias()
    if not form.scales_output:
        return form.geometry.apply(x, form.dense(), bias)
    y = form.geometry.apply(x, form.dense(), None) * form.output_scale(x)
    return y if bias is None else y + bias.view(form.geometry.per_channel)


class Attentive(nn.Module):
    """A small vision transformer, whose fast path reads weights without calling layers, and a layer read by itself."""

    def __init__(self):
        super().__init__()
        self.patch, self.relu, self.spread = nn.Conv2d(1, 8, 7, 7), nn.ReLU(), nn.Conv2d(8, 8, 1)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.again, self.head = nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(self.relu(self.patch(x))).flatten(2).transpose(1, 2)
        x = self.again(self.encoder(x).mean(1))
        return self.head(self.relu(torch.nn.functional.linear(x, self.again.weight, self.again.bias)))


def attentive() -> nn.Module:
    """The same vision transformer at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Attentive().eval()


def compressed_layers_mean_their_dense_kernels_wherever_they_are_read(cls):
    """With and without gradients: torch's encoder goes another way without."""
    try:
        result = quick(cls)(attentive(), data())
    except CompressionError as refusal:
        assert not isinstance(refusal, MeaningChanged), refusal
        return
    exact = copy.deepcopy(result).double()
    for form in [module for module in exact.modules() if isinstance(module, Form)]:
        form.act = nn.Identity()
    dense = copy.deepcopy(exact)
    for name, form in [(name, module) for name, module in exact.named_modules() if isinstance(module, Form)]:
        parent, _, last = name.rpartition(".")
        setattr(dense.get_submodule(parent), last, form.dense_layer())
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            found, expected = (model(data().x_validation[:4].double()) for model in (exact, dense))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max()))


def a_file_gives_back_the_same_model_and_its_length_is_the_size(cls):
    for method in variants(cls):
        result = compressed(method)
        if result is not None:
            _save_and_load(result, "packed")
    for coding in CODINGS:
        _save_and_load(compressed(quick(cls), normalized), coding)
    if (result := compressed(quick(cls), normalized_linear)) is not None:
        _save_and_load(result, "packed", into=None if hasattr(result, "spec") else normalized_linear())


def _save_and_load(model: nn.Module, coding: str, into: nn.Module | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.ce")
        assert save(model, path, coding) == path.stat().st_size == len(model_bytes(model, coding))
        assert torch.equal(logits(load(path, into)), logits(model))


def reported_bytes_are_bytes_written(cls):
    for make in suited(cls):
        model = compressed(quick(cls), make)
        report = measure(model, data(), speed=False)
        assert report.file_bytes == len(model_bytes(model)) == sum(report.size_by_role.values())
        assert report.entropy_coded_bytes == len(model_bytes(model, "ans"))
        assert report.method == repr(quick(cls)) and report.skipped == model.compression.skipped


def layers_that_stay_are_named_with_the_reason(cls):
    if not issubclass(cls, SelectiveMethod):
        return
    assert len(compressible(Odd())[1]) == 4
    every_layer_is_done_or_named(quick(cls), lively(Odd()), data())
    first = next(iter(compressible(plain())[0]))
    skipped = {s.layer: s.reason for s in quick(cls, layers="-first")(plain(), data()).compression.skipped}
    assert "not selected" in skipped[first]


def every_layer_is_done_or_named(method: Method, model: nn.Module, images: Dataset) -> nn.Module | None:
    """Assert that `method` changes each layer of `model` or names it with a reason; return its result, if any."""
    layers, others = compressible(model)
    try:
        result = method(model, images)
    except CompressionError as refusal:
        assert all(name in str(refusal) for name in layers | others), refusal
        return None
    named = {s.layer for s in result.compression.skipped}
    assert named >= others.keys()
    for name in layers.keys() - named:
        after = result.get_submodule(name)
        assert not _unchanged(layers[name], after, method.needs == "training"), f"{name} was left out"
    assert all(s.step == repr(method) and s.reason for s in result.compression.skipped)
    return result


def _unchanged(before: nn.Module, after: nn.Module, trained: bool) -> bool:
    if type(before) is not type(after) or before.weight.shape != after.weight.shape:
        return False
    return trained or torch.equal(before.weight, after.weight)


def unknown_layers_are_refused_by_name(cls):
    if issubclass(cls, SelectiveMethod):
        with pytest.raises(CompressionError, match="'nosuch'.*conv1"):
            quick(cls, layers="nosuch")(plain(), data())
    for name, declared in knobs(cls).items():
        if declared.per_layer:
            with pytest.raises(CompressionError, match=rf"{cls.__name__}\.{name}: no layer fits 'nosuch\*'"):
                quick(cls, **{name: {"nosuch*": declared.default}})(plain(), data())


def forms_of_other_methods_are_named_or_handled(cls):
    """A layer that is already compressed is compressed further, or stays with the reason: never a crash."""
    if issubclass(cls, LayerByLayer):
        first = quick(cls)(plain(), data())
        try:
            second = quick(cls)(first, data())
        except CompressionError as refusal:
            assert cls.__name__ in str(refusal) and "already" in str(refusal)
        else:
            assert second.compression.steps == (repr(quick(cls)),) * 2


class Tied(nn.Module):
    """A network in which two layers are one and the same weight."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 4, 5, stride=4), nn.ReLU()
        self.first, self.second, self.head = nn.Linear(144, 144), nn.Linear(144, 144), nn.Linear(144, 10)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x)).flatten(1)
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


def tied_layers_stay_tied_or_are_named(cls):
    """A weight that two layers share is never stored twice, behind the learner's back."""
    torch.manual_seed(0)
    try:
        result = quick(cls)(Tied(), data())
    except CompressionError as refusal:
        assert cls.__name__ in str(refusal)
        return
    layers = dict(result.named_modules())
    if isinstance(layers.get("second"), nn.Linear) and "first" in layers:
        assert layers["second"].weight is layers["first"].weight
    if issubclass(cls, LayerByLayer):
        skipped = {s.layer: s.reason for s in result.compression.skipped}
        assert "shares its weight with second" in skipped["first"] and "with first" in skipped["second"]


def weights_that_are_not_finite_are_refused(cls):
    model = plain()
    model.conv2.weight.data[3, 2] = math.nan
    with pytest.raises(CompressionError, match=r"conv2\.weight holds 25 value\(s\) that are not finite"):
        quick(cls)(model, data())


def a_network_with_nothing_to_compress_is_refused_by_name(cls):
    empty = nn.Sequential(nn.Flatten(), nn.ReLU())
    with pytest.raises(CompressionError, match=cls.__name__):
        quick(cls)(empty, data())


def missing_data_and_images_that_do_not_fit_are_refused(cls):
    for method in variants(cls):
        if method.needs != "weights":
            with pytest.raises(CompressionError, match=f"{cls.__name__}.* needs data for {method.needs}"):
                method(plain())
            with pytest.raises(CompressionError, match="19, 19"):
                method(plain(), misfit())


def training_can_be_watched_and_cancelled(cls):
    if quick(cls).needs != "training":
        return
    seen, model = [], plain()

    def stop(step: training.Step) -> None:
        seen.append(step)
        raise Cancelled

    before = state(model)
    with training.listening(stop), pytest.raises(Cancelled):
        quick(cls)(model, data())
    assert len(seen) == 1 and seen[0].done == 1 < seen[0].steps
    assert state(model) == before


def the_docstring_is_complete(cls):
    text = inspect.getdoc(cls)
    assert text and text.split("\n")[0].endswith("."), "the first line is one sentence"
    places = [text.find(part) for part in DOCUMENTED]
    assert -1 not in places and places == sorted(places), f"{cls.__name__} needs {DOCUMENTED} in this order"


LAWS = (
    defaults_construct,
    values_outside_the_range_are_refused_by_name,
    the_ends_of_what_is_legal_work_or_are_refused_by_name,
    the_repr_is_the_method,
    the_key_tells_every_setting_apart,
    the_input_is_untouched,
    the_same_seed_gives_the_same_result,
    another_seed_gives_another_result,
    the_neutral_setting_reproduces_the_model,
    the_result_gives_scores,
    forward_equals_dense,
    compressed_layers_mean_their_dense_kernels_wherever_they_are_read,
    a_file_gives_back_the_same_model_and_its_length_is_the_size,
    reported_bytes_are_bytes_written,
    layers_that_stay_are_named_with_the_reason,
    unknown_layers_are_refused_by_name,
    forms_of_other_methods_are_named_or_handled,
    tied_layers_stay_tied_or_are_named,
    weights_that_are_not_finite_are_refused,
    a_network_with_nothing_to_compress_is_refused_by_name,
    missing_data_and_images_that_do_not_fit_are_refused,
    training_can_be_watched_and_cancelled,
    the_docstring_is_complete,
)
