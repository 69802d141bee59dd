"""Asymmetric numeral systems: one large number takes in symbols, each at its information in fractions of a bit.

Duda (2009, arXiv:0902.0271), by the library constriction. Layout: the alphabet, the frequencies, the number.

Encoder and decoder must agree on every probability. The file therefore holds integer frequencies, in a small
floating-point format of its own, and both sides scale them to 2^24 by integer arithmetic.
"""

import numpy as np
from constriction import stream as library

from compedu.files import bits
from compedu.files.alphabet import SYMBOLS, Alphabet, read_symbols, repeated, symbols_bits, write_symbols
from compedu.files.buffers import Reader

PRECISION = 24  # constriction's probabilities are multiples of 2^-24
MAX_MANTISSA = 7
MAX_EXPONENT = 31  # streams of up to 2^31 symbols
STATE_BITS = 32  # the coder's last word, half filled on average, and its state


def size_bits(counts: np.ndarray) -> float:
    """Return about the length in bits, table included, of a stream in which symbol i occurs `counts[i]` times."""
    alphabet = Alphabet.of_counts(counts)
    if not alphabet.total:
        return 0
    exponents, mantissas, m = _rounded(alphabet.counts)
    table = symbols_bits(alphabet.symbols) + 24 + (_exponent_bits(exponents) + m) * len(exponents)
    if len(exponents) == 1:
        return table
    # The bits of the stream are its cross-entropy under the rounded probabilities, times its length.
    weights = _weights(exponents, mantissas, m)
    return table + STATE_BITS + float(alphabet.counts @ (PRECISION - np.log2(weights)))


def encode(stream: np.ndarray) -> bytes:
    """Return the bytes of `stream`, symbols 0..65535 of any integer type."""
    if not stream.size:
        return b""
    alphabet = Alphabet.of_counts(np.bincount(stream))
    rounded = _rounded(alphabet.counts)
    table = _table(alphabet.symbols, *rounded)
    if len(alphabet.symbols) == 1:
        return table
    ranks = alphabet.table(np.arange(len(alphabet.symbols), dtype=np.int32))[stream]
    coder = library.stack.AnsCoder()
    coder.encode_reverse(ranks, _model(_weights(*rounded)))
    words = coder.get_compressed().astype("<u4").tobytes()
    return table + words.rstrip(b"\0")  # the last word is never 0, so its upper zero bytes can be restored


def decode(data: bytes, count: int) -> np.ndarray:
    """Return the `count` symbols (uint16) that `data` holds; raise `ValueError` where it contradicts itself."""
    if count == 0:
        return np.zeros(0, np.uint16)
    reader = Reader(data)
    symbols, *rounded = read_table(reader, count)
    if len(symbols) == 1:
        return repeated(symbols[0], count, reader)
    number = reader.take(reader.left)
    coder = library.stack.AnsCoder(np.frombuffer(number + bytes(-len(number) % 4), "<u4").astype(np.uint32))
    ranks = coder.decode(_model(_weights(*rounded)), count)
    if not coder.is_empty():
        raise ValueError(f"the coder is not empty after {count} symbols")
    return symbols.astype(np.uint16)[ranks]


def _rounded(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return exponents, mantissas and mantissa bits m: counts are about (2^m + mantissa) 2^(exponent - m).

    Rounding to m bits changes a frequency by 2^-m / sqrt(24) of it on average, which costs about 4^-m / 33 bits a
    symbol. One more bit for each of n frequencies pays until 4^m = N / (24 n), for a stream of N symbols.
    """
    m = min(max(round(np.log2(counts.mean() / 24) / 2), 0), MAX_MANTISSA)
    exponents = np.frexp(counts)[1].astype(np.int64) - 1
    scaled = ((counts << m + 1 >> exponents) + 1) >> 1  # 2^m to 2^(m+1), rounded from one more bit
    # Rounded up to 2^(m+1) the mantissa overflows: it becomes 0, and the exponent rises by one.
    carried = scaled >> m + 1
    return exponents + carried, (scaled - 2**m) * (1 - carried), m


def _weights(exponents: np.ndarray, mantissas: np.ndarray, m: int) -> np.ndarray:
    """Return probabilities that add up to 1, as integer multiples (int64, >= 1) of 2^-24.

    They are the frequencies, scaled and rounded down; the remainder goes to the most frequent symbol.
    """
    frequencies = (2**m + mantissas) << exponents  # below 2^39: their products with 2^24 stay below 2^63
    shared = 2**PRECISION - len(frequencies)
    weights = 1 + frequencies * shared // frequencies.sum()
    weights[np.argmax(frequencies)] += 2**PRECISION - weights.sum()
    return weights


def _model(weights: np.ndarray) -> library.model.Categorical:
    """Return constriction's model with exactly these probabilities.

    It gives every symbol 2^-24 and distributes the rest in proportion. Passed the rest in units of 2^-24, its factor is
    exactly 1 and nothing is rounded.
    """
    return library.model.Categorical((weights - 1).astype(np.float64), perfect=False)


def _exponent_bits(exponents: np.ndarray) -> int:
    return int(exponents.max() - exponents.min()).bit_length()


def _table(symbols: np.ndarray, exponents: np.ndarray, mantissas: np.ndarray, m: int) -> bytes:
    """Write alphabet, m, smallest exponent, bits of a difference from it, then difference and mantissa per symbol."""
    least = int(exponents.min())
    width = _exponent_bits(exponents)
    frequencies = (exponents - least) << m | mantissas
    return write_symbols(symbols) + bytes([m, least, width]) + bits.pack(frequencies, width + m)


def read_table(reader: Reader, most: int = SYMBOLS) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return at most `most` symbols, exponents, mantissas, mantissa bits; raise `ValueError` on a contradiction."""
    symbols = read_symbols(reader, most)
    m = reader.byte()
    least = reader.byte()
    width = reader.byte()
    if m > MAX_MANTISSA or width > MAX_EXPONENT.bit_length():
        raise ValueError(f"frequencies with {m} bits of mantissa and {width} of exponent")
    packed = reader.take(bits.packed_bytes(width + m, len(symbols)))
    both = bits.unpack(packed, width + m, len(symbols)).astype(np.int64)
    exponents = (both >> m) + least
    if exponents.max() > MAX_EXPONENT:
        raise ValueError(f"frequencies with exponents up to {exponents.max()}")
    return symbols, exponents, both & (2**m - 1), m
