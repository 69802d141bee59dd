"""Whether what a file declares fits a network: places, kinds, shapes and types, before anything is decoded.

Channels may have been removed since the network was built, so a layer may be smaller than the network's. Where it is
tried on an image afterwards, channels may also have been copied, so that a layer is larger.
"""

import math
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from compedu.errors import CompressionError, FileFormatError
from compedu.files import layers
from compedu.files.contents import CONTRADICTIONS, Contents
from compedu.files.schema import Layer, need
from compedu.files.sections import TIED, Record
from compedu.files.stored_parts import check_form, check_quantizer, declared
from compedu.forms import ActivationQuantizer, Block, Form, Geometry
from compedu.forms.declared import DeclaredFloats, Parts, bias, floats, only, shape_of
from compedu.forms.factored import most_channels

ADVICE = "load into a network of the structure that was saved"
RESIZABLE = (nn.Linear, nn.Conv2d, nn.modules.batchnorm._BatchNorm, nn.PReLU)  # what may have other channels


class InnerPlace(NamedTuple):
    """The place of a layer inside a form for a dense layer of geometry `whole`; their chain decides in the end."""

    whole: Geometry

    def takes(self, geometry: Geometry) -> bool:
        """Return whether a layer of `geometry` can stand there, by its channels and its window."""
        channels = max(geometry.shape[0], geometry.shape[1] * geometry.groups)
        sides = zip(geometry.shape[2:], self.whole.shape[2:], strict=True)
        return channels <= most_channels(self.whole) and all(side <= limit for side, limit in sides)


def check(found: Contents, network: nn.Module, where: str, larger: bool = False) -> int:
    """Return how many numbers the layers of `found` will hold in `network`, dense weights included.

    Raises `CompressionError` where a layer has no place in the network, is of another kind or, unless `larger` ones are
    allowed, has more channels, and `FileFormatError` where its parts contradict each other.
    """
    return _Fitting(found, network, where, larger).numbers


class _Fitting:
    """The places of a network as a file fills them, layer by layer."""

    def __init__(self, found: Contents, network: nn.Module, where: str, larger: bool):
        self.where = where
        self.larger = larger
        self.numbers = found.numbers
        self.places: dict[str, Any] = dict(network.named_modules(remove_duplicate=False))
        self.kinds: dict[str, torch.dtype | None] = {}  # of the weights, for places inside forms
        self.parts: dict[tuple[str, str], Record] = {}  # what later parts may be tied to
        self.types: dict[torch.dtype, torch.dtype] = {}  # the file's for each of the network's
        self.geometries: dict[str, Geometry] = {}
        self.biased: set[str] = set()  # layers with a bias
        given = dict(self.places)
        blocks = [layer for layer in found.layers if layer.kind in layers.BLOCK_KINDS]
        for layer in blocks:  # first, as anything else may be inside one
            self._take(layer)
        for path, earlier in found.aliases:
            now = self._at(path), self._at(earlier)
            if given.get(path, now[0]) is not given.get(earlier, now[1]):  # a block is still at one place alone
                raise CompressionError(f"{where} shares {earlier!r} with {path!r}, the network does not; {ADVICE}")
        for path in (*found.identities, *found.absent):
            self._at(path)
            self._empty(path)
        for layer in [layer for layer in found.layers if layer not in blocks]:
            self._take(layer)
        self._check_layers(found)

    def _at(self, path: str) -> Any:
        if path not in self.places:
            raise CompressionError(f"{self.where} holds a layer {path!r} that the network lacks; {ADVICE}")
        return self.places[path]

    def _empty(self, path: str) -> None:
        """Remove the places inside the module at `path`, which something else will replace."""
        if isinstance(self.places[path], nn.Module):
            for inside, _ in self.places[path].named_modules(remove_duplicate=False):
                if inside:
                    self.places.pop(f"{path}.{inside}" if path else inside, None)

    def _take(self, layer: Layer) -> None:
        """Check one layer and record what it adds: places inside it, parts that later ones may be tied to."""
        there = self._at(layer.path)
        if any(record.name.endswith("bias") for record in layer.records):
            self.biased.add(layer.path)
        try:
            dtype = self._fit(layer, there, declared(self._resolved(layer)))
        except CompressionError:
            raise
        except CONTRADICTIONS as error:
            raise FileFormatError(
                f"{self.where}: layer {layer.path!r} of kind {layers.class_name(layer.kind)} cannot be "
                f"rebuilt ({error}); "
                "update compedu if a newer one wrote the file"
            ) from error
        own = self.kinds[layer.path] if layer.path in self.kinds else _type_of(there)
        if own is not None and dtype is not None and self.types.setdefault(own, dtype) != dtype:
            raise CompressionError(
                f"{self.where}: layer {layer.path!r} is of type {dtype}, others of {self.types[own]}; {ADVICE}"
            )

    def _resolved(self, layer: Layer) -> dict[str, Record]:
        """Return the parts of a layer by name; for a tied one, the earlier one that it is tied to."""
        parts = {}
        for record in layer.records:
            if record.kind == TIED:
                need(record.details in self.parts, f"{record.name!r} is tied to a part that does not precede it")
                record = self.parts[record.details]._replace(name=record.name)
            parts[record.name] = record
            if layer.kind not in layers.FORM_KINDS:
                self.parts[layer.path, record.name] = record
        return parts

    def _fit(self, layer: Layer, there: Any, parts: Parts) -> torch.dtype | None:
        """Return the type of the layer's weights, None if it has none."""
        if layer.kind == ActivationQuantizer.__name__:
            self._same_kind(layer, there, there is ActivationQuantizer or isinstance(there, ActivationQuantizer))
            check_quantizer(layer.settings, parts)
            return None
        if layer.kind in layers.FORM_KINDS:
            return self._fit_form(layer, there, parts)
        if layer.kind in layers.BLOCK_KINDS:
            return self._fit_block(layer, there)
        need(layer.geometry is None, "only forms and blocks have a geometry")
        if layer.kind in ("Linear", "Conv2d"):
            return self._fit_dense(layer, there, parts)
        need(layer.kind.startswith(layers.KEPT) or layer.kind in layers.SETTINGS, "the kind is unknown")
        self._same_kind(layer, there, isinstance(there, nn.Module) and layers.kind_of(there) == layer.kind)
        if layer.kind.startswith(layers.KEPT):
            only(layer.settings)
            return _kept_type(there, parts, self.larger)
        return _fit_batch_norm(layer, there, parts, self.larger)

    def _fit_form(self, layer: Layer, there: Any, parts: Parts) -> torch.dtype | None:
        self._fit_geometry(layer, there)
        dtype = check_form(layer.kind, layer.geometry, layer.settings, parts)
        kind = self.kinds.get(layer.path, _type_of(there))
        self._empty(layer.path)
        inside: dict[str, Any] = {"act": ActivationQuantizer}
        if names := _layers_inside(layer):
            inside |= dict.fromkeys(names, InnerPlace(self.geometries[layer.path]))
        else:
            self.numbers += math.prod(layer.geometry.shape)
        for name, place in inside.items():
            path = f"{layer.path}.{name}" if layer.path else name
            self.places[path] = place
            self.kinds[path] = kind
        return dtype

    def _fit_block(self, layer: Layer, there: Any) -> None:
        """Check a block, and add the places of its layers, which follow from its geometry and settings."""
        self._fit_geometry(layer, there)
        need(not layer.records, "a block itself holds no tensors")
        block = layers.empty_block(layer.kind, layer.geometry, layer.settings)
        kind = self.kinds.get(layer.path, _type_of(there))
        self._empty(layer.path)
        self.places[layer.path] = block
        for name, module in block.named_modules():
            path = f"{layer.path}.{name}".strip(".")
            self.places[path] = module
            self.kinds[path] = kind

    def _fit_geometry(self, layer: Layer, there: Any) -> None:
        need(layer.geometry is not None, "a form or block needs a geometry")
        self._within(layer, layer.geometry, there, "zeros")
        need(not isinstance(layer.geometry.padding, str), "its padding is not a number of zeros")

    def _fit_dense(self, layer: Layer, there: Any, parts: Parts) -> torch.dtype:
        """Check a Linear or Conv2d, which is rebuilt from its weights and settings."""
        only(parts, "weight", "bias")
        only(layer.settings, *layers.SETTINGS[layer.kind])
        settings = layers.DEFAULTS | layer.settings
        shape = shape_of(parts, "weight")
        need(len(shape) == (2 if layer.kind == "Linear" else 4), f"'weight' has the shape {shape}")
        geometry = (
            Geometry("linear", shape)
            if layer.kind == "Linear"
            else Geometry("conv2d", shape, *(settings[name] for name in ("stride", "padding", "dilation", "groups")))
        )
        self._within(layer, geometry, there, settings["padding_mode"])
        self._empty(layer.path)
        return bias(parts, "bias", shape[0], floats(parts, "weight", shape))

    def _within(self, layer: Layer, geometry: Geometry, there: Any, padding_mode: str) -> None:
        """Raise unless a layer of `geometry` can be what remains of the one that the network has there."""
        bound = there.whole if isinstance(there, InnerPlace) else _geometry_of(there)
        self._same_kind(layer, there, bound is not None and bound.kind == geometry.kind)
        out = geometry.shape[0]
        groups = geometry.groups
        need(type(groups) is int and groups >= 1 and out % groups == 0, f"{out} filters in {groups!r} groups")
        need(min(geometry.shape) >= 1, f"a layer of shape {geometry.shape} computes nothing")
        fits = (
            there.takes(geometry)
            if isinstance(there, InnerPlace)
            else _differs_in_channels(geometry, cast(Geometry, bound), self.larger)
        )
        if not fits or padding_mode != getattr(there, "padding_mode", "zeros"):
            wide = "" if self.larger else "; a network with more channels is loaded only with example=, to be tried on"
            raise CompressionError(
                f"{self.where}: layer {layer.path!r} is {_described(geometry)}, which is not a part of "
                f"{_described(bound)} that the network has there; {ADVICE}{wide}"
            )
        self.geometries[layer.path] = geometry

    def _same_kind(self, layer: Layer, there: Any, fits: bool) -> None:
        if not fits:
            name = type(there).__name__ if isinstance(there, nn.Module) else "another part of a form"
            raise CompressionError(
                f"{self.where}: layer {layer.path!r} is of class {layers.class_name(layer.kind)}, the network has "
                f"{name} there; {ADVICE}"
            )

    def _check_layers(self, found: Contents) -> None:
        """Raise `FileFormatError` unless the layers inside each form are there and stand for it."""
        for layer in found.layers:
            names = [f"{layer.path}.{name}".lstrip(".") for name in _layers_inside(layer)]
            if not names:
                continue
            try:
                need(self.geometries.keys() >= set(names), "some are missing")
                inside = [(self.geometries[name], name in self.biased) for name in names]
                layers.FORM_KINDS[layer.kind].check_layers(self.geometries[layer.path], inside)
            except ValueError as error:
                raise FileFormatError(
                    f"{self.where}: layer {layer.path!r} lacks {len(names)} layers that stand for it: {error}"
                ) from error


def _layers_inside(layer: Layer) -> tuple[str, ...]:
    """Return the names of the layers that the file declares inside a form; none for any other layer."""
    kind = layers.FORM_KINDS.get(layer.kind)
    return () if kind is None else kind.declared_layers(layer.settings)


def _differs_in_channels(geometry: Geometry, bound: Geometry, larger: bool) -> bool:
    """Return whether `geometry` is that of `bound` with fewer channels, or with any number if `larger` is allowed."""
    out, inside = geometry.shape[:2]
    fewer = (
        out <= bound.shape[0]
        and inside * geometry.groups <= bound.shape[1] * bound.groups
        and geometry.groups <= bound.groups
    )
    return (
        (fewer or larger)
        and geometry.shape[2:] == bound.shape[2:]
        and (geometry.stride, geometry.padding, geometry.dilation) == (bound.stride, bound.padding, bound.dilation)
    )


def _geometry_of(module: Any) -> Geometry | None:
    """Return the geometry of a dense layer, form or block, with any padding; None for anything else."""
    if isinstance(module, Block):
        return module.geometry
    if isinstance(module, nn.Conv2d):
        g = module
        return Geometry("conv2d", tuple(g.weight.shape), g.stride, g.padding, g.dilation, g.groups)
    return Geometry.of(module) if isinstance(module, (nn.Linear, Form)) else None


def _described(geometry: Geometry) -> str:
    return f"{geometry.kind} {tuple(geometry.shape)} of stride {geometry.stride} and padding {geometry.padding}"


def _type_of(module: Any) -> torch.dtype | None:
    """Return the type of the first floating-point parameter or buffer of `module`."""
    tensors = [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)


def _fit_batch_norm(layer: Layer, there: nn.Module, parts: Parts, larger: bool) -> torch.dtype:
    """Check a batch norm, which is rebuilt: one number for each of its channels, of one type in all parts."""
    only(layer.settings, *layers.SETTINGS[layer.kind])
    only(parts, "weight", "bias", "running_mean", "running_var")
    need(bool(parts) and ("running_mean" in parts) == ("running_var" in parts), "it lacks a mean or a variance")
    settings = layers.DEFAULTS | layer.settings
    plain = type(settings["eps"]) is float and type(settings["momentum"]) in (float, type(None))
    need(plain, "its settings are not numbers")
    shape = shape_of(parts, next(iter(parts)))
    channels = cast(int, there.num_features)
    need(len(shape) == 1 and shape[0] >= 1 and (larger or shape[0] <= channels), f"{shape} channels of {channels}")
    types = {floats(parts, name, shape) for name in parts}
    need(len(types) == 1, "its parts are of different types")
    return types.pop()


def _kept_type(there: nn.Module, parts: Parts, larger: bool) -> torch.dtype | None:
    """Check a layer that is filled in place; return the type of its floating-point tensors."""
    own = layers.own_tensors(there)
    types = set()
    for name in own.keys() ^ parts.keys():
        raise ValueError(f"the {'file' if name in own else 'network'} has no tensor {name!r}")
    for name, tensor in own.items():
        part = parts[name]
        shape = tuple(tensor.shape)
        need(isinstance(part, DeclaredFloats), f"{name!r} does not hold plain numbers")
        dtype = part.dtype
        given = part.shape
        resized = (
            isinstance(there, RESIZABLE)
            and len(given) == len(shape)
            and all(new >= 1 and (larger or new <= old) for new, old in zip(given, shape, strict=True))
        )
        need(given == shape or resized, f"{name!r} has the shape {given}, the network's {shape}")
        both_float = dtype.is_floating_point and tensor.is_floating_point()
        need(dtype == tensor.dtype or both_float, f"{name!r} is of {dtype}, the network's of {tensor.dtype}")
        types |= {dtype} if both_float else set()
    need(len(types) < 2 or types == {t.dtype for t in own.values() if t.is_floating_point()}, "its types are mixed")
    return types.pop() if len(types) == 1 else None
