"""Factorizations of convolutions alone: kernels of more than one position, which tensors of more axes than two have."""

from compedu.forms import Geometry
from compedu.knobs import method
from compedu.methods.low_rank.shared.factorization import Factorization
from compedu.methods.low_rank.shared.unsuited import not_wide


@method
class ConvolutionFactorization(Factorization):
    """A method that replaces each convolution by several in sequence, and leaves other layers as they are."""

    def unsuited(self, geometry: Geometry) -> str:
        """Say why layers of this geometry are not factored, "" if they are."""
        return not_wide(geometry) or super().unsuited(geometry)
