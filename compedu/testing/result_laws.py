"""Laws of what a method makes: from which inputs, by which seed, what it computes, how large it is on disk."""

import contextlib
import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from compedu import hashing, training
from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset
from compedu.errors import Cancelled, CompressionError, MeaningChanged
from compedu.files import load, model_bytes, save
from compedu.forms import Form
from compedu.knobs import knobs
from compedu.methods import Method
from compedu.metrics import measure
from compedu.testing.networks import attentive, data, normalized, normalized_linear, plain
from compedu.testing.trying import compressed, logits, quick, refused, state, suited, variants

CODINGS = ("packed", "huffman", "ans")


def the_input_is_untouched(cls: type[Method]) -> None:
    """The given network stays as it is, and the result shares no tensor with it."""
    for make in suited(cls):
        model = make().train()
        before = state(model)
        result = quick(cls)(model, data())
        assert state(model) == before
        assert not any(module.training for module in result.modules())
        ours, theirs = ({p.data_ptr() for p in m.parameters()} for m in (model, result))
        assert not ours & theirs
    for layers in ("first", "last") if "layers" in knobs(cls) else ():  # what is left out could be shared, and written
        model = suited(cls)[0]()
        before = state(model)
        with contextlib.suppress(CompressionError):  # it may do nothing with this layer
            quick(cls, layers=layers)(model, data())
        assert state(model) == before, f"layers={layers!r}"


def the_same_seed_gives_the_same_result(cls: type[Method]) -> None:
    """A call repeats bit by bit, wherever the global random streams stand, and leaves them there."""
    results = []
    for global_seed in (1, 2):  # the library's own random stream may be anywhere, and stays there
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        results.append(quick(cls)(suited(cls)[0](), data()))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert hashing.model_digest(results[0]) == hashing.model_digest(results[1])


def another_seed_gives_another_result(cls: type[Method]) -> None:
    """Where there is a seed, another one gives another result."""
    if "seed" in knobs(cls):
        other = compressed(quick(cls, seed=cls().seed + 1))
        assert hashing.model_digest(compressed(quick(cls))) != hashing.model_digest(other)


def the_identity_settings_reproduce_the_model(cls: type[Method]) -> None:
    """The identity settings give a network that computes what the given one does."""
    if cls.identity_settings is not None:
        for make in suited(cls):
            same = compressed(cls(**cls.identity_settings), make)
            torch.testing.assert_close(logits(same), logits(make()), rtol=1e-4, atol=1e-5)


def the_result_gives_logits(cls: type[Method]) -> None:
    """The result gives finite logits, and its record holds the step."""
    for method in variants(cls):
        result = compressed(method)
        if result is not None:
            scores = logits(result)
            assert scores.shape == (32, 10) and torch.isfinite(scores).all()
            assert compression_of(result).steps == (repr(method),)


def forward_equals_dense(cls: type[Method]) -> None:
    """Every form gives what its dense layer gives, in float64."""
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


def compressed_layers_mean_their_dense_weights_wherever_they_are_read(cls: type[Method]) -> None:
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


def a_file_gives_back_the_same_model_and_its_length_is_the_size(cls: type[Method]) -> None:
    """A model file gives back the same logits, in every coding, and is as long as said."""
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
        assert torch.equal(logits(load(path, into, example=data().example)), logits(model))


def reported_bytes_are_bytes_written(cls: type[Method]) -> None:
    """A report's bytes are those of a file that is written."""
    for make in suited(cls):
        model = compressed(quick(cls), make)
        report = measure(model, data(), speed=False)
        assert report.file_bytes == len(model_bytes(model)) == sum(report.size_by_role.values())
        assert report.entropy_coded_bytes == len(model_bytes(model, "ans"))
        assert report.method == repr(quick(cls)) and report.skipped == compression_of(model).skipped


def training_can_be_watched_and_cancelled(cls: type[Method]) -> None:
    """A listener sees the steps of a training, and can cancel it; the given network stays."""
    if quick(cls).needs != "training":
        return
    seen = []
    model = plain()

    def stop(step: training.Step) -> None:
        seen.append(step)
        raise Cancelled

    before = state(model)
    with training.listening(stop), refused(Cancelled):
        quick(cls)(model, data())
    assert len(seen) == 1 and seen[0].done == 1 < seen[0].steps
    assert state(model) == before


LAWS = (
    the_input_is_untouched,
    the_same_seed_gives_the_same_result,
    another_seed_gives_another_result,
    the_identity_settings_reproduce_the_model,
    the_result_gives_logits,
    forward_equals_dense,
    compressed_layers_mean_their_dense_weights_wherever_they_are_read,
    a_file_gives_back_the_same_model_and_its_length_is_the_size,
    reported_bytes_are_bytes_written,
    training_can_be_watched_and_cancelled,
)
