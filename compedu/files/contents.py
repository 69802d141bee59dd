"""What a model file holds, as read from it: layers in order, and how they belong together."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from compedu.errors import CompressionError, FileFormatError
from compedu.files import header, schema, sections
from compedu.files.buffers import Reader
from compedu.files.limits import Limits
from compedu.files.schema import Layer
from compedu.files.sections import TIED, Section
from compedu.files.streams import CODINGS

# What inconsistent bytes can raise where they are read, decoded and made into layers.
CONTRADICTIONS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Contents:
    """What the header of a file declares; nothing is decoded yet.

    `spec` names the network; where it is empty, `structure` is the checksum of all but its tensors.
    `identities` and `absent` are paths where the model has an `nn.Identity` or `None`; `aliases` are pairs (path,
    earlier path of the same layer). `data` is positioned at the first part, `size` is the length of the file.
    """

    spec: str
    structure: int | None
    coding: str
    layers: list[Layer]
    identities: tuple[str, ...]
    absent: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    data: Reader
    size: int

    @property
    def header_bytes(self) -> int:
        """The number of bytes before the first part."""
        return self.size - sum(sum(record.stream_bytes) for layer in self.layers for record in layer.records)

    @property
    def numbers(self) -> int:
        """How many numbers are stored."""
        return sum(record.numbers for layer in self.layers for record in layer.records)

    def sections(self, where: str) -> Iterator[tuple[Layer, list[Section | None]]]:
        """Decode the layers one after the other: each with its parts, None for a tied one.

        Raises `FileFormatError` where the bytes contradict the header.
        """
        for layer in self.layers:
            with consistent(where):
                parts = [
                    None if record.kind == TIED else sections.read(record, self.data, self.coding)
                    for record in layer.records
                ]
            yield layer, parts


@contextmanager
def consistent(where: str) -> Iterator[None]:
    """Turn whatever an inconsistent file raises into a `FileFormatError`."""
    try:
        yield
    except CompressionError:
        raise
    except CONTRADICTIONS as error:
        raise FileFormatError(f"{where} contradicts itself ({error}); {header.ADVICE}") from error


def read(data: bytes, where: str, limits: Limits) -> Contents:
    """Return what the file `data` declares; raise `FileFormatError` unless it is intact, consistent and within limits.

    Only the header is read: every size that could ask for much memory is declared in it.
    """
    limits.check("bytes", len(data), where)
    with consistent(where):
        value, reader = header.unseal(data, where)
        found = declared(value, reader)
        limits.check("layers", len(found.layers), where)
        if found.header_bytes != reader.position:
            declared_bytes = found.size - found.header_bytes
            raise ValueError(f"{reader.left} bytes follow the header, its parts take {declared_bytes}")
        return found


def declared(value: header.Value, reader: Reader | None = None) -> Contents:
    """Return the contents that the header `value` declares; raise `ValueError` for any other value."""
    reader = Reader(b"") if reader is None else reader
    network, coding, listed, identities, absent, aliases = schema.fields_of(value)
    if type(coding) is not int or not 0 <= coding < len(CODINGS):
        raise ValueError(f"the unknown coding {schema.shown(coding)}")
    spec, structure = schema.network_of(network)
    return Contents(
        spec=spec,
        structure=structure,
        coding=CODINGS[coding],
        layers=schema.layers_of(listed),
        identities=schema.distinct_strings(identities),
        absent=schema.distinct_strings(absent),
        aliases=schema.aliases_of(aliases),
        data=reader,
        size=len(reader.data),
    )
