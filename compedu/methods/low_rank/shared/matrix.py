"""Factorizations of every weight as a matrix: two layers in sequence, their rank the channels between them."""

from torch import Tensor

from compedu.forms import Geometry, precise
from compedu.forms.factored import vertical_horizontal_pair
from compedu.knobs import inherited, method
from compedu.methods.low_rank.shared.rank import Ranks, break_even
from compedu.methods.low_rank.shared.spectral import SpectralFactorization
from compedu.methods.low_rank.shared.svd import factors, svd
from compedu.methods.low_rank.shared.vertical_horizontal import unfolded, vertical_horizontal


def as_matrix(weight: Tensor) -> Tensor:
    """Return the matrix whose rank is reduced: a linear weight (out, in) itself, that of a convolution unfolded."""
    return weight if weight.ndim == 2 else unfolded(weight)


def matrix_shape(geometry: Geometry) -> tuple[int, int]:
    """Return the shape of the matrix whose rank is reduced."""
    out, inside, *window = geometry.shape
    if not window:
        return out, inside
    height, width = window
    return inside * height, out * width


def closest_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the two weights of that `rank` whose product is the least-squares fit to `weight`."""
    if weight.ndim == 4:
        return vertical_horizontal(weight, rank)
    second, first = factors(weight, rank)
    return first, second


@method
class MatrixFactorization(SpectralFactorization):
    """A method that replaces each layer by two: linear ones, or a vertical and a horizontal convolution."""

    budget: str = inherited(
        SpectralFactorization,
        "budget",
        choices=("uniform", "energy", "vbmf", "singular values", "sensitivity"),
        help="the same `rank` for all layers; ranks that keep a share `energy` of each weight, or stand out from noise "
        "(vbmf); or as many weights together as with `rank`, spent on the largest singular values of all layers, or "
        "where each weight lowers the measured loss most",
    )

    def chain(self, geometry: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """Return a first (rank, in) and a second (out, rank), of a convolution a vertical and a horizontal one."""
        (rank,) = ranks
        if geometry.kind == "conv2d":
            return vertical_horizontal_pair(geometry, rank)
        out, inside = geometry.shape
        return Geometry("linear", (rank, inside)), Geometry("linear", (out, rank))

    def full_ranks(self, geometry: Geometry) -> Ranks:
        """Return the smaller dimension of the matrix."""
        return (min(matrix_shape(geometry)),)

    def break_even(self, geometry: Geometry) -> float:
        """Return m n / (m + n) for the m x n matrix."""
        return break_even(*matrix_shape(geometry))

    def matrices(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the matrix whose rank is reduced."""
        return (precise(as_matrix(weight)),)

    def spectra(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the singular values of the matrix."""
        return (svd(as_matrix(weight))[1],)
