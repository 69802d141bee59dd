"""Huffman coding: short code words for frequent symbols, none a prefix of another.

Huffman (1952); canonical words need only their lengths in the file (Schwartz and Kallick, 1964). Layout: the
alphabet, the lengths, the words. Empty streams take no bytes; with one symbol the words are empty.
"""

import numpy as np

from compedu.files import bits
from compedu.files.alphabet import SYMBOLS, Alphabet, read_symbols, repeated, symbols_bits, write_symbols
from compedu.files.buffers import Reader

MAX_LENGTH = 32
STRETCH = 2**15  # bytes at a time: their windows and word lengths take four megabytes


def code_lengths(counts: np.ndarray, limit: int = MAX_LENGTH) -> np.ndarray:
    """Return the length of each symbol's word, (n,) int64, from its count > 0; at most `limit` bits, 2^limit >= n.

    Below the limit the mean length is the shortest of all prefix-free codes. Where a word would be longer, the counts
    are halved until none is: rare symbols then count as less rare.
    """
    if len(counts) > 2**limit:
        raise ValueError(f"{len(counts)} symbols do not fit in words of at most {limit} bits")
    lengths = _tree_depths(counts)
    while lengths.size and lengths.max() > limit:
        counts = (counts + 1) // 2
        lengths = _tree_depths(counts)
    return lengths


def _tree_depths(counts: np.ndarray) -> np.ndarray:
    """Return the depth of each leaf in Huffman's tree, (n,) int64, from the counts of the symbols.

    The two lightest nodes are merged until one is left. Sorted leaves and merged nodes are two ascending queues.
    """
    number = len(counts)
    order = np.argsort(counts, kind="stable")
    weights = counts[order].tolist()
    parents = [0] * (2 * number - 1)
    leaf = 0
    merged = number
    for node in range(number, 2 * number - 1):
        weight = 0
        for _ in range(2):
            if merged == node or (leaf < number and weights[leaf] <= weights[merged]):
                lightest = leaf
                leaf = leaf + 1
            else:
                lightest = merged
                merged = merged + 1
            parents[lightest] = node
            weight += weights[lightest]
        weights.append(weight)
    depths = [0] * (2 * number - 1)
    for node in range(2 * number - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    lengths = np.empty(number, np.int64)
    lengths[order] = depths[:number]
    return lengths


def canonical_words(lengths: np.ndarray) -> np.ndarray:
    """Return the code words as integers (uint64), in order of length, then of symbol, each its predecessor plus one."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    longest = ordered[-1]
    # As binary fractions 0.word, the words follow each other at distances 2^-length.
    fractions = np.cumsum(np.left_shift(1, longest - ordered)) - np.left_shift(1, longest - ordered)
    words = np.empty(len(lengths), np.uint64)
    words[order] = fractions >> (longest - ordered)
    return words


def size_bits(counts: np.ndarray) -> int:
    """Return about the length in bits, table included, of a stream in which symbol i occurs `counts[i]` times."""
    alphabet = Alphabet.of_counts(counts)
    if not alphabet.total:
        return 0
    lengths = code_lengths(alphabet.counts)
    table = symbols_bits(alphabet.symbols) + 16 + _width(lengths) * len(lengths)
    return table + (int(lengths @ alphabet.counts) if len(lengths) > 1 else 0)


def encode(stream: np.ndarray) -> bytes:
    """Return the bytes of `stream`, symbols 0..65535 of any integer type."""
    if not stream.size:
        return b""
    alphabet = Alphabet.of_counts(np.bincount(stream))
    lengths = code_lengths(alphabet.counts)
    table = _table(alphabet.symbols, lengths)
    if len(lengths) == 1:
        return table
    words = alphabet.table(canonical_words(lengths))[stream]
    return table + bits.pack_words(words, alphabet.table(lengths)[stream])


def decode(data: bytes, count: int) -> np.ndarray:
    """Return the `count` symbols (uint16) that `data` holds; raise `ValueError` where it contradicts itself."""
    if count == 0:
        return np.zeros(0, np.uint16)
    reader = Reader(data)
    symbols, lengths = read_table(reader, count)
    if len(symbols) == 1:
        return repeated(symbols[0], count, reader)
    # Kraft (1949): a prefix-free code is complete where sum over words of 2^-length is 1.
    per_length = np.bincount(lengths, minlength=MAX_LENGTH + 1)
    if int(per_length @ np.left_shift(1, MAX_LENGTH - np.arange(MAX_LENGTH + 1))) != 2**MAX_LENGTH:
        raise ValueError("the word lengths are not those of a complete prefix-free code")
    return symbols[np.argsort(lengths, kind="stable")].astype(np.uint16)[_ranks(reader, per_length, count)]


def _table(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """Write the alphabet, the shortest length, the bits of a difference from it, and these differences."""
    shortest = int(lengths.min())
    width = _width(lengths)
    return write_symbols(symbols) + bytes([shortest, width]) + bits.pack(lengths - shortest, width)


def _width(lengths: np.ndarray) -> int:
    return int(lengths.max() - lengths.min()).bit_length()


def read_table(reader: Reader, most: int = SYMBOLS) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `most` symbols and the lengths of their words; raise `ValueError` on a contradiction."""
    symbols = read_symbols(reader, most)
    shortest = reader.byte()
    width = reader.byte()
    packed = reader.take(bits.packed_bytes(width, len(symbols)))
    lengths = bits.unpack(packed, width, len(symbols)).astype(np.int64) + shortest
    if lengths.max() > MAX_LENGTH:
        raise ValueError(f"a code word of {lengths.max()} bits; at most {MAX_LENGTH} are allowed")
    return symbols, lengths


def _ranks(reader: Reader, per_length: np.ndarray, count: int) -> np.ndarray:
    """Return which word, in the order of the canonical code, each of the next `count` words is (int64).

    For every bit of a stretch the length of a word that would begin there is looked up; then only the places where one
    does begin have to be followed, each to the next.
    """
    data = np.frombuffer(reader.take(reader.left), np.uint8)
    if count > 8 * len(data):  # a word takes at least a bit, so that no more than that many are allocated
        raise ValueError(f"the code words end before {count} symbols are read")
    lengths = np.arange(MAX_LENGTH + 1)
    # The words of one length are consecutive, so a window, as 0.window, is compared with where each length ends.
    ends = np.cumsum(np.left_shift(per_length, MAX_LENGTH - lengths))
    before = np.cumsum(per_length) - per_length
    starts = ends - np.left_shift(per_length, MAX_LENGTH - lengths)
    found = []
    place = 0
    while count > 0:
        if place >= 8 * len(data):
            raise ValueError(f"the code words end before {count} more symbols are read")
        begin = place // 8
        windows = _windows(data, begin, STRETCH)
        jumps = np.searchsorted(ends, windows, side="right")
        places, place = _followed(jumps.tolist(), place - 8 * begin, min(count, len(windows)))
        length = jumps[places]
        place = place + 8 * begin
        found.append(before[length] + (windows[places] - starts[length] >> MAX_LENGTH - length))
        count -= len(places)
    if -(-place // 8) != len(data):
        raise ValueError(f"the code words end before or after the {len(data)} bytes that hold them")
    return np.concatenate(found)


def _windows(data: np.ndarray, begin: int, count: int) -> np.ndarray:
    """Return the 32 bits (int64) from each bit of `count` bytes on, the first at `begin`; zeros follow the last."""
    taken = data[begin : begin + count + 4]
    size = min(count, len(taken))
    near = np.zeros(size + 4, np.int64)
    near[: len(taken)] = taken
    five = sum(near[i : i + size] << 8 * (4 - i) for i in range(5))
    return (five[:, None] >> 8 - np.arange(8) & 2**MAX_LENGTH - 1).reshape(-1)


def _followed(jumps: list[int], place: int, count: int) -> tuple[list[int], int]:
    """Return the places of at most `count` words, the first at `place`, and where the next would begin."""
    places = []
    while place < len(jumps) and len(places) < count:
        places.append(place)
        place += jumps[place]
    return places, place
