"""The parts of a layer as streams of small numbers, and back: floats by bytes, codes as they are, positions by gaps."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from compedu.files import gaps, streams
from compedu.files.buffers import Reader
from compedu.files.streams import Stream
from compedu.forms.parts import ROLES, Codes, Floats, Part, Positions

FLOATS, CODES, POSITIONS = range(3)
DTYPES = (
    torch.float32, torch.float16, torch.float64, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)
MAX_NUMBERS = 2**31


class Record(NamedTuple):
    """What the header says of one part: its name, FLOATS, CODES or POSITIONS, its role, what rebuilds it, its streams.

    `details` is (dtype, shape), (bits, signed, shape) or (places, gap width, number of gap codes); `lengths` the number
    of bytes of each stream, 0 for a packed one, empty when all are packed.
    """

    name: str
    kind: int
    role: int
    details: tuple
    lengths: tuple


class Section(NamedTuple):
    """A part as found in a file: the tensor it holds and the streams it came from."""

    tensor: Tensor
    written: list[streams.Written]


def write(name: str, part: Part, coding: str) -> tuple[Record, bytes]:
    """Return the record and the bytes of `part`; raise `ValueError` for a type or range that cannot be stored."""
    if isinstance(part, Floats):
        kind, details, parted = FLOATS, *_floats(part)
    elif isinstance(part, Codes):
        kind, details, parted = CODES, *_codes(part)
    else:
        kind, details, parted = POSITIONS, *_positions(part, coding)
    written = [streams.write(stream, coding) for stream in parted]
    lengths = tuple(length for _, length in written)
    record = Record(name, kind, ROLES.index(part.role), details, lengths if any(lengths) else ())
    return record, b"".join(data for data, _ in written)


def read(record: Record, reader: Reader, coding: str) -> Section:
    """Read the part that `record` describes; raise `ValueError` where the file contradicts itself."""
    streams_of, tensor_of = _READERS[record.kind]
    shapes = streams_of(record.details)
    lengths = record.lengths or (0,) * len(shapes)
    if any(not 0 <= count <= MAX_NUMBERS for count, _ in shapes):
        raise ValueError(f"part {record.name!r} has an impossible size")
    written = [streams.read(reader, *shape, length, coding) for shape, length in zip(shapes, lengths, strict=True)]
    return Section(tensor_of(record.details, [stream.stream.symbols for stream in written]), written)


def _floats(part: Floats) -> tuple[tuple, list[Stream]]:
    """Split numbers into their bytes, the highest first: byte i of all numbers is one stream.

    The sign bit moves behind the mantissa. The first stream is then the upper bits of the exponent, which repeat
    themselves, while the bytes of the mantissa are as good as random and stay as they are.
    """
    if part.tensor.dtype not in DTYPES:
        raise ValueError(f"{part.tensor.dtype} cannot be stored; allowed types: {', '.join(map(str, DTYPES))}")
    data = part.tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    size = part.tensor.dtype.itemsize
    whole = data.view(f"<u{size}")
    if part.tensor.is_floating_point():
        whole = whole << 1 | whole >> 8 * size - 1
    planes = np.ascontiguousarray(whole.view(np.uint8).reshape(-1, size)[:, ::-1].T)
    details = (DTYPES.index(part.tensor.dtype), tuple(part.tensor.shape))
    return details, [Stream(plane, 8) for plane in planes]


def _float_streams(details: tuple) -> list[tuple[int, int]]:
    dtype, shape = details
    return [(math.prod(shape), 8)] * DTYPES[dtype].itemsize


def _to_floats(details: tuple, planes: list[np.ndarray]) -> Tensor:
    dtype, shape = DTYPES[details[0]], details[1]
    whole = np.stack(planes[::-1], axis=1).astype(np.uint8).view(f"<u{dtype.itemsize}").reshape(-1)
    if dtype.is_floating_point:
        whole = whole >> 1 | whole << 8 * dtype.itemsize - 1
    return torch.from_numpy(whole.view(np.uint8)).view(dtype).reshape(shape)


def _codes(part: Codes) -> tuple[tuple, list[Stream]]:
    lowest = -(2 ** (part.bits - 1)) if part.signed else 0
    codes = part.tensor.detach().cpu().reshape(-1).numpy().astype(np.int64) - lowest
    if codes.size and not 0 <= codes.min() <= codes.max() < 2**part.bits:
        sign = "signed" if part.signed else "unsigned"
        raise ValueError(f"codes {codes.min() + lowest}..{codes.max() + lowest} do not fit in {part.bits} {sign} bits")
    return (part.bits, part.signed, tuple(part.tensor.shape)), [Stream(codes, part.bits)]


def _code_streams(details: tuple) -> list[tuple[int, int]]:
    bits, _, shape = details
    return [(math.prod(shape), bits)]


def _to_codes(details: tuple, symbols: list[np.ndarray]) -> Tensor:
    bits, signed, shape = details
    lowest = -(2 ** (bits - 1)) if signed else 0
    return torch.from_numpy(symbols[0].astype(np.int32) + np.int32(lowest)).reshape(shape)


def _positions(part: Positions, coding: str) -> tuple[tuple, list[Stream]]:
    """Write positions as gaps of the width that takes the fewest bytes under `coding`."""
    positions = part.tensor.detach().cpu().numpy()
    width = gaps.best_width(positions, lambda counts, width: streams.size_bits(counts, width, coding))
    codes = gaps.to_gaps(positions, width)
    return (part.size, width, len(codes)), [Stream(codes, width)]


def _gap_streams(details: tuple) -> list[tuple[int, int]]:
    _, width, count = details
    return [(count, width)]


def _to_positions(details: tuple, symbols: list[np.ndarray]) -> Tensor:
    size, width, _ = details
    positions = gaps.from_gaps(symbols[0], width)
    if positions.size and positions[-1] >= size:
        raise ValueError(f"position {positions[-1]} among {size} places")
    return torch.from_numpy(positions)


_READERS = {
    FLOATS: (_float_streams, _to_floats), CODES: (_code_streams, _to_codes), POSITIONS: (_gap_streams, _to_positions),
}
