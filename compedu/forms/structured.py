"""Structural matrices: block-circulant kernels, multiplied by the fast Fourier transform."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu import hashing
from compedu.forms.form import Form, Geometry
from compedu.forms.parts import Floats, Part


class BlockCirculant(Form):
    """A kernel of circulant blocks b x b, each given by its first column; optional fixed sign flips of the inputs.

    `columns` has shape (p, q, b): p = ceil(out / b) rows of q blocks. A convolution's kernel is the matrix
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
        """Return the kernel with every block written out."""
        return self._cut(self.columns[:, :, circulant_index(self.block)]) * self.signs.view(
            1, -1, *(1,) * (len(self.geometry.shape) - 2)
        )

    def _cut(self, blocks: Tensor) -> Tensor:
        """Turn blocks (p, q, b, b) into a kernel of the dense shape, dropping the padding."""
        out, inside, *window = self.geometry.shape
        p, q, b, _ = blocks.shape
        places = q * b // padded(inside, b)  # kernel positions: 1 for a linear layer
        matrix = blocks.reshape(p, places, q // places, b, b).permute(0, 3, 2, 4, 1).reshape(p * b, -1, places)
        return matrix[:out, :inside].reshape(out, inside, *window)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply in the frequency domain: each block costs O(b log b) instead of b^2."""
        channels = x.shape[-1 if self.geometry.kind == "linear" else 1]
        if channels != self.geometry.shape[1]:  # broadcasting would let one channel pass for many
            raise RuntimeError(f"expected input with {self.geometry.shape[1]} channels, got {tuple(x.shape)}")
        x = self.act(x)
        if self.geometry.kind == "linear":
            return self._product(x * self.signs, self.geometry.shape[1])
        g = self.geometry
        rows = F.unfold(x * self.signs.view(1, -1, 1, 1), g.shape[2:], g.dilation, g.padding, g.stride)
        places = g.shape[2] * g.shape[3]
        rows = rows.view(len(x), g.shape[1], places, -1).permute(0, 3, 2, 1)  # (N, positions, places, in)
        y = self._product(rows, g.shape[1])  # (N, positions, out)
        height, width = (
            (x.shape[i + 2] + 2 * g.padding[i] - g.dilation[i] * (g.shape[i + 2] - 1) - 1) // g.stride[i] + 1
            for i in (0, 1)
        )
        return y.transpose(1, 2).reshape(len(x), g.shape[0], height, width)

    def _product(self, x: Tensor, inside: int) -> Tensor:
        """Multiply x (..., in) or (..., places, in) by the block-circulant matrix; returns (..., out)."""
        b = self.block
        x = F.pad(x, (0, padded(inside, b) - inside))
        lead = x.shape[:-1] if self.geometry.kind == "linear" else x.shape[:-2]
        precise = torch.promote_types(x.dtype, torch.float32)  # there is no transform of half-precision numbers
        spectrum = torch.fft.rfft(x.reshape(*lead, -1, b).to(precise))
        product = torch.einsum("...qf,pqf->...pf", spectrum, torch.fft.rfft(self.columns.to(precise)))
        y = torch.fft.irfft(product, n=b).to(x.dtype).reshape(*lead, -1)[..., : self.geometry.shape[0]]
        return y if self.bias is None else y + self.bias

    def stored_kernel(self) -> dict[str, Part]:
        """Return the first columns of all blocks."""
        return {"columns": Floats(self.columns.detach())}

    def settings(self) -> dict[str, Any]:
        """Return the seed of the sign flips and the version of the hash that makes them."""
        return {"flips": self.flips, "hash": hashing.VERSION}

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "BlockCirculant":
        """Rebuild the layer; the sign flips come from the hash, whose version must be the one of the file."""
        if settings["flips"] and settings["hash"] != hashing.VERSION:
            raise ValueError(f"sign flips of hash version {settings['hash']}; this compedu has version {hashing.VERSION}")
        return cls(geometry, parts["columns"], parts.get("bias"), settings["flips"])

    def macs(self, positions: int) -> int:
        """Return the real multiplications of the frequency-domain product: 4 for each complex one, transforms left out.

        The transforms add about (p + q) * b * log2(b) multiplications at each position.
        """
        p, q, b = self.columns.shape
        return positions * 4 * p * q * (b // 2 + 1)


def padded(size: int, block: int) -> int:
    """Return `size` rounded up to a multiple of `block`."""
    return -(-size // block) * block


def circulant_index(block: int) -> Tensor:
    """Return the (block, block) table of (i - j) mod block: which entry of the first column stands at (i, j)."""
    steps = torch.arange(block)
    return (steps[:, None] - steps[None, :]) % block


def input_signs(geometry: Geometry, seed: int) -> Tensor:
    """Return one sign per input channel; all +1 for seed 0."""
    return torch.ones(geometry.shape[1]) if seed == 0 else hashing.signs(geometry.shape[1], seed)
