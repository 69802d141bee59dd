"""The parts of a layer as streams of small integers, and back: floats by bytes, codes as such, positions as gaps."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from compedu.files import gaps, streams
from compedu.files.bits import packed_bytes
from compedu.files.buffers import Reader
from compedu.files.streams import Stream
from compedu.forms.parts import ROLES, Codes, Floats, Part, Positions
from compedu.usable import TYPES

FLOATS, CODES, POSITIONS = range(3)
TIED = -1  # the kind of a part that is the same tensor as an earlier one: its details are that one's layer and name
DTYPES = TYPES
MAX_NUMBERS = 2**31


class Record(NamedTuple):
    """What the header declares of one part: its name, kind, role, what rebuilds it, its streams.

    `kind` is FLOATS, CODES, POSITIONS or TIED. `details` is (dtype, shape), (bits, signed, shape), (places, gap width,
    number of gap codes) or (layer, part); `lengths` the number of bytes of each stream, 0 for a packed one, empty when
    all are packed.
    """

    name: str
    kind: int
    role: int
    details: tuple
    lengths: tuple

    @property
    def streams(self) -> list[tuple[int, int]]:
        """How many numbers of how many bits each stream holds."""
        return [] if self.kind == TIED else _READERS[self.kind][0](self.details)

    @property
    def stream_bytes(self) -> list[int]:
        """The length of each stream in the file."""
        lengths = self.lengths or (0,) * len(self.streams)
        return [
            length or packed_bytes(width, count) for (count, width), length in zip(self.streams, lengths, strict=True)
        ]

    @property
    def numbers(self) -> int:
        """How many numbers are stored."""
        return self.streams[0][0] if self.streams else 0


class Section(NamedTuple):
    """A part as found in a file: the tensor it holds and the streams it came from."""

    tensor: Tensor
    written: list[streams.Written]


def write(name: str, part: Part, coding: str) -> tuple[Record, bytes]:
    """Return the record and the bytes of `part`; raise `ValueError` for a type or range that cannot be stored."""
    if isinstance(part, Floats):
        kind = FLOATS
        details, parted = _floats(part)
    elif isinstance(part, Codes):
        kind = CODES
        details, parted = _codes(part)
    else:
        kind = POSITIONS
        details, parted = _positions(part, coding)
    written = [streams.write(stream, coding) for stream in parted]
    lengths = tuple(length for _, length in written)
    record = Record(name, kind, ROLES.index(part.role), details, lengths if any(lengths) else ())
    return record, b"".join(data for data, _ in written)


def read(record: Record, reader: Reader, coding: str) -> Section:
    """Read the part that the checked `record` describes; raise `ValueError` where its bytes contradict it."""
    lengths = record.lengths or (0,) * len(record.streams)
    written = [
        streams.read(reader, count, width, length, coding)
        for (count, width), length in zip(record.streams, lengths, strict=True)
    ]
    return Section(_READERS[record.kind][1](record.details, [part.stream.symbols for part in written]), written)


def _floats(part: Floats) -> tuple[tuple, list[Stream]]:
    """Split numbers into their bytes, the most significant first: byte i of all numbers is one stream.

    The sign bit moves to the end of the mantissa. The first stream is then the upper bits of the exponent, which
    repeat, while the bytes of the mantissa are close to random and stay as they are.
    """
    if part.tensor.dtype not in DTYPES:
        raise ValueError(f"{part.tensor.dtype} cannot be stored; allowed types: {', '.join(map(str, DTYPES))}")
    data = part.tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    size = part.tensor.dtype.itemsize
    words = data.view(f"<u{size}")
    if part.tensor.is_floating_point():
        words = words << 1 | words >> 8 * size - 1  # rotated by one bit: the sign comes last
    planes = np.ascontiguousarray(words.view(np.uint8).reshape(-1, size)[:, ::-1].T)
    details = (DTYPES.index(part.tensor.dtype), tuple(part.tensor.shape))
    return details, [Stream(plane, 8) for plane in planes]


def _float_streams(details: tuple) -> list[tuple[int, int]]:
    dtype, shape = details
    return [(math.prod(shape), 8)] * DTYPES[dtype].itemsize


def _to_floats(details: tuple, planes: list[np.ndarray]) -> Tensor:
    dtype = DTYPES[details[0]]
    shape = details[1]
    words = np.stack(planes[::-1], axis=1, dtype=np.uint8, casting="unsafe").view(f"<u{dtype.itemsize}").reshape(-1)
    if dtype.is_floating_point:
        signs = words << 8 * dtype.itemsize - 1
        words >>= 1
        words |= signs
    return torch.from_numpy(words.view(np.uint8)).view(dtype).reshape(shape)


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
    FLOATS: (_float_streams, _to_floats),
    CODES: (_code_streams, _to_codes),
    POSITIONS: (_gap_streams, _to_positions),
}
