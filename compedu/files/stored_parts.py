"""What the header of a file declares of a layer's parts, in the types that forms check."""

from collections.abc import Mapping
from typing import Any

import torch

from compedu.files.layers import FORM_KINDS
from compedu.files.sections import CODES, DTYPES, FLOATS, Record
from compedu.forms import Geometry
from compedu.forms.declared import (
    Declared,
    DeclaredCodes,
    DeclaredFloats,
    DeclaredPositions,
    Parts,
    floats,
    need,
    only,
)


def declared(records: Mapping[str, Record]) -> dict[str, Declared]:
    """Return `records`, none of them tied, in the types of `compedu.forms.declared`."""
    return {name: _declared(record) for name, record in records.items()}


def _declared(record: Record) -> Declared:
    if record.kind == FLOATS:
        dtype, shape = record.details
        return DeclaredFloats(DTYPES[dtype], shape)
    if record.kind == CODES:
        return DeclaredCodes(*record.details)
    return DeclaredPositions(size=record.details[0], gaps=record.numbers)


def check_form(kind: str, geometry: Geometry, settings: Mapping[str, Any], parts: Parts) -> torch.dtype | None:
    """Raise `ValueError` unless `parts` are what a form of `kind` stores; return the type of its weights."""
    return FORM_KINDS[kind].check_declared(geometry, settings, parts)


def check_quantizer(settings: Mapping[str, Any], parts: Parts) -> None:
    """Raise `ValueError` unless `parts` are what an activation quantizer stores."""
    only(settings, "bits")
    only(parts, "act.scale", "act.zero_point")
    floats(parts, "act.scale", (1,))
    width = settings.get("bits")
    fits = type(width) is int and parts.get("act.zero_point") == DeclaredCodes(width, False, (1,))
    need(fits, f"'act.zero_point' is not a code of {width!r}-bit activations")
