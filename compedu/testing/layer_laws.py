"""Laws of layers that stay, and of networks and data that are refused: each by name, with the reason."""

import math

import torch
from torch import nn

from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.knobs import knobs
from compedu.methods import LayerByLayer, Method, SelectiveMethod
from compedu.methods.layers import compressible
from compedu.testing.networks import Odd, Tied, data, lively, misfit, plain
from compedu.testing.trying import quick, refused, variants


def layers_that_stay_are_named_with_the_reason(cls: type[Method]) -> None:
    """Every layer is compressed or named with the reason why it is not."""
    if not issubclass(cls, SelectiveMethod):
        return
    assert len(compressible(Odd())[1]) == 4
    every_layer_is_done_or_named(quick(cls), lively(Odd()), data())
    first = next(iter(compressible(plain())[0]))
    skipped = {s.layer: s.reason for s in compression_of(quick(cls, layers="-first")(plain(), data())).skipped}
    assert "not selected" in skipped[first]


def every_layer_is_done_or_named(method: Method, model: nn.Module, images: Dataset) -> nn.Module | None:
    """Assert that `method` changes each layer of `model` or names it with a reason; return its result, if any."""
    layers, others = compressible(model)
    try:
        result = method(model, images)
    except CompressionError as refusal:
        assert all(name in str(refusal) for name in layers | others), refusal
        return None
    named = {s.layer for s in compression_of(result).skipped}
    assert named >= others.keys()
    for name in layers.keys() - named:
        after = result.get_submodule(name)
        assert not _unchanged(layers[name], after, method.needs == "training"), f"{name} was left out"
    assert all(s.step == repr(method) and s.reason for s in compression_of(result).skipped)
    return result


def _unchanged(before: nn.Module, after: nn.Module, trained: bool) -> bool:
    if type(before) is not type(after) or before.weight.shape != after.weight.shape:
        return False
    return trained or torch.equal(before.weight, after.weight)


def unknown_layers_are_refused_by_name(cls: type[Method]) -> None:
    """A selection or a mapping that names no layer is refused."""
    if issubclass(cls, SelectiveMethod):
        with refused(CompressionError, "'nosuch'.*conv1"):
            quick(cls, layers="nosuch")(plain(), data())
    for name, declared in knobs(cls).items():
        if declared.per_layer:
            with refused(CompressionError, rf"{cls.__name__}\.{name}: no layer matches 'nosuch\*'"):
                quick(cls, **{name: {"nosuch*": declared.default}})(plain(), data())


def forms_of_other_methods_are_named_or_handled(cls: type[Method]) -> None:
    """A layer that is already compressed is compressed further, or stays with the reason: never a crash."""
    if issubclass(cls, LayerByLayer):
        first = quick(cls)(plain(), data())
        try:
            second = quick(cls)(first, data())
        except CompressionError as refusal:
            layers, others = compressible(first)
            assert all(name in str(refusal) for name in (cls.__name__, *layers, *others)), refusal
        else:
            assert compression_of(second).steps == (repr(quick(cls)),) * 2


def tied_layers_stay_tied_or_are_named(cls: type[Method]) -> None:
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
        skipped = {s.layer: s.reason for s in compression_of(result).skipped}
        assert "shares its weight with second" in skipped["first"] and "with first" in skipped["second"]


def weights_that_are_not_finite_are_refused(cls: type[Method]) -> None:
    """NaN in a weight is refused with its name."""
    model = plain()
    model.conv2.weight.data[3, 2] = math.nan
    with refused(CompressionError, r"conv2\.weight holds 25 value\(s\) that are not finite"):
        quick(cls)(model, data())


def a_network_with_nothing_to_compress_is_refused_by_name(cls: type[Method]) -> None:
    """A network without weights is refused by the method's name."""
    empty = nn.Sequential(nn.Flatten(), nn.ReLU())
    with refused(CompressionError, cls.__name__):
        quick(cls)(empty, data())


def missing_data_and_images_that_do_not_fit_are_refused(cls: type[Method]) -> None:
    """Missing data, and images of another size, are refused with what is needed."""
    for method in variants(cls):
        if method.needs != "weights":
            with refused(CompressionError, f"{cls.__name__}.* needs data for {method.needs}"):
                method(plain())
            with refused(CompressionError, "19, 19"):
                method(plain(), misfit())


LAWS = (
    layers_that_stay_are_named_with_the_reason,
    unknown_layers_are_refused_by_name,
    forms_of_other_methods_are_named_or_handled,
    tied_layers_stay_tied_or_are_named,
    weights_that_are_not_finite_are_refused,
    a_network_with_nothing_to_compress_is_refused_by_name,
    missing_data_and_images_that_do_not_fit_are_refused,
)
