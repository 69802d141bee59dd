"""Tucker decomposition of convolutions: a small convolution between two that mix channels."""

import math

from torch import Tensor

from compedu.forms import Geometry
from compedu.forms.factored import pointwise
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.low_rank.shared.convolution_factors import ConvolutionFactorization
from compedu.methods.low_rank.shared.rank import Ranks
from compedu.methods.low_rank.shared.spectral import SpectralFactorization
from compedu.methods.low_rank.shared.tucker_2 import tucker_2


def by_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight as a matrix of its inputs (in, ...) and of its outputs (out, ...), float64."""
    tensor = weight.double()
    return tensor.transpose(0, 1).flatten(1), tensor.flatten(1)


@method
class TuckerDecomposition(ConvolutionFactorization, SpectralFactorization):
    r"""Replace each convolution by three: fewer channels in, a small convolution, all channels out.

    $W_{nc} \approx \sum_{a, b} U_{na} V_{cb} G_{ab}$ with $n \le N$ outputs, $c \le C$ inputs, and a core $G$ of
    $R_N \times R_C$ kernels: a Tucker decomposition along the two axes of channels. A fractional `rank` holds for both
    axes. It saves parameters only if $C R_C + R_N R_C k^2 + R_N N < N C k^2$ for kernels of $k \times k$.
    Stored: the three weights at full precision.
    Skips: linear layers and 1x1 convolutions; grouped convolutions; layers where a fractional rank saves nothing,
    unless `allow_larger`; layers that are already compressed. An integer rank that saves nothing raises
    `CompressionError`.
    Paper: Kim, Park, Yoo, Choi, Yang, Shin 2016, Compression of deep convolutional neural networks for fast and low
    power mobile applications, arXiv:1511.06530, section 3, which takes the ranks of budget="vbmf".
    """

    rank: PerLayer[float | int] = inherited(SpectralFactorization, "rank", default=0.4, slider_range=(0.05, 1.0))
    budget: str = inherited(SpectralFactorization, "budget")

    def factors(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the weights of the three convolutions."""
        v, core, u = tucker_2(weight.double(), ranks)
        return v.T[..., None, None], core, u[..., None, None]

    def chain(self, geometry: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """Return a 1x1 convolution, one with the kernel, stride, padding and dilation of the layer, and a 1x1 one."""
        out, inside, *window = geometry.shape
        inputs, outputs = ranks
        core = Geometry("conv2d", (outputs, inputs, *window), geometry.stride, geometry.padding, geometry.dilation)
        return pointwise(inputs, inside), core, pointwise(out, outputs)

    def full_ranks(self, geometry: Geometry) -> Ranks:
        """Return the number of inputs and that of outputs: more than the other axes together span is no use."""
        out, inside, height, width = geometry.shape
        return min(inside, out * height * width), min(out, inside * height * width)

    def break_even(self, geometry: Geometry) -> float:
        """Return the positive root R of k^2 R^2 + (N + C) R = N C k^2."""
        out, inside, height, width = geometry.shape
        area = height * width
        half = (out + inside) / (2 * area)
        return math.sqrt(half**2 + out * inside) - half

    def matrices(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the weight unfolded along its inputs and along its outputs."""
        return by_channel(weight)
