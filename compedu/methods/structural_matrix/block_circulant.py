"""Block-circulant projection: every weight matrix becomes the closest one made of circulant blocks."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import BlockCirculant, Geometry
from compedu.forms.circulant import circulant_index, padded
from compedu.forms.structured import input_signs
from compedu.knobs import PerLayer, knob, method, seed_knob
from compedu.methods.layer_method import LayerMethod
from compedu.methods.layers import given_value


def nearest_columns(weight: Tensor, block: int) -> Tensor:
    """Return the first columns (p, q, block) of the block-circulant weight that is the least-squares fit to `weight`.

    `weight` is (out, in) or (out, in, height, width); p and q as in `BlockCirculant`. Entry k of a column is the mean
    of its wrapped diagonal (i - j) mod block = k over the entries that lie inside the weight, and 0 where none does
    (T. Chan 1988, An optimal circulant preconditioner for Toeplitz systems, section 2, for one block).

    >>> nearest_columns(torch.tensor([[1.0, 2.0], [5.0, 3.0]]), 2).tolist()
    [[[2.0, 3.5]]]
    """
    # The projection is orthogonal: each entry of a column becomes the mean of the weights that share it.
    blocks = in_blocks(weight, block)
    inside = in_blocks(torch.ones_like(weight), block)
    diagonals = circulant_index(block).expand_as(blocks)  # entry (i, k) lies in column (i - k) mod block
    return blocks.gather(3, diagonals).sum(2) / inside.gather(3, diagonals).sum(2).clamp(min=1)


def in_blocks(weight: Tensor, block: int) -> Tensor:
    """Cut a zero-padded weight (out, in) or (out, in, height, width) into blocks (p, q, block, block).

    The q blocks of a row run over the input channels at the first kernel position, then at the second, and so on.
    """
    flat = weight.flatten(2) if weight.ndim == 4 else weight.unsqueeze(2)
    out, inside, places = flat.shape
    wide = F.pad(flat, (0, 0, 0, padded(inside, block) - inside, 0, padded(out, block) - out))
    cut = wide.reshape(padded(out, block) // block, block, -1, block, places)
    return cut.permute(0, 4, 2, 1, 3).flatten(1, 2)


def stored_parameters(shape: tuple[int, ...], block: int) -> int:
    """Return how many parameters a block-circulant weight of the dense `shape` has: one column per block.

    >>> stored_parameters((6, 8), 4)
    16
    """
    places = 1 if len(shape) == 2 else shape[2] * shape[3]
    return padded(shape[0], block) * padded(shape[1], block) // block * places


@method
class BlockCirculantProjection(LayerMethod):
    r"""Replace every weight matrix by the closest one of circulant blocks: $b$ parameters for $b \times b$ weights.

    $R_{ij} = r_{(i-j) \bmod b}$ with $r_k$ the mean of $w_{ij}$ over $(i-j) \bmod b = k$; with sign flips $D$ the
    weight is $R D$, and $R$ the closest to $W D$. A convolution has blocks over its channels at each kernel position.
    Stored: the first column of each block, and the seed of the sign flips.
    Skips: grouped convolutions; layers where blocks of this size reach so far beyond the edge that they would not save
    any parameters; layers that are already compressed.
    Paper: Cheng, Yu, Feris, Kumar, Choudhary, Chang 2015, An exploration of parameter redundancy in deep networks with
    circulant projections, arXiv:1502.03436, section 3; with blocks Ding et al. 2017, arXiv:1708.08917, section 3.
    """

    family: ClassVar[str] = "structural_matrix"
    identity_settings: ClassVar[dict[str, Any]] = {"block": 1}
    writes: ClassVar[bool] = False

    block: PerLayer[int] = knob(
        default=4,
        help="size of the circulant blocks; 1 leaves every weight free",
        low=1,
        high=512,
        slider_range=(1, 64),
        log=True,
        per_layer=True,
    )
    flips: int = seed_knob("seed of the fixed sign flips of the inputs; 0 stands for none")

    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the layer with the closest block-circulant weight."""
        geometry = Geometry.of(layer)
        block = given_value(self.block, name)
        if geometry.groups > 1:
            raise Skip(f"is a convolution in {geometry.groups} groups; blocks need every output to read every input")
        stored = stored_parameters(geometry.shape, block)
        dense = layer.weight.numel()
        if block > 1 and stored >= dense:
            raise Skip(
                f"blocks of {block} reach beyond its {geometry.shape[0]} x {geometry.shape[1]} channels: they would "
                f"store {stored} parameters for its {dense} weights; choose a smaller block"
            )
        signs = input_signs(geometry, self.flips).to(layer.weight).view(1, -1, *[1] * (layer.weight.ndim - 2))
        return BlockCirculant(geometry, nearest_columns(layer.weight.detach() * signs, block), layer.bias, self.flips)
