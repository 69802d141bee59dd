"""What a file declares of a form's parts, and the few checks of it from which all forms build theirs.

A file may come from anyone: each form decides from the header alone whether its parts can be what it stores.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

DTYPES = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64,
}  # fmt: skip


@dataclass(frozen=True)
class DeclaredFloats:
    """Values of a type and shape, as `Floats`; integers too."""

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DeclaredCodes:
    """Integers of some bits, as `Codes`."""

    bits: int
    signed: bool
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DeclaredPositions:
    """Distinct places among `size`, as `Positions`: at most `gaps` of them."""

    size: int
    gaps: int


Declared = DeclaredFloats | DeclaredCodes | DeclaredPositions
Parts = Mapping[str, Declared]


def need(condition: bool, message: str) -> None:
    """Raise `ValueError` with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def only(found: Iterable[str], *allowed: str) -> None:
    """Raise `ValueError` for a name that is not among `allowed`."""
    unknown = [name for name in found if name not in allowed]
    need(not unknown, f"it has no place for {', '.join(map(repr, unknown[:3]))}")


def shape_of(parts: Parts, name: str) -> tuple[int, ...]:
    """Return the shape of the part `name`, values of any type."""
    part = parts.get(name)
    if not isinstance(part, DeclaredFloats):
        raise ValueError(f"it lacks the part {name!r}")
    return part.shape


def floats(parts: Parts, name: str, *shapes: tuple[int, ...]) -> torch.dtype:
    """Return the type of the part `name`: floating-point numbers of one of `shapes`."""
    need(name in parts, f"it lacks the part {name!r}")
    part = parts[name]
    if not isinstance(part, DeclaredFloats) or not part.dtype.is_floating_point:
        raise ValueError(f"{name!r} does not hold floats")
    need(part.shape in shapes, f"{name!r} has the shape {part.shape} instead of {shapes[0]}")
    return part.dtype


def codes(parts: Parts, name: str, bits: int, signed: bool) -> tuple[int, ...]:
    """Return the shape of the part `name`: codes of `bits` bits, `signed` or not."""
    part = parts.get(name)
    if not isinstance(part, DeclaredCodes):
        raise ValueError(f"it lacks the part {name!r}")
    need((part.bits, part.signed) == (bits, signed), f"{bits}-bit weights as codes of {part.bits} bits")
    return part.shape


def type_setting(dtype: torch.dtype) -> dict[str, str]:
    """Return the setting that holds the type of a form's weights where its parts do not show it: none for float32."""
    name = str(dtype).removeprefix("torch.")
    return {} if name == "float32" else {"dtype": name}


def declared_type(settings: Mapping[str, Any]) -> torch.dtype:
    """Return the type that `type_setting` made a setting of; raise `ValueError` for another one."""
    name = settings.get("dtype", "float32")
    need(isinstance(name, str) and name in DTYPES, f"weights of the type {name!r}")
    return DTYPES[name]


def bias(parts: Parts, name: str, out: int, dtype: torch.dtype) -> torch.dtype:
    """Check the bias `name`, if there is one: `out` values of the type of the weights, `dtype`, which is returned."""
    if name in parts:
        need(floats(parts, name, (out,)) == dtype, f"{name!r} does not have the type of the weights, {dtype}")
    return dtype


def kept(shape: tuple[int, ...], parts: Parts, name: str, count: tuple[int, ...]) -> None:
    """Check how many weights of a tensor of `shape` are kept: all of them, unless the part "positions" says which."""
    numbers = math.prod(shape)
    need(len(count) == 1 and count[0] <= numbers, f"{name!r} has the shape {count} for {numbers} weights")
    if "positions" not in parts:
        need(count[0] == numbers, f"{name!r} holds {count[0]} of {numbers} weights, and no positions")
        return
    part = parts["positions"]
    fits = isinstance(part, DeclaredPositions) and part.size == numbers
    need(fits, f"'positions' do not lie among {numbers} places")
    need(count[0] <= part.gaps, f"{part.gaps} gaps stand for {count[0]} weights")
