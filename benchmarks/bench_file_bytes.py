"""Bytes of our model files, packed, Huffman- and ANS-coded, against torch.save plus gzip of the same numbers."""

import gzip
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from table import DATA, Section, options, write
from torch import Tensor, nn

import compedu as ce
from compedu import files
from compedu.forms import Masked, Quantized
from compedu.methods import Method

SAID = """
Bytes of the file of each compressed network, by `compedu.save` in its three codings, and by `torch.save` with `gzip` at
level 9 over it. What torch saves is the network's natural state: its `state_dict`, in which a pruned layer is its dense
float32 weight with the zeros in place (no mask), a quantized layer an int8 tensor of codes in the shape of the weight
(0 where pruned) and the float32 scales, a block-circulant layer its first columns, a factored layer its two factors, a
CReLU layer its base filters, a filter-pruned network its smaller layers; biases, batch normalization with its counters,
and quantizers of activations as they are. Ours also holds what rebuilds the network: spec, kinds of layers and a
checksum. Shipped weights are rounded to half precision and kept in float32, which helps every coder here. The last two
columns are torch.save plus gzip divided by ours, above 1 where our file is smaller.

Left out, because they train or compress nothing themselves: {left_out}; their files hold plain layers, or those of the
step before.
"""
HEAD = (
    "network", "method", "packed", "Huffman", "ANS", "torch.save", "torch.save, gzip", "gzip / packed", "gzip / ANS",
)  # fmt: skip

COMPARED: tuple[Method, ...] = (  # the defaults of all methods that compress without training, and some settings more
    *(cls() for cls in ce.METHODS if cls().needs != "training" and cls.family != "training"),
    ce.MagnitudePruning(sparsity=0.95),
    ce.LinearQuantization(activation_bits=8),
    ce.LinearQuantization(bits=4),
    ce.LinearQuantization(bits=1),
    ce.MagnitudePruning(sparsity=0.9) | ce.LinearQuantization(bits=4),
    ce.CReLU(epochs=0),
)
LEFT_OUT = tuple(cls.__name__ for cls in ce.METHODS if cls not in set(map(type, COMPARED)))


@dataclass(frozen=True)
class Settings:
    """Networks, their data, and what compresses them."""

    networks: tuple[str, ...] = ("lenet5", "vgg")
    data: str = DATA
    methods: tuple[Method, ...] = COMPARED


QUICK = Settings(networks=("lenet300",), data="digits", methods=COMPARED[-3:])


def natural_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the `state_dict` that would be saved without a file format of our own: see the prose of the section."""
    state = dict(model.state_dict())
    for name, layer in model.named_modules():
        if isinstance(layer, (Masked, Quantized)):
            del state[f"{name}.mask"]
            state[f"{name}.weight"] = layer.codes() if isinstance(layer, Quantized) else layer.dense()
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def sizes(model: nn.Module) -> tuple[int, ...]:
    """Return the bytes of `model`: packed, Huffman, ANS, by torch.save, and by torch.save plus gzip."""
    ours = files.file_sizes(model, "packed", "huffman", "ans")
    buffer = io.BytesIO()
    torch.save(natural_state(model), buffer)
    return *ours.values(), buffer.tell(), len(gzip.compress(buffer.getvalue(), compresslevel=9, mtime=0))


def row(network: str, name: str, model: nn.Module) -> tuple[str, ...]:
    """Return one model as a row of the table."""
    packed, huffman, ans, saved, zipped = sizes(model)
    counts = (f"{count:,}" for count in (packed, huffman, ans, saved, zipped))
    return network, name, *counts, f"{zipped / packed:.2f}x", f"{zipped / ans:.2f}x"


def rows_of(network: str, settings: Settings) -> Iterator[tuple[str, ...]]:
    """Yield the dense network and every method; where a method refuses the network, its reason."""
    model, data = ce.load(network, settings.data)
    yield row(network, "(dense)", model)
    for method in settings.methods:
        try:
            compressed = method(model, data)
        except ce.CompressionError as reason:
            yield (network, f"`{method!r}`", f"refused: {reason}", *[""] * (len(HEAD) - 3))
        else:
            yield row(network, f"`{method!r}`", compressed)


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = [row for network in settings.networks for row in rows_of(network, settings)]
    said = SAID.format(left_out=", ".join(LEFT_OUT) or "none")
    write(Section("file_bytes", f"Bytes of files, {settings.data}", said, HEAD, rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
