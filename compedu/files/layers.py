"""Layers as a file holds them: a kind, settings and parts; how each is taken apart and rebuilt."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compedu.forms import BLOCKS, FORMS, ActivationQuantizer, Block, Floats, Form, Geometry, Quantized
from compedu.forms.parts import Part

NAMES_ON_DISK: dict[type[nn.Module], str] = {Quantized: "Coded"}  # names in files that predate those of the classes
FORM_KINDS: dict[str, type[Form]] = {NAMES_ON_DISK.get(form, form.__name__): form for form in FORMS}
BLOCK_KINDS: dict[str, type[Block]] = {block.__name__: block for block in BLOCKS}
KEPT = "="  # before the class name of a layer that is not rebuilt, but filled in place
COUNTER = "num_batches_tracked"  # not needed after training: not stored, 0 after loading


def _linear(tensors: dict[str, Tensor], settings: dict[str, Any]) -> nn.Module:
    out, inside = tensors["weight"].shape
    return nn.Linear(inside, out, bias="bias" in tensors, device="meta")


def _convolution(tensors: dict[str, Tensor], settings: dict[str, Any]) -> nn.Module:
    out, inside, *window = tensors["weight"].shape
    inside *= settings.get("groups", 1)
    return nn.Conv2d(inside, out, tuple(window), bias="bias" in tensors, device="meta", **settings)


def _batch_norm(make: type[nn.Module]) -> Callable[[dict[str, Tensor], dict[str, Any]], nn.Module]:
    def rebuild(tensors: dict[str, Tensor], settings: dict[str, Any]) -> nn.Module:
        features = len(next(iter(tensors.values())))
        affine = "weight" in tensors
        tracking = "running_mean" in tensors
        return make(features, affine=affine, track_running_stats=tracking, device="meta", **settings)

    return rebuild


# Layers that are rebuilt, as channels may have been removed or a bias added: how, and from which settings.
_MADE: dict[type[nn.Module], tuple[Callable, tuple[str, ...]]] = {
    nn.Linear: (_linear, ()),
    nn.Conv2d: (_convolution, ("stride", "padding", "dilation", "groups", "padding_mode")),
    nn.BatchNorm1d: (_batch_norm(nn.BatchNorm1d), ("eps", "momentum")),
    nn.BatchNorm2d: (_batch_norm(nn.BatchNorm2d), ("eps", "momentum")),
}
SETTINGS = {made.__name__: names for made, (_, names) in _MADE.items()}
DEFAULTS = {
    "stride": (1, 1),
    "padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "padding_mode": "zeros",
    "eps": 1e-5,
    "momentum": 0.1,
}
_NORMALIZATION = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def kind_of(layer: nn.Module) -> str:
    """Return the name under which a file knows `layer`."""
    name = NAMES_ON_DISK.get(type(layer), type(layer).__name__)
    known = type(layer) in (FORM_KINDS.get(name), BLOCK_KINDS.get(name))
    return name if known or is_made(layer) else KEPT + name


def class_name(kind: str) -> str:
    """Return the name of the class that a file knows as `kind`: what messages call it."""
    renamed = {written: made.__name__ for made, written in NAMES_ON_DISK.items()}
    bare = kind.removeprefix(KEPT)
    return renamed.get(bare, bare)


def is_made(layer: nn.Module) -> bool:
    """Return whether `layer` is rebuilt from the file, which holds all its settings."""
    return type(layer) in _MADE or type(layer) is ActivationQuantizer


def settings_of(layer: nn.Module) -> dict[str, Any]:
    """Return the small values from which `layer` is rebuilt; torch's defaults are left out."""
    if isinstance(layer, (Form, Block)):
        return layer.settings()
    if isinstance(layer, ActivationQuantizer):
        return {"bits": layer.bits}
    names = _MADE[type(layer)][1] if type(layer) in _MADE else ()
    return {name: getattr(layer, name) for name in names if getattr(layer, name) != DEFAULTS[name]}


def geometry_of(layer: nn.Module) -> tuple:
    """Return the fields of the geometry of a form or block, without trailing defaults; empty for any other layer."""
    if not isinstance(layer, (Form, Block)):
        return ()
    g = layer.geometry
    fields = [g.kind, tuple(g.shape), tuple(g.stride), tuple(g.padding), tuple(g.dilation), g.groups]
    plain = Geometry(g.kind, g.shape)
    for name in ("groups", "dilation", "padding", "stride"):
        if fields[-1] != getattr(plain, name):
            break
        fields.pop()
    return tuple(fields)


def parts_of(layer: nn.Module) -> dict[str, Part]:
    """Return what a file must hold of `layer` itself, not of the layers inside it; empty if it has no tensors."""
    if isinstance(layer, (Form, ActivationQuantizer)):
        return layer.stored()
    return {name: Floats(tensor, _role(layer, name)) for name, tensor in own_tensors(layer).items()}


def own_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of `layer` itself."""
    persistent = {
        name: buffer for name, buffer in layer._buffers.items() if name not in layer._non_persistent_buffers_set
    }
    both = layer._parameters | persistent
    return {name: tensor for name, tensor in both.items() if tensor is not None and name != COUNTER}


def _role(layer: nn.Module, name: str) -> str:
    if isinstance(layer, _NORMALIZATION):
        return "normalization"
    return "bias" if name.endswith("bias") else "values"


def make(kind: str, geometry: Geometry | None, settings: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """Return the layer of `kind`; raise `KeyError` for an unknown kind, `ValueError` for impossible values."""
    if kind in FORM_KINDS:
        return FORM_KINDS[kind].restore(geometry, settings, tensors)
    if kind == ActivationQuantizer.__name__:
        if not 0 < float(tensors["act.scale"]) < math.inf:
            raise ValueError(f"an activation scale of {float(tensors['act.scale'])}")
        return ActivationQuantizer(tensors["act.scale"], tensors["act.zero_point"], settings["bits"])
    if kind in BLOCK_KINDS:
        return empty_block(kind, geometry, settings)
    rebuild = {made.__name__: rebuild for made, (rebuild, _) in _MADE.items()}[kind]
    return fill(rebuild(tensors, settings), tensors)


def empty_block(kind: str, geometry: Geometry, settings: dict[str, Any]) -> Block:
    """Return the block of `kind`, its layers on the meta device, which a file fills one by one."""
    with torch.device("meta"):
        return BLOCK_KINDS[kind].restore(geometry, settings)


def owned(tensor: Tensor) -> nn.Parameter:
    """Return `tensor` as a parameter, or itself where it is one already, tied to another name."""
    return (
        tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
    )


def fill(layer: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Give `layer` these tensors, of whatever shape, as its own, remove those that `tensors` lacks, and return it.

    Raise `KeyError` for a tensor that `layer` has no place for.
    """
    for name in own_tensors(layer):
        if name not in tensors:
            (layer._parameters if name in layer._parameters else layer._buffers)[name] = None
    for name, tensor in tensors.items():
        if name in layer._buffers:
            layer._buffers[name] = tensor.data if isinstance(tensor, nn.Parameter) else tensor
        elif name in layer._parameters:
            layer._parameters[name] = owned(tensor)
        else:
            raise KeyError(name)
    if layer._buffers.get(COUNTER) is not None:
        layer._buffers[COUNTER] = torch.zeros((), dtype=torch.int64)
    return layer
