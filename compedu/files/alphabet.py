"""Which symbols a stream uses, how often, and how few bits a symbol can take: what both entropy coders start from."""

from dataclasses import dataclass

import numpy as np

from compedu.files import bits, gaps
from compedu.files.buffers import Reader, varint

SYMBOLS = 2**bits.MAX_BITS


@dataclass(frozen=True)
class Alphabet:
    """The symbols that occur in a stream, ascending, and the count of each (both int64, all counts > 0)."""

    symbols: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_counts(cls, occurrences: np.ndarray) -> "Alphabet":
        """Return the alphabet of a stream in which symbol i occurs `occurrences[i]` times."""
        used = np.flatnonzero(occurrences)
        return cls(used, occurrences[used])

    @property
    def total(self) -> int:
        """The number of symbols in the stream."""
        return int(self.counts.sum())

    def table(self, values: np.ndarray) -> np.ndarray:
        """Return `values`, one for each of `symbols`, as a table indexed by symbol; 0 for symbols that do not occur."""
        looked_up = np.zeros(int(self.symbols[-1]) + 1, values.dtype)
        looked_up[self.symbols] = values
        return looked_up


def entropy(counts: np.ndarray) -> float:
    """Return the entropy in bits per symbol of `counts`, -sum p log2 p (Shannon, 1948); 0 for an empty stream."""
    counts = counts[counts > 0]
    if len(counts) < 2:
        return 0.0
    total = counts.sum()
    # -sum p log2 p with p = count / total, as log2(total) - sum(count log2 count) / total: no p is rounded.
    return float(np.log2(total) - counts @ np.log2(counts) / total)


def write_symbols(symbols: np.ndarray) -> bytes:
    """Write ascending `symbols`: how many, the first, the bits of a gap, then the gaps between them."""
    width = gap_width(symbols)
    start = varint(len(symbols)) + varint(int(symbols[0])) + bytes([width])
    if width == 0:
        return start
    codes = gaps.to_gaps(symbols[1:] - symbols[0] - 1, width)
    return start + (varint(len(codes)) if width == 1 else b"") + bits.pack(codes, width)


def gap_width(symbols: np.ndarray) -> int:
    """Return the bits of a gap between ascending `symbols`: 0 if contiguous, enough for the longest, or 1: a bitmap."""
    longest = int(np.diff(symbols).max(initial=1))
    if longest == 1:
        return 0
    return longest.bit_length() if longest.bit_length() * (len(symbols) - 1) < symbols[-1] - symbols[0] else 1


def symbols_bits(symbols: np.ndarray) -> int:
    """Return the length in bits of `write_symbols(symbols)`, to within two bytes, without writing."""
    width = gap_width(symbols)
    return 32 + (int(symbols[-1] - symbols[0]) if width == 1 else width * (len(symbols) - 1))


def read_symbols(reader: Reader, most: int = SYMBOLS) -> np.ndarray:
    """Return the symbols (int64), `most` at most, that `write_symbols` wrote; raise `ValueError` on a contradiction.

    An alphabet has no more symbols than its stream has numbers; without that bound a few bytes would ask for 2^16.
    """
    number = reader.varint()
    first = reader.varint()
    width = reader.byte()
    if not 1 <= number <= min(most, SYMBOLS) or first >= SYMBOLS or width > bits.MAX_BITS:
        raise ValueError(f"an alphabet of {number} symbols from {first} on with gaps of {width} bits")
    if width == 0:
        symbols = np.arange(first, first + number)
    else:
        count = reader.varint() if width == 1 else number - 1
        codes = bits.unpack(reader.take(bits.packed_bytes(width, count)), width, count)
        symbols = np.concatenate([[0], gaps.from_gaps(codes, width) + 1]) + first
    if len(symbols) != number or symbols[-1] >= SYMBOLS:
        raise ValueError(f"an alphabet of {number} symbols lists {len(symbols)} up to {symbols[-1]}")
    return symbols


def repeated(symbol: int, count: int, reader: Reader) -> np.ndarray:
    """Return a stream of `count` times the only symbol (uint16), of which only the table is written."""
    if reader.left:
        raise ValueError(f"{reader.left} bytes are left over after the only symbol")
    return np.full(count, symbol, np.uint16)
