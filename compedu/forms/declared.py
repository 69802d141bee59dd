"""What a file declares of a form's parts, and the few checks of it that all forms are made of.

A file may come from anyone: each form says from the header alone whether its parts can be what it stores.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DeclaredFloats:
    """Numbers of a type and shape, as `Floats`; whole ones too."""

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DeclaredCodes:
    """Whole numbers of some bits, as `Codes`."""

    bits: int
    signed: bool
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DeclaredPositions:
    """Distinct places among `size`, as `Positions`: `gaps` of them at most."""

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
    """Return the shape of the part `name`, numbers of any type."""
    need(isinstance(parts.get(name), DeclaredFloats), f"it lacks the part {name!r}")
    return parts[name].shape


def floats(parts: Parts, name: str, *shapes: tuple[int, ...]) -> torch.dtype:
    """Return the type of the part `name`: floating-point numbers of one of `shapes`."""
    need(name in parts, f"it lacks the part {name!r}")
    part = parts[name]
    need(isinstance(part, DeclaredFloats) and part.dtype.is_floating_point, f"{name!r} holds no floats")
    need(part.shape in shapes, f"{name!r} has the shape {part.shape} instead of {shapes[0]}")
    return part.dtype


def codes(parts: Parts, name: str, bits: int, signed: bool) -> tuple[int, ...]:
    """Return the shape of the part `name`: codes of so many bits, with or without a sign."""
    part = parts.get(name)
    need(isinstance(part, DeclaredCodes), f"it lacks the part {name!r}")
    need((part.bits, part.signed) == (bits, signed), f"{bits}-bit weights as codes of {part.bits} bits")
    return part.shape


def bias(parts: Parts, name: str, out: int, dtype: torch.dtype) -> torch.dtype:
    """Check the bias `name`, if there is one: `out` numbers of the type of the weights, which is returned."""
    if name in parts:
        need(floats(parts, name, (out,)) == dtype, f"{name!r} is not of the type of the weights, {dtype}")
    return dtype


def kept(kernel: tuple[int, ...], parts: Parts, name: str, count: tuple[int, ...]) -> None:
    """Check how many weights are kept: all, unless a part says which, of which there are as many as places at most."""
    numbers = math.prod(kernel)
    need(len(count) == 1 and count[0] <= numbers, f"{name!r} has the shape {count} for {numbers} weights")
    if "positions" not in parts:
        need(count[0] == numbers, f"{name!r} holds {count[0]} of {numbers} weights, and no positions")
        return
    part = parts["positions"]
    fits = isinstance(part, DeclaredPositions) and part.size == numbers
    need(fits, f"'positions' are not among {numbers} places")
    need(count[0] <= part.gaps, f"{part.gaps} gaps stand for {count[0]} weights")
