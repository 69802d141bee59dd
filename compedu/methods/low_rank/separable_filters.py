"""Separable filters: each input channel is filtered by a few columns and rows, of which all outputs are mixtures."""

from torch import Tensor

from compedu.forms import Geometry
from compedu.forms.factored import along_axis, full_rank, pointwise
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.low_rank.shared.convolution_factors import ConvolutionFactorization
from compedu.methods.low_rank.shared.polyadic import decomposed
from compedu.methods.low_rank.shared.rank import Ranks


@method
class SeparableFilters(ConvolutionFactorization):
    r"""Replace each convolution by a bank of separable filters for each input channel, and a 1x1 convolution.

    $W_{nc} \approx \sum_{m=1}^{M} a_{ncm}\, y_{cm} x_{cm}^\top$: each input channel $c$ passes through $M$ columns and
    then $M$ rows, and each output mixes all of these. For each channel it is a canonical polyadic decomposition of its
    filters, found by alternating least squares. It saves parameters only if $M (h + w + N) < N h w$ for $N$ outputs and
    kernels of $h \times w$.
    Stored: the three weights at full precision.
    Skips: linear layers and 1x1 convolutions; grouped convolutions; layers where a fractional rank saves nothing,
    unless `allow_larger`; layers that are already compressed. An integer rank that saves nothing raises
    `CompressionError`.
    Paper: Jaderberg, Vedaldi, Zisserman 2014, Speeding up convolutional neural networks with low rank expansions,
    arXiv:1405.3866, section 2.1 (scheme 1); banks of separable filters: Rigamonti, Sironi, Lepetit, Fua 2013, Learning
    separable filters, CVPR.
    """

    rank: PerLayer[float | int] = inherited(
        ConvolutionFactorization,
        "rank",
        default=0.3,
        help="separable filters for each input channel, as a fraction of those that can express every weight",
        slider_range=(0.02, 1.0),
    )

    def factors(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the weights of the three convolutions."""
        (filters,) = ranks
        out, inside, height, width = weight.shape
        a, y, x = decomposed(weight.transpose(0, 1), filters)
        columns = y.mT.reshape(inside * filters, 1, height, 1)
        rows = x.mT.reshape(inside * filters, 1, 1, width)
        mixed = a.transpose(0, 1).reshape(out, inside * filters, 1, 1)
        return columns, rows, mixed

    def chain(self, geometry: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """Return vertical convolutions, `rank` for each input channel, a horizontal one for each, and a 1x1 one."""
        out, inside = geometry.shape[:2]
        (filters,) = ranks
        many = inside * filters
        down = along_axis(geometry, 0, (many, 1), groups=inside)
        return down, along_axis(geometry, 1, (many, 1), groups=many), pointwise(out, many)

    def full_ranks(self, geometry: Geometry) -> Ranks:
        """Return how many separable filters for a channel suffice for every weight."""
        out, _, height, width = geometry.shape
        return (full_rank((out, height, width)),)

    def break_even(self, geometry: Geometry) -> float:
        """Return N h w / (h + w + N)."""
        out, _, height, width = geometry.shape
        return out * height * width / (height + width + out)
