"""Integers of a few bits each, packed one after another into bytes, the most significant bit first."""

import numpy as np

MAX_BITS = 16
BLOCK = 64
CHUNK = 2**15  # words at a time, so that they stay in the processor's cache


def pack(codes: np.ndarray, bits: int) -> bytes:
    """Write each of `codes`, 0 <= code < 2^bits, of any integer type, with 0 to 16 `bits`; pad the last byte.

    Raise `ValueError` for a number that needs more bits. With zero bits all numbers are 0.
    """
    codes = np.asarray(codes).reshape(-1)
    _check(codes, bits)
    if bits in (0, 8, 16) or not codes.size:
        return b"" if bits == 0 else codes.astype(">u2" if bits == 16 else np.uint8).tobytes()
    width = 8 if bits < 8 else 16
    rows = codes.astype(np.uint8 if width == 8 else ">u2").view(np.uint8).reshape(-1, width // 8)
    return np.packbits(np.unpackbits(rows, axis=1)[:, width - bits :]).tobytes()


def unpack(data: bytes, bits: int, count: int) -> np.ndarray:
    """Read `count` numbers of `bits` bits from `data`; returns uint8 or, above 8 bits, uint16.

    Raise `ValueError` if `data` is too short, or for more than 16 bits.
    """
    if not 0 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be 0 to {MAX_BITS}, got {bits}")
    if len(data) < packed_bytes(bits, count):
        raise ValueError(f"{count} numbers of {bits} bits need {packed_bytes(bits, count)} bytes, got {len(data)}")
    if bits == 0:
        return np.zeros(count, np.uint8)
    if bits == 8:
        return np.frombuffer(data, np.uint8, count)
    if bits == 16:
        return np.frombuffer(data, ">u2", count).astype(np.uint16)
    width = 8 if bits < 8 else 16
    rows = np.zeros((count, width), np.uint8)
    rows[:, width - bits :] = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    numbers = np.packbits(rows, axis=1).reshape(-1)
    return numbers if width == 8 else numbers.view(">u2").astype(np.uint16)


def pack_words(words: np.ndarray, lengths: np.ndarray) -> bytes:
    """Write code words of individual `lengths` (1 to 32 bits), integers in `words` (uint64); pad the last byte.

    A word goes into the 64-bit block in which it begins; what does not fit goes into the next block.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if ends.size else 0
    blocks = np.zeros(-(-total // BLOCK), np.uint64)
    for start in range(0, len(words), CHUNK):
        word = words[start : start + CHUNK]
        end = ends[start : start + CHUNK]
        block = (end - lengths[start : start + CHUNK]) // BLOCK
        overhang = end - (block + 1) * BLOCK  # bits that do not fit; negative: bits left free
        split = np.flatnonzero(overhang > 0)
        inside = word << (-overhang).view(np.uint64)
        inside[split] = word[split] >> overhang[split].view(np.uint64)
        # Words are shorter than a block, so one begins in every block: the first is where the block changes.
        first = np.flatnonzero(np.diff(block, prepend=-1))
        blocks[block[0] : block[-1] + 1] |= np.bitwise_or.reduceat(inside, first)
        blocks[block[split] + 1] |= word[split] << (BLOCK - overhang[split]).view(np.uint64)
    return blocks.astype(">u8").tobytes()[: packed_bytes(1, total)]


def packed_bytes(bits: int, count: int) -> int:
    """Return the number of bytes that `count` numbers of `bits` bits take."""
    return -(-bits * count // 8)


def _check(codes: np.ndarray, bits: int) -> None:
    if not 0 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be 0 to {MAX_BITS}, got {bits}")
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) >> bits):
        raise ValueError(f"codes of {bits} bits must lie in 0..{2**bits - 1}, got {codes.min()}..{codes.max()}")
