"""Factorizations of every weight as a matrix: two layers in sequence, their rank the channels between them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.forms import Geometry, precise, weight_of
from compedu.forms.factored import linear_pair, vertical_horizontal_pair
from compedu.knobs import inherited, method
from compedu.methods.low_rank.shared.rank import Ranks, break_even, largest_saving_rank
from compedu.methods.low_rank.shared.rank_budget import by_energy
from compedu.methods.low_rank.shared.spectral import SpectralFactorization
from compedu.methods.low_rank.shared.svd import factors, svd
from compedu.methods.low_rank.shared.vertical_horizontal import unfolded, vertical_horizontal
from compedu.methods.shared_budget import Choice, Scan, irreplaceable
from compedu.methods.task import Task


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
    """Return the first and the second weight of that `rank` whose product is the least-squares fit to `weight`.

    The matrix of a linear layer is applied to its inputs from the left, so that its first layer has the right factor;
    that of a convolution has the inputs in its rows, so that its first layer has the left one.

    >>> first, second = closest_factors(torch.tensor([[3.0, 4.0]]), 1)  # a linear layer of two inputs and one output
    >>> first.shape, second.shape
    (torch.Size([1, 2]), torch.Size([1, 1]))
    >>> vertical, horizontal = closest_factors(torch.tensor([[[[3.0], [4.0]]]]), 1)  # a kernel of two rows, one column
    >>> vertical.shape, horizontal.shape
    (torch.Size([1, 1, 2, 1]), torch.Size([1, 1, 1, 1]))
    """
    if weight.ndim == 4:
        return vertical_horizontal(weight, rank)
    second, first = factors(weight, rank)
    return first, second


@method
class MatrixFactorization(SpectralFactorization):
    """A method that replaces each layer by two: linear ones, or a vertical and a horizontal convolution."""

    shared_budgets: ClassVar[tuple[str, ...]] = ("singular values", *SpectralFactorization.shared_budgets)

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
        pair = vertical_horizontal_pair if geometry.kind == "conv2d" else linear_pair
        return pair(geometry, rank)

    @abstractmethod
    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return what stands in place of the layer: two layers, fitted to it or trained anew."""

    def factors(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the two weights of that rank whose product is the least-squares fit to `weight`."""
        return closest_factors(weight, *ranks)

    def choices_of(self, task: Task, layers: Mapping[str, nn.Module]) -> Scan:
        """Return the ranks of each of `layers` that one budget has to choose from, and the layer as it is."""
        if self.budget != "singular values":
            return super().choices_of(task, layers)
        return Scan({name: self.kept_energies(layer) for name, layer in layers.items()}, {})

    def left_alone(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, str]:
        """Return the names of the layers whose place no two layers in sequence can take, with the reasons."""
        return irreplaceable(task, layers, self.smallest)

    def smallest(self, layer: nn.Module) -> nn.Module:
        """Return two layers of rank 1, of any weights, of the kind that stands in place of `layer`."""
        chain = self.chain(Geometry.of(layer), (1,))
        return self.in_sequence(layer, (1,), tuple(torch.zeros(one.shape) for one in chain))

    def kept_energies(self, layer: nn.Module) -> list[Choice]:
        """Return every rank that saves something, and `layer` as it is, with the share of the energy it drops."""
        geometry = Geometry.of(layer)
        (values,) = self.spectra(weight_of(layer).detach())
        return by_energy(self, geometry, values, range(1, largest_saving_rank(self.break_even(geometry)) + 1))

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
