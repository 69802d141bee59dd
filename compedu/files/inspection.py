"""What each byte of a model file is for."""

import os
from dataclasses import dataclass

import numpy as np

from compedu.columns import in_columns
from compedu.files import contents
from compedu.files.alphabet import entropy
from compedu.files.limits import DEFAULT, Limits, file_bytes
from compedu.files.schema import Layer
from compedu.files.sections import CODES, DTYPES, FLOATS, Record, Section
from compedu.files.streams import Written
from compedu.forms.parts import ROLES

HEADER = "header"


@dataclass(frozen=True)
class Row:
    """One stretch of the file: whose it is, what it is for, how it is encoded.

    `numbers` counts weights, codes, positions; `bits_per_number` is what each takes in the file, tables included, and
    `entropy` what an ideal coder of single symbols needs that knows the alphabet; both are None for the header.
    `table_bytes` are those of the `bytes` that hold code words or frequencies.
    """

    layer: str
    part: str
    role: str
    encoding: str
    numbers: int
    bytes: int
    table_bytes: int = 0
    bits_per_number: float | None = None
    entropy: float | None = None


@dataclass(frozen=True)
class FileMap:
    """The rows of a file in the order of its bytes; their bytes add up to the file's length."""

    spec: str
    coding: str
    rows: tuple[Row, ...]

    @property
    def bytes(self) -> int:
        """The length of the file."""
        return sum(row.bytes for row in self.rows)

    @property
    def totals(self) -> dict[str, int]:
        """The bytes of each role that occurs, the header first."""
        sums = {role: sum(row.bytes for row in self.rows if row.role == role) for role in (HEADER, *ROLES)}
        return {role: total for role, total in sums.items() if any(row.role == role for row in self.rows)}


def inspect(path: str | os.PathLike, limits: Limits = DEFAULT) -> FileMap:
    """Return what each byte of the file `path` is for; raise `FileFormatError` unless it is an intact model file.

    A file that asks for more than `limits` is refused before it is decoded.
    """
    return map_of(file_bytes(path, limits), str(path), limits)


def map_of(data: bytes, where: str = "the model file", limits: Limits = DEFAULT) -> FileMap:
    """Do what `inspect` does with bytes in memory."""
    found = contents.read(data, where, limits)
    limits.check("numbers", found.numbers, where, limits.numbers_for(len(data)))
    rows = [Row("", HEADER, HEADER, "deflate", 0, found.header_bytes)]
    for layer, sections in found.sections(where):
        for record, section in zip(layer.records, sections, strict=True):
            rows.append(_tied(layer, record) if section is None else _row(layer, record, section))
    return FileMap(found.spec, found.coding, tuple(rows))


def describe(path: str | os.PathLike) -> str:
    """Return the map of the file `path` as a plain-text table, with the bytes of each role below it."""
    found = inspect(path)
    title = f"{path}: {found.bytes:,} bytes, {found.coding}, {found.spec or 'network not named'}"
    lines = [("layer", "part", "role", "encoding", "numbers", "bits each", "entropy", "bytes", "table")]
    for row in found.rows:
        figures = (_whole(row.numbers), _decimals(row.bits_per_number), _decimals(row.entropy))
        sizes = (f"{row.bytes:,}", _whole(row.table_bytes))
        lines.append((row.layer, row.part, row.role, row.encoding, *figures, *sizes))
    totals = [("role", "bytes", "share")] + [
        (role, f"{total:,}", f"{total / found.bytes:.1%}") for role, total in found.totals.items()
    ]
    parts = ("\n".join(in_columns(lines, range(4))), "\n".join(in_columns(totals, range(1))))
    return "\n\n".join([title, *parts])


def _whole(value: int) -> str:
    return f"{value:,}" if value else ""


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _row(layer: Layer, record: Record, section: Section) -> Row:
    numbers = section.tensor.numel()
    size = sum(stream.bytes for stream in section.written)
    information = sum(entropy(np.bincount(stream.symbols)) * len(stream.symbols) for stream, *_ in section.written)
    return Row(
        layer=layer.path,
        part=record.name,
        role=ROLES[record.role],
        encoding=_encoding(record, section.written),
        numbers=numbers,
        bytes=size,
        table_bytes=sum(stream.table_bytes for stream in section.written),
        bits_per_number=8 * size / numbers if numbers else None,
        entropy=information / numbers if numbers else None,
    )


def _tied(layer: Layer, record: Record) -> Row:
    path, name = record.details
    return Row(layer.path, record.name, ROLES[record.role], f"the same as {path}.{name}", 0, 0)


def _encoding(record: Record, written: list[Written]) -> str:
    """Describe what the numbers are and how they are coded; of floats, which of their bytes are."""
    codings = [stream.coding for stream in written]
    if record.kind == CODES:
        return f"{record.details[0]}-bit codes, {codings[0]}"
    if record.kind != FLOATS:
        width = record.details[1]
        return f"{'bitmap' if width == 1 else f'{width}-bit gaps'}, {codings[0]}"
    coded = [str(place) for place, coding in enumerate(codings, start=1) if coding != "packed"]
    how = f"byte {'+'.join(coded)} of {len(codings)} {max(codings, key='packed'.__ne__)}" if coded else "packed"
    return f"{str(DTYPES[record.details[0]]).removeprefix('torch.')}, {how}"
