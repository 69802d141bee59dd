"""The first bytes of a model file: what it is, its checksum, and a compact list of what follows.

Layout: 4 bytes "CEDU", 1 byte format version, 4 bytes CRC-32 of all other bytes but the first four, the length of
the header, the header. Later versions keep the first nine bytes, so that a damaged file can be told from a newer one.
"""

import struct
import zlib

from compedu.errors import FileFormatError
from compedu.files.buffers import Reader, varint

MAGIC = b"CEDU"
VERSION = 2
FIXED = len(MAGIC) + 1 + 4
MAX_HEADER = 2**20  # bytes, expanded: thousands of layers
MAX_VALUES = 2**18
MAX_DEPTH = 12  # the integers of a shape are seven deep
ADVICE = "write the file again with compedu.save, or copy it again from its source"

# One byte tells the type of a value and, for what is short, its length; the rest follows.
_SHORT_STRING = 0x80
_SHORT_TUPLE = 0xA0
_NONE = 0xC0
_FALSE = 0xC1
_TRUE = 0xC2
_POSITIVE = 0xC3
_NEGATIVE = 0xC4
_FLOAT = 0xC5
_STRING = 0xC6
_TUPLE = 0xC7
_SHORT = 0x20

Value = None | bool | int | float | str | tuple


def write_value(value: Value) -> bytes:
    """Write a value exactly; numbers below 128 take one byte. Raise `ValueError` for any other type."""
    if value is None or isinstance(value, bool):
        return bytes([_NONE if value is None else _TRUE if value else _FALSE])
    if isinstance(value, int):
        if 0 <= value < _SHORT_STRING:
            return bytes([value])
        return bytes([_POSITIVE if value >= 0 else _NEGATIVE]) + varint(abs(value))
    if isinstance(value, float):
        return bytes([_FLOAT]) + struct.pack("<d", value)
    if isinstance(value, str):
        text = value.encode()
        return _start(len(text), _SHORT_STRING, _STRING) + text
    if isinstance(value, tuple):
        return _start(len(value), _SHORT_TUPLE, _TUPLE) + b"".join(map(write_value, value))
    raise ValueError(f"{value!r} cannot be written; allowed are None, bool, int, float, str and tuples of these")


class Values(Reader):
    """A cursor over values that `write_value` wrote, which reads a bounded number of them, nested to a bounded depth.

    A value takes ten times as much memory as bytes in the file, and more, so their number has a bound of its own.
    """

    def __init__(self, data: bytes):
        super().__init__(data)
        self.read = 0

    def value(self, depth: int = 0) -> Value:
        """Return the next value; raise `ValueError` if there is none."""
        self.read += 1
        if self.read > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_VALUES} values, or values nested deeper than {MAX_DEPTH}")
        tag = self.byte()
        if tag < _SHORT_STRING:
            return tag
        if tag < _SHORT_TUPLE:
            return self.take(tag - _SHORT_STRING).decode()
        if tag < _NONE:
            return tuple(self.value(depth + 1) for _ in range(tag - _SHORT_TUPLE))
        if tag <= _TRUE:
            return {_NONE: None, _FALSE: False, _TRUE: True}[tag]
        if tag in (_POSITIVE, _NEGATIVE):
            return self.varint() if tag == _POSITIVE else -self.varint()
        if tag == _FLOAT:
            return struct.unpack("<d", self.take(8))[0]
        if tag == _STRING:
            return self.take(self.varint()).decode()
        if tag == _TUPLE:
            return tuple(self.value(depth + 1) for _ in range(self.varint()))
        raise ValueError(f"unknown type {tag:#x} at byte {self.position - 1}")


def _start(length: int, short: int, long: int) -> bytes:
    return bytes([short + length]) if length < _SHORT else bytes([long]) + varint(length)


# Typical contents of a header, to which deflate refers back: this halves the header of a small network.
# Part of the format: another dictionary needs another version.
DICTIONARY = write_value(
    (
        ("BlockCirculant", ("flips", "hash"), "columns"),
        ("Factored", "first", "second"),
        ("CReLUFilters", "base", "base_bias"),
        ("padding", "stride", "momentum", "eps"),
        "vgg",
        "resnet",
        "lenet300",
        "lenet5(size=28, channels=1, classes=10, width=1.0)",
        ("BatchNorm2d", (), (), (("running_mean", 0, 4, (0, (1,)), ()), ("running_var", 0, 4, (0, (1,)), ()))),
        (
            "ActivationQuantizer",
            (),
            (("bits", 8),),
            (("act.scale", 0, 2, (0, (1,)), ()), ("act.zero_point", 1, 2, (8, False, (1,)), ())),
        ),
        (
            "Coded",
            ("conv2d",),
            ("linear",),
            (("bits", 8),),
            (("codes", 1), ("positions", 2), ("scale", 0, 2, (0,))),
        ),
        ("conv1", "Masked", (("weight", 0, 0, (0,)),)),
        ("fc1", "Linear", (), (), (("weight", 0, 0, (0,)), ("bias", 0, 3, (0,)))),
        ("conv1", "Conv2d", (), (), (("weight", 0, 0, (0,)), ("bias", 0, 3, (0, (10,)), (4, 0, 0, 0)))),
    )
)


def seal(header: Value, sections: list[bytes]) -> bytes:
    """Return the whole file: fixed bytes, compressed header, sections."""
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    squeezed = deflater.compress(write_value(header)) + deflater.flush()
    content = b"".join([varint(len(squeezed)), squeezed, *sections])
    return b"".join([MAGIC, bytes([VERSION]), _checksum(VERSION, content), content])


def unseal(data: bytes, where: str) -> tuple[Value, Reader]:
    """Return the header and a reader at the first section; raise `FileFormatError` unless the file is intact and known.

    Nothing else is read before the checksum is verified.
    """
    if not data:
        raise FileFormatError(f"{where} is empty; {ADVICE}")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise FileFormatError(f"{where} is not a compedu model file: it begins with {data[:4]!r} instead of {MAGIC!r}")
    version = data[len(MAGIC) : len(MAGIC) + 1]
    content = data[FIXED:]
    if len(data) <= FIXED or _checksum(version[0], content) != data[len(MAGIC) + 1 : FIXED]:
        raise FileFormatError(f"{where} is damaged: cut short or altered, its checksum does not match; {ADVICE}")
    if version[0] != VERSION:
        todo = "update compedu to load it" if version[0] > VERSION else "save the model again with this compedu"
        raise FileFormatError(f"{where} has format version {version[0]}, this compedu reads version {VERSION}; {todo}")
    reader = Reader(data)
    reader.take(FIXED)
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    header = Values(inflater.decompress(reader.take(reader.varint()), MAX_HEADER))
    if not inflater.eof or inflater.unused_data:
        raise ValueError("the header does not end where its length says")
    value = header.value()
    if header.left:
        raise ValueError(f"{header.left} bytes are left over at the end of the header")
    return value, reader


def _checksum(version: int, content: bytes) -> bytes:
    return zlib.crc32(content, zlib.crc32(bytes([version]))).to_bytes(4, "little")
