"""Huffman coding: short words for frequent symbols, no word the beginning of another.

Huffman (1952); the canonical words need only their lengths in the file (Schwartz and Kallick, 1964). Layout: the
alphabet, the lengths, the words. Empty streams take no byte; with one symbol the words are empty.
"""

from functools import cache

import numpy as np

from compedu.files import bits
from compedu.files.alphabet import Alphabet, read_symbols, symbols_bits, write_symbols
from compedu.files.buffers import Reader

MAX_LENGTH = 32


def code_lengths(counts: np.ndarray, limit: int = MAX_LENGTH) -> np.ndarray:
    """Return the length of every symbol's word, (n,) int64, from its count > 0; at most `limit` bits, 2^limit >= n.

    Without the limit the mean length is the least of all prefix-free codes. Where a word would be longer, the counts
    are halved until none is: rare symbols then look less rare.
    """
    if len(counts) > 2**limit:
        raise ValueError(f"{len(counts)} symbols do not fit in words of at most {limit} bits")
    lengths = _tree_depths(counts)
    while lengths.size and lengths.max() > limit:
        counts = (counts + 1) // 2
        lengths = _tree_depths(counts)
    return lengths


def _tree_depths(counts: np.ndarray) -> np.ndarray:
    """Merge the two lightest nodes until one is left. Sorted leaves and merged nodes are two queues, each ascending."""
    number = len(counts)
    order = np.argsort(counts, kind="stable")
    weights, parents = counts[order].tolist(), [0] * (2 * number - 1)
    leaf, merged = 0, number
    for node in range(number, 2 * number - 1):
        weight = 0
        for _ in range(2):
            if merged == node or (leaf < number and weights[leaf] <= weights[merged]):
                lightest, leaf = leaf, leaf + 1
            else:
                lightest, merged = merged, merged + 1
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
    """Return the code words as numbers (uint64): ascending by length, then by symbol, each the one before plus one."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    longest = ordered[-1]
    # Seen as fractions 0.word, the words follow each other at distances 2^-length.
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
    symbols, lengths = read_table(reader)
    if len(symbols) == 1:
        return np.full(count, symbols[0], np.uint16)
    per_length = np.bincount(lengths, minlength=MAX_LENGTH + 1)
    if int(per_length @ np.left_shift(1, MAX_LENGTH - np.arange(MAX_LENGTH + 1))) != 2**MAX_LENGTH:
        raise ValueError("the word lengths are not those of a complete prefix-free code")
    ordered = symbols[np.argsort(lengths, kind="stable")].astype(np.uint16)
    out = np.empty(count, np.uint16)
    if not _walk()(np.frombuffer(reader.take(reader.left), np.uint8), per_length, ordered, out):
        raise ValueError(f"the code words end before {count} symbols are read")
    return out


def _table(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """Write the alphabet, the shortest length, the bits of a difference to it, and these differences."""
    shortest, width = int(lengths.min()), _width(lengths)
    return write_symbols(symbols) + bytes([shortest, width]) + bits.pack(lengths - shortest, width)


def _width(lengths: np.ndarray) -> int:
    return int(lengths.max() - lengths.min()).bit_length()


def read_table(reader: Reader) -> tuple[np.ndarray, np.ndarray]:
    """Return symbols and the lengths of their words; raise `ValueError` where they contradict themselves."""
    symbols, shortest, width = read_symbols(reader), reader.byte(), reader.byte()
    packed = reader.take(bits.packed_bytes(width, len(symbols)))
    lengths = bits.unpack(packed, width, len(symbols)).astype(np.int64) + shortest
    if lengths.max() > MAX_LENGTH:
        raise ValueError(f"a code word of {lengths.max()} bits; at most {MAX_LENGTH} are allowed")
    return symbols, lengths


@cache
def _walk():
    """Return the compiled decoding loop: compiled at the first use, as only reading needs it, and kept on disk."""
    import numba

    try:
        return numba.njit(walk, cache=True)
    except RuntimeError:  # no folder where it could be kept may be written to
        return numba.njit(walk)


def walk(data: np.ndarray, per_length: np.ndarray, ordered: np.ndarray, out: np.ndarray) -> bool:
    """Read code words bit by bit into `out`; return whether `data` held enough of them.

    The words of one length are consecutive numbers. `first` is the first of the length reached so far and `behind` the
    number of shorter words, so a word is complete once it is less than `per_length` away from `first`.
    """
    position, end = 0, 8 * len(data)
    for i in range(len(out)):
        word = first = behind = length = 0
        while True:
            if position == end:
                return False
            word = word << 1 | (data[position >> 3] >> (7 - (position & 7))) & 1
            first <<= 1
            position += 1
            length += 1
            if word - first < per_length[length]:
                out[i] = ordered[behind + word - first]
                break
            first += per_length[length]
            behind += per_length[length]
    return True
