"""A convolution as four in sequence: pointwise, vertical, horizontal, pointwise, through r channels each."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import Factored, Geometry
from compedu.knobs import knob, method
from compedu.methods import LayerMethod


def canonical(kernel: Tensor, rank: int, rounds: int = 20) -> list[Tensor]:
    """Return four factors (side, rank) of a tensor of rank `rank` near `kernel`, by alternating least squares."""
    draw = torch.Generator().manual_seed(0)
    sides = [torch.randn(side, rank, generator=draw, dtype=torch.float64) for side in kernel.shape]
    for _ in range(rounds):
        for axis in range(4):
            others = [sides[other] for other in range(4) if other != axis]
            product = torch.einsum("ar,br,cr->abcr", *others).reshape(-1, rank)
            unfolded = kernel.double().movedim(axis, 0).flatten(1)
            gram = product.T @ product + 1e-9 * torch.eye(rank, dtype=torch.float64)
            sides[axis] = torch.linalg.solve(gram, product.T @ unfolded.T).T
    return [side.to(kernel.dtype) for side in sides]


@method
class CanonicalPolyadic(LayerMethod):
    r"""Replace a convolution by four in sequence.

    $w_{ncij} = \sum_r a_{nr} b_{cr} u_{ir} v_{jr}$.
    Stored: the four factors at full precision.
    Skips: linear layers, grouped convolutions, layers that are already compressed.
    Paper: Lebedev et al. 2015, arXiv:1412.6553.
    """

    family: ClassVar[str] = "low_rank"

    rank: int = knob(default=4, help="channels between the factors", low=1, high=2048, slider_range=(1, 8))

    def compress_layer(self, name: str, layer: nn.Module) -> Factored:
        g = Geometry.of(layer)
        if g.kind == "linear" or g.groups > 1:
            raise Skip("is no convolution of all channels")
        out, inside, height, width = g.shape
        rank = self.rank
        largest = out * inside * height * width // max(g.shape)
        if rank > largest:
            raise Skip(f"rank {rank} is above {largest}, the most that its kernel can have")
        a, b, u, v = canonical(layer.weight.detach(), rank)
        (down, along), (above, beside), (far, wide) = g.stride, g.padding, g.dilation
        vertical = Geometry("conv2d", (rank, 1, height, 1), (down, 1), (above, 0), (far, 1), rank)
        horizontal = Geometry("conv2d", (rank, 1, 1, width), (1, along), (0, beside), (1, wide), rank)
        return Factored(
            g,
            Geometry("conv2d", (rank, inside, 1, 1)).layer(b.T[:, :, None, None], None),
            vertical.layer(u.T[:, None, :, None], None),
            horizontal.layer(v.T[:, None, None, :], None),
            Geometry("conv2d", (out, rank, 1, 1)).layer(a[:, :, None, None], layer.bias),
        )
