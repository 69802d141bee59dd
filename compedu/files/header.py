"""The first bytes of a model file: what it is, its checksum, and a compact list of what follows.

Layout: 4 bytes "CEDU", 1 byte format version, 4 bytes CRC-32 of all bytes but these and the first four, the length of
the header, the header. Later versions keep the first nine bytes, so that damage can be told from novelty.
"""

import struct
import zlib

from compedu.errors import FileFormatError
from compedu.files.buffers import Reader, varint

MAGIC = b"CEDU"
VERSION = 1
FIXED = len(MAGIC) + 1 + 4
MAX_HEADER = 2**26  # bytes, expanded: thousands of layers
ADVICE = "write the file again with compedu.save, or copy it again from where it came"

# One byte tells the type of a value and, for what is short, its length; the rest follows.
_SHORT_TEXT, _SHORT_TUPLE, _NONE, _FALSE, _TRUE, _WHOLE, _NEGATIVE, _FLOAT, _TEXT, _TUPLE = (
    0x80, 0xA0, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7,
)
_SHORT = 0x20

Value = None | bool | int | float | str | tuple


def write_value(value: Value) -> bytes:
    """Write a value exactly; numbers below 128 take one byte. Raise `ValueError` for any other type."""
    if value is None or isinstance(value, bool):
        return bytes([_NONE if value is None else _TRUE if value else _FALSE])
    if isinstance(value, int):
        if 0 <= value < _SHORT_TEXT:
            return bytes([value])
        return bytes([_WHOLE if value >= 0 else _NEGATIVE]) + varint(abs(value))
    if isinstance(value, float):
        return bytes([_FLOAT]) + struct.pack("<d", value)
    if isinstance(value, str):
        text = value.encode()
        return _start(len(text), _SHORT_TEXT, _TEXT) + text
    if isinstance(value, tuple):
        return _start(len(value), _SHORT_TUPLE, _TUPLE) + b"".join(map(write_value, value))
    raise ValueError(f"{value!r} cannot be written; allowed are None, bool, int, float, str and tuples of these")


def read_value(reader: Reader) -> Value:
    """Return the next value that `write_value` wrote; raise `ValueError` if there is none."""
    tag = reader.byte()
    if tag < _SHORT_TEXT:
        return tag
    if tag < _SHORT_TUPLE:
        return reader.take(tag - _SHORT_TEXT).decode()
    if tag < _NONE:
        return tuple(read_value(reader) for _ in range(tag - _SHORT_TUPLE))
    if tag <= _TRUE:
        return {_NONE: None, _FALSE: False, _TRUE: True}[tag]
    if tag in (_WHOLE, _NEGATIVE):
        return reader.varint() if tag == _WHOLE else -reader.varint()
    if tag == _FLOAT:
        return struct.unpack("<d", reader.take(8))[0]
    if tag == _TEXT:
        return reader.take(reader.varint()).decode()
    if tag == _TUPLE:
        return tuple(read_value(reader) for _ in range(reader.varint()))
    raise ValueError(f"unknown type {tag:#x} at byte {reader.position - 1}")


def _start(length: int, short: int, long: int) -> bytes:
    return bytes([short + length]) if length < _SHORT else bytes([long]) + varint(length)


# What headers are made of, as they write it: deflate refers back to it, which halves the header of a small network.
# Part of the format: another dictionary needs another version.
DICTIONARY = write_value((
    ("BlockCirculant", ("flips", "hash"), "columns"), ("Factored", "first", "second"),
    ("CReLUFilters", "base", "base_bias"), ("padding", "stride", "momentum", "eps"),
    "vgg", "resnet", "lenet300", "lenet5(size=28, channels=1, classes=10, width=1.0)",
    ("BatchNorm2d", (), (), (("running_mean", 0, 4, (0, (1,)), ()), ("running_var", 0, 4, (0, (1,)), ()))),
    ("ActivationQuantizer", (), (("bits", 8),),
     (("act.scale", 0, 2, (0, (1,)), ()), ("act.zero_point", 1, 2, (8, False, (1,)), ()))),
    ("Coded", ("conv2d",), ("linear",), (("bits", 8),), (("codes", 1), ("positions", 2), ("scale", 0, 2, (0,)))),
    ("conv1", "Masked", (("weight", 0, 0, (0,)),)),
    ("fc1", "Linear", (), (), (("weight", 0, 0, (0,)), ("bias", 0, 3, (0,)))),
    ("conv1", "Conv2d", (), (), (("weight", 0, 0, (0,)), ("bias", 0, 3, (0, (10,)), (4, 0, 0, 0)))),
))


def seal(header: Value, sections: list[bytes]) -> bytes:
    """Return the whole file: fixed bytes, compressed header, sections."""
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    squeezed = deflater.compress(write_value(header)) + deflater.flush()
    content = b"".join([varint(len(squeezed)), squeezed, *sections])
    return b"".join([MAGIC, bytes([VERSION]), _checksum(VERSION, content), content])


def unseal(data: bytes, where: str) -> tuple[Value, Reader]:
    """Return the header and a reader at the first section; raise `FileFormatError` unless the file is intact and known.

    Nothing but the checksum is looked at until the checksum has been found right.
    """
    if not data:
        raise FileFormatError(f"{where} is empty; {ADVICE}")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise FileFormatError(f"{where} is not a compedu model file: it begins with {data[:4]!r} instead of {MAGIC!r}")
    version, content = data[len(MAGIC): len(MAGIC) + 1], data[FIXED:]
    if len(data) <= FIXED or _checksum(version[0], content) != data[len(MAGIC) + 1: FIXED]:
        raise FileFormatError(f"{where} is damaged: cut short or altered, its checksum does not match; {ADVICE}")
    if version[0] != VERSION:
        raise FileFormatError(
            f"{where} has format version {version[0]}, this compedu reads version {VERSION}; update compedu to load it"
        )
    reader = Reader(data)
    reader.take(FIXED)
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    header = Reader(inflater.decompress(reader.take(reader.varint()), MAX_HEADER))
    if not inflater.eof or inflater.unused_data:
        raise ValueError("the header does not end where it should")
    return read_value(header), reader


def _checksum(version: int, content: bytes) -> bytes:
    return zlib.crc32(content, zlib.crc32(bytes([version]))).to_bytes(4, "little")
