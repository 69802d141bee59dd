"""Model files of small networks in all forms and codings, and what a forger who knows the format makes of them."""

import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

import compedu as ce
from compedu import files
from compedu.files import header
from compedu.files.buffers import varint
from compedu.networks.fitting import network_for

NETWORKS = {
    "lenet300(width=0.02)": 8,
    "lenet5(width=0.08)": 16,
    "vgg(width=0.04)": 8,
    "resnet(width=0.1, blocks=1)": 8,
    "inception(width=0.05)": 8,
    "mobilenet(width=0.05)": 8,
}  # with the side of their images, in pixels
METHODS = (
    ce.MagnitudePruning(sparsity=0),
    ce.MagnitudePruning(sparsity=0.8),
    ce.MagnitudePruning(sparsity=0.97),
    ce.LinearQuantization(bits=4, activation_bits=8),
    ce.LinearQuantization(bits=1),
    ce.MagnitudePruning(sparsity=0.6) | ce.LinearQuantization(bits=3, scales="tensor"),
    ce.BlockCirculantProjection(block=4),
    ce.TruncatedSVD(rank=0.3),
    ce.TruncatedSVD(rank=0.3) | ce.LinearQuantization(bits=8, activation_bits=4),
    ce.CReLU(epochs=0),
    ce.FilterPruning(sparsity=0.4),
    ce.BlockFormats(block=8),
    ce.MagnitudePruning(sparsity=0.6) | ce.BlockFormats(format="mxfp6_e3m2"),
    ce.BiclusteredSVD(rank=0.5),
    ce.SmoothDictionary(kept=0.3, layers="all"),
    ce.LowRankAdapters(bits=3, rank=1, epochs=0),
)
BIG = (2**14, 2**16, 2**20, 2**24, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1, 12345678901)
PLAIN = (None, True, False, -1, 0, 1, 2, 3, 7, 8, 9, 16, 127, 0.5, -1.0, 1e308, float("inf"), float("nan"), "", "x", ())
SPECS = (
    "resnet(blocks=99999)", "resnet(blocks=400, width=0.01)", "lenet300(width=9999)", "lenet5(size=99999)",
    "vgg(width=1e-9)", "lenet300(size=99999, channels=99999)", "mobilenet(size=99999, width=0.05)", "(" * 900,
    "lenet5(width={[]: 1})", "lenet5(width=1e999)", "inception(size=1)", "capsule", "lenet5" * 150, "\0",
    "-" * 900 + "1", "vgg(width=0.04, size=150)", *NETWORKS,
)  # fmt: skip


class Seed(NamedTuple):
    """An intact file, and what it takes to load it: a network to load into, if it names none, and a batch of images."""

    name: str
    data: bytes
    into: nn.Module | None
    images: Tensor


class Ordinary(nn.Module):
    """A network of modules that files fill in place, with a shared layer, tied weights and bare tensors."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(6))
        self.register_buffer("table", torch.arange(6))
        self.first = nn.Conv2d(1, 6, 3)
        self.norm = nn.GroupNorm(2, 6)
        self.act = nn.PReLU(6)
        self.bend = nn.Tanh()
        self.inner = nn.Linear(6, 6, bias=False)
        self.outer = nn.Linear(6, 6)
        self.outer.weight = self.inner.weight
        self.again = self.outer
        self.batch = nn.BatchNorm1d(6)
        self.last = nn.LayerNorm(6)
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x))).mean((2, 3)) + self.offset + self.table
        return self.fc(self.last(self.batch(self.again(self.bend(self.outer(self.inner(x)))))))


@cache
def seeds() -> list[Seed]:
    """Return intact files of every network after every method that applies to it, in every coding."""
    digits = ce.load_data("digits(size=16)").shortened(train=32, validation=8, test=8)
    found = [seed for spec, side in NETWORKS.items() for seed in _named(spec, side)]
    model = Ordinary().eval()
    images = digits.x_test[:2]
    for method in (METHODS[1], METHODS[3]):
        small = method(model, digits)
        found += [
            Seed(f"Ordinary, {method!r}, {coding}", files.model_bytes(small, coding), model, images)
            for coding in files.CODINGS
        ]
    return found


def _named(spec: str, side: int) -> Iterator[Seed]:
    data = ce.load_data(f"digits(size={side})").shortened(train=32, validation=8, test=8)
    for method in METHODS:
        try:
            small = method(network_for(spec, data), data)
        except ce.CompressionError:  # there is no such layer in this network
            continue
        for coding in files.CODINGS:
            yield Seed(f"{spec}, {method!r}, {coding}", files.model_bytes(small, coding), None, data.x_test[:2])


# A file in pieces: the value of its header, and the bytes after it.


@cache
def opened(data: bytes) -> tuple[header.Value, bytes]:
    """Return the header of an intact file and its parts."""
    value, reader = header.unseal(data, "the seed")
    return value, reader.take(reader.left)


def somewhere(draw: random.Random, value: header.Value) -> tuple[int, ...]:
    """Return the path to some value of a header: at each list it ends, or goes on to one of the values inside."""
    path: tuple[int, ...] = ()
    while isinstance(value, tuple) and value and draw.random() < 0.9:
        path += (draw.randrange(len(value)),)
        value = value[path[-1]]
    return path


def at(value: header.Value, path: tuple[int, ...]) -> header.Value:
    """Return the value at `path`."""
    for index in path:
        value = value[index]
    return value


def changed(value: header.Value, path: tuple[int, ...], new: tuple) -> header.Value:
    """Return the header with the values `new`, none, one or several, in the place of the one at `path`."""
    if not path:
        return new[0] if new else ()
    inside = changed(value[path[0]], path[1:], new) if len(path) > 1 else None
    return value[: path[0]] + (new if len(path) == 1 else (inside,)) + value[path[0] + 1 :]


def another(draw: random.Random, old: header.Value, whole: header.Value) -> header.Value:
    """Return a value for the place of `old`: a near one, a huge one, one of another type, one from elsewhere."""
    kind = draw.randrange(4)
    if kind == 0 and isinstance(old, (int, float)):
        return draw.choice((old + 1, old - 1, old * 2, -old, old // 2 if isinstance(old, int) else old / 2))
    if kind == 0 and isinstance(old, str):
        return draw.choice((old + "x", old[1:], old.upper(), f"{old}.act", f"{old}.first", old.rpartition(".")[0]))
    if kind <= 1:
        return draw.choice(BIG)
    return draw.choice(PLAIN) if kind == 2 else at(whole, somewhere(draw, whole))


# The kinds of mutation: each takes the header and the parts, and gives both back.

Pieces = tuple[header.Value, bytes]


def replaced(draw: random.Random, value: header.Value, parts: bytes) -> Pieces:
    """Put another value in the place of one."""
    path = somewhere(draw, value)
    return changed(value, path, (another(draw, at(value, path), value),)), parts


def moved(draw: random.Random, value: header.Value, parts: bytes) -> Pieces:
    """Leave out a value, write it twice, or exchange two."""
    one = somewhere(draw, value)
    other = somewhere(draw, value)
    if draw.random() < 0.6:
        return changed(value, one, (at(value, one),) * draw.choice((0, 2, 2, 50))), parts
    if one[: len(other)] == other or other[: len(one)] == one:
        return value, parts
    first = at(value, one)
    second = at(value, other)
    later, earlier = (one, other) if one > other else (other, one)
    both = {one: second, other: first}
    return changed(changed(value, later, (both[later],)), earlier, (both[earlier],)), parts


def renamed(draw: random.Random, value: header.Value, parts: bytes) -> Pieces:
    """Name another network, or list paths that are not there, or twice, or inside each other."""
    if draw.random() < 0.5 or len(value) != 6:
        return changed(value, (0,), (draw.choice(SPECS),)), parts
    paths = [layer[0] for layer in value[2]] + ["", "flatten", "a.b", "conv1.act"]
    pairs = [(draw.choice(paths), draw.choice(paths)) for _ in range(draw.choice((1, 2, 30)))]
    field = draw.choice((3, 4, 5))
    return changed(value, (field,), (tuple(pairs) if field == 5 else tuple(path for path, _ in pairs),)), parts


def edited(draw: random.Random, value: header.Value, parts: bytes) -> Pieces:
    """Flip bits of the parts, or put bytes in, out, or elsewhere."""
    altered = bytearray(parts)
    for _ in range(draw.choice((1, 1, 1, 4, 40))):
        if altered:
            altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
    start, end = sorted((draw.randrange(len(altered) + 1), draw.randrange(len(altered) + 1)))
    how = draw.randrange(6)
    if how == 0:
        altered[start:end] = bytes(end - start)
    elif how == 1:
        altered = altered[end:] + altered[:end]
    elif how == 2:
        altered[start:end] = draw.randbytes(draw.choice((0, end - start)))
    return value, bytes(altered)


def inflated(draw: random.Random, value: header.Value, parts: bytes) -> Pieces:
    """Declare a part of many numbers whose streams hold one symbol each, for which a few bytes are enough."""
    layer = draw.randrange(min(40, len(value[2])))
    path = (2, layer, 4, draw.randrange(len(value[2][layer][4])))
    name, kind, role, _, _ = at(value, path)
    side = draw.choice((2, 100, 1000, 2**14, 2**16, 2**20, 2**31))
    sizes = {0: (0, (side, draw.choice((1, side)))), 1: (draw.choice((1, 4, 8, 16)), False, (side,))}
    new = sizes.get(kind, (side, draw.choice((1, 8, 16)), side))
    only = varint(1) + varint(draw.choice((0, 1, 255))) + b"\0" + draw.choice((b"\0\0", b"\0\1\0"))
    count = 4 if kind == 0 else 1
    before = _bytes_before(value, path)
    return changed(value, path, ((name, kind, role, new, (len(only),) * count),)), parts[:before] + only * count + (
        parts[before + _length(at(value, path)) :]
    )


def _length(part: tuple) -> int:
    return sum(files.sections.Record(*part).stream_bytes)


def _bytes_before(value: header.Value, path: tuple[int, ...]) -> int:
    """Return how many bytes stand before the part at `path`."""
    _, layer, _, place = path
    earlier = [part for listed in value[2][:layer] for part in listed[4]] + list(value[2][layer][4][:place])
    return sum(map(_length, earlier))


KINDS: dict[str, Callable[[random.Random, header.Value, bytes], Pieces]] = {
    "a value of the header replaced": replaced,
    "values moved, repeated, left out": moved,
    "another network, other paths": renamed,
    "bytes of the parts altered": edited,
    "many numbers declared in few bytes": inflated,
}
RAW = "bytes of the header altered"
SEVERAL = "two or three of these at once"


@cache
def weights() -> list[float]:
    """Return how often each seed is drawn: one of many layers takes longer, and has the same kinds of layers."""
    return [len(opened(seed.data)[0][2]) ** -1.5 for seed in seeds()]


def mutation(number: int) -> tuple[str, Seed, bytes]:
    """Return the kind of mutation `number`, the file that it began with, and what it became, with a right checksum."""
    draw = random.Random(number)
    seed = draw.choices(seeds(), weights())[0]
    kind = draw.choice((*KINDS, RAW, SEVERAL))
    if kind == RAW:
        return kind, seed, sealed(_flipped(draw, seed.data))
    value, parts = opened(seed.data)
    for name in [kind] if kind != SEVERAL else draw.choices(list(KINDS), k=draw.choice((2, 3))):
        try:
            value, parts = KINDS[name](draw, value, parts)
        except (AttributeError, LookupError, TypeError, ValueError):
            continue  # an earlier mutation left nothing there that this one could change
    return kind, seed, header.seal(value, [parts])


def _flipped(draw: random.Random, data: bytes) -> bytes:
    altered = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        altered[header.FIXED + draw.randrange(min(200, len(altered) - header.FIXED))] ^= 1 << draw.randrange(8)
    return bytes(altered)


def sealed(data: bytes) -> bytes:
    """Return the file with the checksum that its other bytes have."""
    start = len(header.MAGIC)
    checksum = zlib.crc32(data[header.FIXED :], zlib.crc32(data[start : start + 1]))
    return data[: start + 1] + checksum.to_bytes(4, "little") + data[header.FIXED :]
