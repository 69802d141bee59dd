"""The header of a model file as values of declared types and ranges: anything else is refused before it is used."""

import math
from typing import Any, NamedTuple

from compedu.files import bits
from compedu.files.sections import CODES, DTYPES, FLOATS, MAX_NUMBERS, POSITIONS, TIED, Record
from compedu.forms.form import Geometry
from compedu.forms.parts import ROLES

LONGEST_SPEC = 1000  # characters
MAX_DIMENSIONS = 8
DETAILS = {FLOATS: (int, tuple), CODES: (int, bool, tuple), POSITIONS: (int, int, int), TIED: (str, str)}


class Layer(NamedTuple):
    """One layer in the header: its path, what rebuilds it, the records of its parts."""

    path: str
    kind: str
    geometry: Geometry | None
    settings: dict[str, Any]
    records: tuple[Record, ...]


def fields(value: Any, *types: type) -> tuple:
    """Return `value`, a tuple whose entries have exactly these types; raise `ValueError` for anything else."""
    if type(value) is not tuple or tuple(map(type, value)) != types:
        raise ValueError(f"expected ({', '.join(wanted.__name__ for wanted in types)}), got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Return the beginning of a value, to be quoted in a message."""
    text = repr(value[:4] if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def need(condition: bool, message: str, *values: Any) -> None:
    """Raise `ValueError` with `message`, its places filled with `values`, unless `condition` holds."""
    if not condition:
        raise ValueError(message.format(*map(shown, values)) if values else message)


def distinct_strings(value: Any) -> tuple[str, ...]:
    """Return `value`, a tuple of distinct strings."""
    fields(value, *(str,) * len(fields_of(value)))
    need(len(set(value)) == len(value), "a path that is listed twice")
    return value


def fields_of(value: Any) -> tuple:
    """Return `value`, a tuple of anything."""
    need(type(value) is tuple, "expected a list, got {}", value)
    return value


def shape_of(value: tuple) -> tuple[int, ...]:
    """Return `value`, the shape of a tensor that a file can hold."""
    fields(value, *(int,) * len(value))
    need(len(value) <= MAX_DIMENSIONS and all(side >= 0 for side in value), "no tensor has the shape {}", value)
    need(math.prod(value) <= MAX_NUMBERS, "a tensor of the shape {} has an impossible size", value)
    return value


def network_of(value: Any) -> tuple[str, int | None]:
    """Return the spec of the network, or an empty one and the checksum of its structure."""
    if type(value) is int and 0 <= value < 2**32:
        return "", value
    if type(value) is not str or not 1 <= len(value) <= LONGEST_SPEC:
        raise ValueError(f"the network is neither a string of at most {LONGEST_SPEC} characters nor a checksum")
    return value, None


def aliases_of(value: Any) -> tuple[tuple[str, str], ...]:
    """Return `value`, pairs of a path and the earlier path of the same layer; no path is listed twice."""
    distinct_strings(tuple(fields(pair, str, str)[0] for pair in fields_of(value)))
    return value


def layers_of(value: Any) -> list[Layer]:
    """Return the layers of a header; no path is listed twice."""
    layers = [layer_of(listed) for listed in fields_of(value)]
    distinct_strings(tuple(layer.path for layer in layers))
    return layers


def layer_of(value: Any) -> Layer:
    """Return one layer of a header."""
    path, kind, geometry, settings, records = fields(value, str, str, tuple, tuple, tuple)
    names = distinct_strings(tuple(fields_of(pair)[0] for pair in settings if pair))
    need(len(names) == len(settings) and all(len(pair) == 2 for pair in settings), "a setting without name or value")
    for name, given in settings:
        plain = type(given) is not tuple or (len(given) == 2 and all(type(entry) is int for entry in given))
        need(plain, "the setting {} is {}", name, given)
    parts = tuple(map(record_of, records))
    distinct_strings(tuple(part.name for part in parts))
    return Layer(path, kind, geometry_of(geometry), dict(settings), parts)


def geometry_of(value: tuple) -> Geometry | None:
    """Return the geometry of a form or block, or None for any other layer; kind and shape must agree."""
    if not value:
        return None
    types = (str, tuple, tuple, tuple, tuple, int)[: max(2, len(value))]
    kind, shape, *rest = fields(value, *types)
    shape_of(shape)
    need(len(shape) == {"linear": 2, "conv2d": 4}.get(kind), "a layer of kind {} of shape {}", kind, shape)
    for pair in rest[:3]:
        fields(pair, int, int)
    need(kind == "conv2d" or not rest, "a linear layer with a stride")
    return Geometry(kind, shape, *rest)


def record_of(value: Any) -> Record:
    """Return one part of a layer; its details say how many numbers of how many bits follow."""
    record = Record(*fields(value, str, int, int, tuple, tuple))
    need(record.kind in DETAILS, "part {} is of the unknown kind {}", record.name, record.kind)
    need(0 <= record.role < len(ROLES), "part {} has the unknown role {}", record.name, record.role)
    fields(record.details, *DETAILS[record.kind])
    fields(record.lengths, *(int,) * len(record.lengths))
    if record.kind == TIED:
        need(not record.lengths, "part {} is stored elsewhere and has bytes of its own", record.name)
        return record
    if record.kind == FLOATS:
        need(0 <= record.details[0] < len(DTYPES), "part {} is of the unknown type {}", record.name, record.details[0])
        shape_of(record.details[1])
    elif record.kind == CODES:
        shape_of(record.details[2])
    else:
        size, _, count = record.details
        need(0 <= count <= size <= MAX_NUMBERS, "{} gaps among {} places", count, size)
    streams = record.streams
    need(all(1 <= width <= bits.MAX_BITS for _, width in streams), "part {} has impossible bits", record.name)
    need(len(record.lengths) in (0, len(streams)), "part {} has the lengths {}", record.name, record.lengths)
    need(all(length >= 0 for length in record.lengths), "part {} has a negative length", record.name)
    return record
