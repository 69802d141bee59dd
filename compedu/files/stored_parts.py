"""Which parts a file holds of each kind of layer, of which shape and type, given the geometry of its dense layer."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from compedu.files.schema import need
from compedu.files.sections import CODES, DTYPES, FLOATS, POSITIONS, Record
from compedu.forms import Geometry
from compedu.forms.circulant import padded
from compedu.forms.coded import HALVES

Parts = Mapping[str, Record]
Settings = Mapping[str, Any]
CODED_BITS = 8  # the codes of a form are of type int8
SEEDS = 2**63


def check_form(kind: str, geometry: Geometry, settings: Settings, parts: Parts) -> torch.dtype | None:
    """Raise `ValueError` unless `parts` are what a form of `kind` stores; return the type of its weights.

    A form without a rule here is refused with `KeyError`.
    """
    return _RULES[kind](geometry, settings, parts)


def only(found: Mapping, *allowed: str) -> None:
    """Raise `ValueError` for a name that is not among `allowed`."""
    unknown = [name for name in found if name not in allowed]
    need(not unknown, f"it has no place for {', '.join(map(repr, unknown[:3]))}")


def floats(parts: Parts, name: str, *shapes: tuple[int, ...]) -> torch.dtype:
    """Return the type of the part `name`: floating-point numbers of one of `shapes`."""
    need(name in parts, f"it lacks the part {name!r}")
    record = parts[name]
    need(record.kind == FLOATS and DTYPES[record.details[0]].is_floating_point, f"{name!r} holds no floats")
    need(record.details[1] in shapes, f"{name!r} has the shape {record.details[1]} instead of {shapes[0]}")
    return DTYPES[record.details[0]]


def bias(parts: Parts, name: str, out: int, dtype: torch.dtype) -> torch.dtype:
    """Check the bias `name`, if there is one: `out` numbers of the type of the weights, which is returned."""
    if name in parts:
        need(floats(parts, name, (out,)) == dtype, f"{name!r} is not of the type of the weights, {dtype}")
    return dtype


def _kept(geometry: Geometry, parts: Parts, name: str, count: tuple[int, ...]) -> None:
    """Check how many weights are kept: all, unless a part says which, of which there are as many as places at most."""
    numbers = math.prod(geometry.shape)
    need(len(count) == 1 and count[0] <= numbers, f"{name!r} has the shape {count} for {numbers} weights")
    if "positions" not in parts:
        need(count[0] == numbers, f"{name!r} holds {count[0]} of {numbers} weights, and no positions")
        return
    record = parts["positions"]
    need(record.kind == POSITIONS and record.details[0] == numbers, f"'positions' are not among {numbers} places")
    need(count[0] <= record.numbers, f"{record.numbers} gaps stand for {count[0]} weights")


def _masked(geometry: Geometry, settings: Settings, parts: Parts) -> torch.dtype:
    only(settings)
    only(parts, "weight", "positions", "bias")
    need("weight" in parts and parts["weight"].kind == FLOATS, "it lacks the part 'weight'")
    shape = parts["weight"].details[1]
    _kept(geometry, parts, "weight", shape)
    return bias(parts, "bias", geometry.shape[0], floats(parts, "weight", shape))


def _coded(geometry: Geometry, settings: Settings, parts: Parts) -> torch.dtype:
    only(settings, "bits", "dtype")
    only(parts, "codes", "positions", "scale", "bias")
    width = settings.get("bits")
    need(type(width) is int and 1 <= width <= CODED_BITS, f"weights of {width!r} bits; allowed are 1 to {CODED_BITS}")
    need("codes" in parts and parts["codes"].kind == CODES, "it lacks the part 'codes'")
    stored, signed, shape = parts["codes"].details
    need((stored, signed) == (width, width > 1), f"{width}-bit weights as codes of {stored} bits")
    _kept(geometry, parts, "codes", shape)
    dtype = floats(parts, "scale", (), geometry.per_output)
    if "dtype" in settings:
        need(settings["dtype"] in HALVES, f"weights of the type {settings['dtype']!r}")
        dtype = HALVES[settings["dtype"]]
    return bias(parts, "bias", geometry.shape[0], dtype)


def _circulant(geometry: Geometry, settings: Settings, parts: Parts) -> torch.dtype:
    only(settings, "flips", "hash")
    only(parts, "columns", "bias")
    whole = all(type(settings.get(name)) is int and 0 <= settings[name] < SEEDS for name in ("flips", "hash"))
    need(whole, "its sign flips have no seed and version")
    need(geometry.groups == 1, "blocks need channels that all meet")
    need("columns" in parts and parts["columns"].kind == FLOATS, "it lacks the part 'columns'")
    shape = parts["columns"].details[1]
    need(len(shape) == 3 and shape[2] >= 1, f"'columns' has the shape {shape}")
    out, inside, *window = geometry.shape
    block = shape[2]
    rows, columns = padded(out, block) // block, padded(inside, block) // block * math.prod(window)
    return bias(parts, "bias", out, floats(parts, "columns", (rows, columns, block)))


def _factored(geometry: Geometry, settings: Settings, parts: Parts) -> None:
    only(settings)
    only(parts)
    need(geometry.groups == 1, "two factors need channels that all meet")


def _crelu(geometry: Geometry, settings: Settings, parts: Parts) -> torch.dtype:
    only(settings)
    only(parts, "base", "base_bias")
    out, *rest = geometry.shape
    need(geometry.kind == "conv2d" and geometry.groups == 1 and out % 2 == 0, "only a convolution has pairs of filters")
    return bias(parts, "base_bias", out // 2, floats(parts, "base", (out // 2, *rest)))


_RULES: dict[str, Callable[[Geometry, Settings, Parts], torch.dtype | None]] = {
    "Masked": _masked,
    "Coded": _coded,
    "BlockCirculant": _circulant,
    "Factored": _factored,
    "CReLUFilters": _crelu,
}


def check_quantizer(settings: Settings, parts: Parts) -> None:
    """Raise `ValueError` unless `parts` are what an activation quantizer stores."""
    only(settings, "bits")
    only(parts, "act.scale", "act.zero_point")
    floats(parts, "act.scale", (1,))
    zero = parts.get("act.zero_point")
    need(zero is not None and zero.kind == CODES, "it lacks the part 'act.zero_point'")
    width = settings.get("bits")
    need(type(width) is int and zero.details == (width, False, (1,)), f"activations of {width!r} bits do not fit in it")
