"""A stream of small integers in few bytes: packed, or entropy-coded where that is shorter."""

from typing import NamedTuple

import numpy as np

from compedu.files import ans, bits, huffman
from compedu.files.alphabet import entropy
from compedu.files.buffers import Reader

CODINGS = ("packed", "huffman", "ans")
_CODERS = {"huffman": huffman, "ans": ans}


class Stream(NamedTuple):
    """Integers 0 <= symbol < 2^width, (n,), any integer type; `width` is 1 to 16 bits."""

    symbols: np.ndarray
    width: int


def size_bits(counts: np.ndarray, width: int, coding: str) -> float:
    """Return approximately how many bits a stream takes under `coding`, from the counts of its symbols."""
    packed = width * int(counts.sum())
    if coding == "packed" or entropy(counts) * counts.sum() >= packed:
        return packed
    return min(packed, _CODERS[coding].size_bits(counts))


def write(stream: Stream, coding: str) -> tuple[bytes, int]:
    """Return the bytes of `stream`, entropy-coded where that is shorter, and their number, 0 where packed."""
    packed = bits.packed_bytes(stream.width, len(stream.symbols))
    if coding != "packed" and size_bits(np.bincount(stream.symbols), stream.width, coding) < 8 * packed:
        coded = _CODERS[coding].encode(stream.symbols)
        if len(coded) < packed:
            return coded, len(coded)
    return bits.pack(stream.symbols, stream.width), 0


class Written(NamedTuple):
    """A stream as found in a file: its symbols, how they are coded, its bytes, and those of its table of words."""

    stream: Stream
    coding: str
    bytes: int
    table_bytes: int


def read(reader: Reader, count: int, width: int, length: int, coding: str) -> Written:
    """Read `count` numbers that `write` wrote with the result `length`; raise `ValueError` on a contradiction."""
    if not 1 <= width <= bits.MAX_BITS:
        raise ValueError(f"a stream of {width} bits a number")
    if length == 0:
        data = reader.take(bits.packed_bytes(width, count))
        return Written(Stream(bits.unpack(data, width, count), width), "packed", len(data), 0)
    if coding == "packed":
        raise ValueError("an entropy-coded stream in a packed file")
    if not count:
        raise ValueError(f"{length} bytes for a stream of no numbers")
    data = reader.take(length)
    symbols = _CODERS[coding].decode(data, count)
    if int(symbols.max()) >> width:
        raise ValueError(f"the symbol {symbols.max()} in a stream of {width} bits")
    return Written(Stream(symbols, width), coding, length, table_bytes(data, coding))


def table_bytes(data: bytes, coding: str) -> int:
    """Return how many bytes of an entropy-coded stream are its table of words or frequencies."""
    reader = Reader(data)
    if data:
        _CODERS[coding].read_table(reader)
    return reader.position
