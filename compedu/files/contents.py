"""What a model file holds, as read from it or about to be written: layers in order, and how they hang together."""

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from compedu.errors import CompressionError, FileFormatError
from compedu.files import header, layers, sections
from compedu.files.sections import Record, Section
from compedu.files.streams import CODINGS
from compedu.forms import Form
from compedu.forms.parts import Part

LONGEST_SPEC = 1000  # letters
TIED = -1  # the kind of a part that is the very tensor of an earlier layer: its details are that layer's path and part


class Layer(NamedTuple):
    """One layer in the header: where it stands, what rebuilds it, the records of its parts."""

    path: str
    kind: str
    geometry: tuple
    settings: tuple
    records: tuple


@dataclass(frozen=True)
class Contents:
    """An intact file: the spec of its network, its coding, its layers with their sections, and the bytes before these.

    `identities` and `absent` are paths where the model has an `nn.Identity` or `None`; `aliases` are pairs (path, path
    of the same layer met before).
    """

    spec: str
    coding: str
    layers: list[Layer]
    found: list[list[Section | None]]
    identities: tuple[str, ...]
    absent: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    header_bytes: int

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of layer `index` by name, without the tied ones."""
        pairs = zip(self.layers[index].records, self.found[index], strict=True)
        return {record.name: section.tensor for record, section in pairs if section is not None}


def write(model: nn.Module, *codings: str) -> list[bytes]:
    """Return the file of `model` in each of the `codings`.

    Raises `CompressionError` for a layer that cannot be stored, `ValueError` for a coding that does not exist.
    """
    for coding in codings:
        if coding not in CODINGS:
            raise ValueError(f"coding must be one of {', '.join(CODINGS)}, got {coding!r}")
    spec = getattr(model, "spec", None)
    refuse_deployed(model)
    places = _places(model)
    parts = _parts(places.holders)
    return [_write(spec if isinstance(spec, str) else "", places, parts, coding) for coding in codings]


def refuse_deployed(model: nn.Module) -> None:
    """Raise `CompressionError` for a network that was deployed, or has a part that was: it is made to run, no more."""
    for path, module in model.named_modules():
        if getattr(module, "only_runs", False):
            raise CompressionError(
                f"{path or 'the network'} is a deployed network, whose kernels no file holds; save the model that it "
                "was made from, and deploy that after loading"
            )


def _write(spec: str, places: "_Places", parts: list[dict[str, Part | tuple[str, str]]], coding: str) -> bytes:
    listed, data = [], []
    for (path, layer), named in zip(places.holders, parts, strict=True):
        records = []
        for name, part in named.items():
            tied = isinstance(part, tuple)
            record, section = (Record(name, TIED, 0, part, ()), b"") if tied else _section(path, name, part, coding)
            records.append(record)
            data.append(section)
        settings = tuple(layers.settings_of(layer).items())
        listed.append(Layer(path, layers.kind_of(layer), layers.geometry_of(layer), settings, tuple(records)))
    return header.seal((spec, CODINGS.index(coding), tuple(listed), *map(tuple, places[1:])), data)


def read(data: bytes, where: str) -> Contents:
    """Return what the file `data` holds; raise `FileFormatError` unless all of it is intact and consistent."""
    try:
        return _read(data, where)
    except FileFormatError:
        raise
    except (
        ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, struct.error,
        zlib.error,
    ) as error:  # fmt: skip
        raise FileFormatError(f"{where} contradicts itself ({error}); {header.ADVICE}") from error


def _read(data: bytes, where: str) -> Contents:
    (spec, coding, listed, identities, absent, aliases), reader = header.unseal(data, where)
    if not isinstance(spec, str) or len(spec) > LONGEST_SPEC:
        raise ValueError(f"the name of the network is no text of at most {LONGEST_SPEC} letters")
    if not all(isinstance(path, str) for path in (*identities, *absent)) or any(len(pair) != 2 for pair in aliases):
        raise ValueError("paths that are no texts")
    header_bytes, coding = reader.position, CODINGS[coding]
    found, known = [], []
    for path, kind, geometry, settings, records in listed:
        records = tuple(Record(*record) for record in records)
        known.append(Layer(path, kind, geometry, settings, records))
        found.append([None if record.kind == TIED else sections.read(record, reader, coding) for record in records])
    if reader.left:
        raise ValueError(f"{reader.left} bytes are left over at the end")
    return Contents(spec, coding, known, found, identities, absent, aliases, header_bytes)


class _Places(NamedTuple):
    holders: list[tuple[str, nn.Module]]
    identities: list[str]
    absent: list[str]
    aliases: list[tuple[str, str]]


def _places(model: nn.Module) -> _Places:
    """Sort the modules of `model`: those that hold numbers, identities, places left empty, layers met before."""
    places, paths = _Places([], [], [], []), {}
    for path, module in model.named_modules(remove_duplicate=False):
        parent = path.rpartition(".")[0]
        if path and any(parent == alias or parent.startswith(alias + ".") for alias, _ in places.aliases):
            continue
        if paths.setdefault(id(module), path) != path:
            if module.state_dict():
                places.aliases.append((path, paths[id(module)]))
            continue
        if isinstance(module, Form) or layers.own_tensors(module):
            places.holders.append((path, module))
        if type(module) is nn.Identity and not isinstance(model.get_submodule(parent), Form):
            places.identities.append(path)
        places.absent.extend(f"{path}.{name}".lstrip(".") for name, child in module._modules.items() if child is None)
    return places


def _parts(holders: list[tuple[str, nn.Module]]) -> list[dict[str, Part | tuple[str, str]]]:
    """Return the parts of every layer by name; for a tensor met before, the path and part where it was."""
    owners: dict[int, tuple[str, str]] = {}
    parts = []
    for path, layer in holders:
        if isinstance(layer, Form) and layers.kind_of(layer) not in layers.FORM_KINDS:
            raise CompressionError(
                f"layer {path!r}: the form {type(layer).__name__} is not in compedu.forms.FORMS, so a file of it could "
                "not be loaded again; add it there"
            )
        named = dict(layers.parts_of(layer))
        # A form stores its parameters in other words, so that equal tensors need not be equal parts.
        for name, tensor in () if isinstance(layer, Form) else layers.own_tensors(layer).items():
            if name in named and owners.setdefault(id(tensor), (path, name)) != (path, name):
                named[name] = owners[id(tensor)]
        parts.append(named)
    return parts


def _section(path: str, name: str, part: Part, coding: str) -> tuple[Record, bytes]:
    try:
        return sections.write(name, part, coding)
    except ValueError as error:
        raise CompressionError(f"layer {path!r}, part {name!r}: {error}") from error
