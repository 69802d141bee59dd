"""Canonical polyadic decomposition of convolutions: four layers, each along one axis of the weight."""

from torch import Tensor

from compedu.forms import Geometry
from compedu.forms.factored import along_axis, full_rank, pointwise
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.low_rank.shared.convolution_factors import ConvolutionFactorization
from compedu.methods.low_rank.shared.polyadic import decomposed
from compedu.methods.low_rank.shared.rank import Ranks


@method
class CPDecomposition(ConvolutionFactorization):
    r"""Replace each convolution by four: channels in, a column and a row for each channel between, channels out.

    $W_{ncij} \approx \sum_{r=1}^{R} a_{nr}\, b_{cr}\, y_{ir}\, x_{jr}$, found by alternating least squares. A best
    approximation of rank $R$ may not exist: then terms grow without bound and cancel out, which the picture shows. It
    saves parameters only if $R (N + C + h + w) < N C h w$ for $N \times C$ kernels of $h \times w$.
    Stored: the four weights at full precision.
    Skips: linear layers and 1x1 convolutions; grouped convolutions; layers where a fractional rank saves nothing,
    unless `allow_larger`; layers that are already compressed. An integer rank that saves nothing raises
    `CompressionError`.
    Paper: Lebedev, Ganin, Rakhuba, Oseledets, Lempitsky 2015, Speeding-up convolutional neural networks using
    fine-tuned CP-decomposition, arXiv:1412.6553, section 3, where nonlinear least squares find the terms.
    """

    rank: PerLayer[float | int] = inherited(ConvolutionFactorization, "rank", slider_range=(0.01, 1.0))

    def factors(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the weights of the four convolutions."""
        (rank,) = ranks
        a, b, y, x = (factor[0] for factor in decomposed(weight[None], rank))
        return b.T[..., None, None], y.T[:, None, :, None], x.T[:, None, None, :], a[..., None, None]

    def chain(self, geometry: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """Return a 1x1 convolution, a vertical and a horizontal one for each channel by itself, and a 1x1 one."""
        out, inside = geometry.shape[:2]
        (rank,) = ranks
        down, along = (along_axis(geometry, axis, (rank, 1), groups=rank) for axis in (0, 1))
        return pointwise(rank, inside), down, along, pointwise(out, rank)

    def full_ranks(self, geometry: Geometry) -> Ranks:
        """Return a rank that suffices for every weight: one term for each entry of all axes but the longest."""
        return (full_rank(geometry.shape),)

    def break_even(self, geometry: Geometry) -> float:
        """Return N C h w / (N + C + h + w)."""
        out, inside, height, width = geometry.shape
        return out * inside * height * width / (out + inside + height + width)
