"""Structured matrices: block-circulant weights, multiplied by the fast Fourier transform."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compedu import hashing
from compedu.forms import declared
from compedu.forms.circulant import circulant_index, frequency_product, frequency_weight, padded
from compedu.forms.form import Form, Geometry
from compedu.forms.parts import Floats, Part

SEEDS = 2**63


class BlockCirculant(Form):
    """A weight of circulant blocks b x b, each given by its first column; optional fixed sign flips of the inputs.

    `columns` has shape (p, q, b): p = ceil(out / b) rows of q blocks. A convolution's weight is the matrix
    (out, in * kernel height * kernel width) with blocks over the input channels at each kernel position, so that
    q = ceil(in / b) * kernel height * kernel width. circ(r)[i, j] = r[(i - j) mod b] (Cheng et al. 2015, section 3,
    arXiv:1502.03436, one block; with blocks, Ding et al. 2017, arXiv:1708.08917).
    """

    def __init__(self, geometry: Geometry, columns: Tensor, bias: Tensor | None, flips: int = 0):
        super().__init__(geometry, bias)
        self.flips = flips  # seed of the sign flips; 0 stands for none
        self.columns = nn.Parameter(columns.detach().clone())
        self.register_buffer("signs", input_signs(geometry, flips).to(columns.dtype), persistent=False)

    @property
    def block(self) -> int:
        """The side b of a block."""
        return self.columns.shape[2]

    def dense(self) -> Tensor:
        """Return the dense weight, every block written out."""
        return self._cut(self.columns[:, :, circulant_index(self.block)]) * self.signs.view(
            1, -1, *(1,) * (len(self.geometry.shape) - 2)
        )

    def _cut(self, blocks: Tensor) -> Tensor:
        """Turn blocks (p, q, b, b) into a weight of the dense shape, dropping the padding."""
        out, inside, *window = self.geometry.shape
        p, q, b, _ = blocks.shape
        places = q * b // padded(inside, b)  # kernel positions: 1 for a linear layer
        matrix = blocks.reshape(p, places, q // places, b, b).permute(0, 3, 2, 4, 1).reshape(p * b, -1, places)
        return matrix[:out, :inside].reshape(out, inside, *window)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply in the frequency domain: each block costs O(b log b) instead of b^2."""
        return self.product(input, frequency_weight(self.columns, self.geometry))

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Run the layer on `x` with its `frequency_weight`, which at inference is computed once."""
        channels = x.shape[-1 if self.geometry.kind == "linear" else 1]
        if channels != self.geometry.shape[1]:  # broadcasting would let one channel pass for many
            raise RuntimeError(f"expected input with {self.geometry.shape[1]} channels, got {tuple(x.shape)}")
        if x.numel() == 0:  # torch transforms no empty tensor
            return self.geometry.apply(self.act(x), self.dense(), self.bias)
        per_channel = (-1,) + (1,) * (len(self.geometry.shape) - 2)
        y = frequency_product(self.act(x) * self.signs.view(per_channel), weight, self.geometry, self.block)
        return y if self.bias is None else y + self.bias.view(per_channel)

    def stored_weight(self) -> dict[str, Part]:
        """Return the first columns of all blocks."""
        return {"columns": Floats(self.columns.detach())}

    def settings(self) -> dict[str, Any]:
        """Return the seed of the sign flips and the version of the hash that makes them."""
        return {"flips": self.flips, "hash": hashing.VERSION}

    def stored_entries(self) -> Tensor:
        """Return which weights are the first columns of the blocks."""
        stored = torch.zeros(self.geometry.shape, dtype=torch.bool)
        stored[:, :: self.block] = True
        return stored

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check the first columns of all blocks, and the seed of the sign flips."""
        declared.only(settings, "flips", "hash")
        declared.only(parts, "columns", "bias")
        whole = all(type(settings.get(name)) is int and 0 <= settings[name] < SEEDS for name in ("flips", "hash"))
        declared.need(whole, "its sign flips lack a seed or version")
        declared.need(geometry.groups == 1, "circulant blocks need an ungrouped layer")
        shape = declared.shape_of(parts, "columns")
        declared.need(len(shape) == 3 and shape[2] >= 1, f"'columns' has the shape {shape}")
        out, inside, *window = geometry.shape
        block = shape[2]
        rows = padded(out, block) // block
        columns = padded(inside, block) // block * math.prod(window)
        return declared.bias(parts, "bias", out, declared.floats(parts, "columns", (rows, columns, block)))

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "BlockCirculant":
        """Rebuild the layer; the sign flips come from the hash, of which this compedu must have the file's version."""
        if settings["flips"] and settings["hash"] != hashing.VERSION:
            raise ValueError(
                f"sign flips of hash version {settings['hash']}; this compedu has version {hashing.VERSION}"
            )
        return cls(geometry, parts["columns"], parts.get("bias"), settings["flips"])

    def macs(self, positions: int) -> int:
        """Return the real multiplications of the frequency-domain product: 4 for each complex one, without transforms.

        The transforms add about (p + q) * b * log2(b) multiplications at each position.
        """
        p, q, b = self.columns.shape
        return positions * 4 * p * q * (b // 2 + 1)


def input_signs(geometry: Geometry, seed: int) -> Tensor:
    """Return one sign per input channel; all +1 for seed 0."""
    return torch.ones(geometry.shape[1]) if seed == 0 else hashing.signs(geometry.shape[1], seed)
