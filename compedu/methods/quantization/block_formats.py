"""Block formats: weights in floating-point or integer formats of a few bits, with a scale for each block of them."""

import math
from typing import ClassVar, cast

from torch import Tensor, nn

from compedu.forms import BlockFloats, Form, Geometry, Masked, mask_of, precise, weight_of
from compedu.forms.number_formats import FORMATS, NumberFormat
from compedu.forms.rounded import blocks_shape
from compedu.knobs import PerLayer, knob, method
from compedu.methods.layer_method import LayerMethod
from compedu.methods.layers import given_value
from compedu.methods.quantization.shared.folding import fold
from compedu.methods.quantization.shared.weight_rows import rows_of
from compedu.methods.task import Task


def block_scales(weight: Tensor, geometry: Geometry, numbers: NumberFormat, block: int) -> Tensor:
    """Return the scale of each block of a weight, (out, blocks), float32, from the largest absolute weight in it.

    Raises `Skip` where one is too large for the format.
    """
    inputs = math.prod(geometry.shape[1:])
    largest = precise(rows_of(weight, "group", min(block, inputs))).abs().amax(1)
    return numbers.scale.of(largest.view(blocks_shape(geometry.shape, block)), numbers.top)


@method
class BlockFormats(LayerMethod):
    r"""Round weights to a number format of a few bits; consecutive weights of an output share a scale.

    $\hat w = s\,v_q$ with $q = \arg\min_q |w / s - v_q|$ over the values $v$ of the format. NormalFloat, of quantiles
    of a normal distribution: $s = \max |w|$ over the block, in half precision. MX formats:
    $s = 2^{\lfloor \log_2 \max |w| \rfloor - \lfloor \log_2 \max v \rfloor}$, so that some weights of a block may lie
    beyond the largest value, which they become. Blocks too small for the smallest scale, $2^{-24}$ or $2^{-127}$, have
    that one. NormalFloat was published with blocks of 64 weights, the MX formats with 32. Batch normalization is folded
    into its layer first.
    Stored: the codes, 4 to 8 bits each; for each block the exponent of its scale, 8 bits, or NormalFloat's scale, 16
    bits, where the paper has 32 and quantizes them once more; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; weights too large for the largest scale; forms other than
    masked ones.
    Paper: Rouhani et al. 2023, Microscaling data formats for deep learning, arXiv:2310.10537, with the OCP Microscaling
    Formats (MX) Specification 1.0, 2023, sections 5 and 6.3; Dettmers, Pagnoni, Holtzman, Zettlemoyer 2023, QLoRA,
    arXiv:2305.14314, section 3 and appendix E.
    """

    family: ClassVar[str] = "quantization"
    accepts: ClassVar[tuple[type[Form], ...]] = (Masked,)
    writes: ClassVar[bool] = False

    format: str = knob(
        default="nf4",
        help="format of a weight: NormalFloat, or that of an MX float (e exponent and m mantissa bits) or integer",
        choices=tuple(FORMATS),
    )
    block: PerLayer[int] = knob(
        default=64,
        help="consecutive weights of an output that share a scale",
        low=1,
        slider_range=(1, 1024),
        log=True,
        per_layer=True,
    )

    def compress(self, task: Task) -> nn.Module:
        """Fold batch norm, then round the weights layer by layer."""
        fold(task)
        return LayerMethod.compress(self, task)

    def compress_layer(self, name: str, layer: nn.Module) -> BlockFloats:
        """Return the layer with the nearest codes, and the trained weights as latent ones; a mask stays."""
        block = given_value(self.block, name)
        geometry = Geometry.of(layer)
        weight = weight_of(layer).detach()
        scale = block_scales(weight, geometry, FORMATS[self.format], block)
        return BlockFloats(
            geometry, weight, scale, self.format, block, cast("Tensor | None", layer.bias), mask_of(layer)
        )
