"""Factorizations of convolutions alone: kernels of more than one position, which tensors of more axes than two have."""

from compedu.forms import Geometry
from compedu.knobs import method
from compedu.methods.low_rank.shared.factorization import Factorization


@method
class ConvolutionFactorization(Factorization):
    """A method that replaces each convolution by several in sequence, and leaves other layers as they are."""

    def unsuited(self, geometry: Geometry) -> str:
        """Say why layers of this geometry are not factored, "" if they are."""
        return not_wide(geometry) or super().unsuited(geometry)


def not_wide(geometry: Geometry) -> str:
    """Say why a layer is not a convolution with a kernel of more than one position, "" if it is."""
    if geometry.kind != "conv2d":
        return "is not a convolution; TruncatedSVD factors linear layers"
    if geometry.shape[2:] == (1, 1):
        return "is a 1x1 convolution, whose weight is a matrix; TruncatedSVD factors it"
    return ""
