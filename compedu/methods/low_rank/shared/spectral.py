"""Factorizations whose ranks are those of matrices, so that singular values tell how many are needed."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import Geometry, weight_of
from compedu.knobs import inherited, knob, knobs, method
from compedu.methods.low_rank.shared.factorization import Factorization
from compedu.methods.low_rank.shared.rank import Ranks
from compedu.methods.low_rank.shared.svd import rank_of_energy
from compedu.methods.low_rank.shared.vbmf import signal_rank
from compedu.methods.task import Task

FOUND = ("energy", "vbmf")  # budgets that find the rank of each layer by itself


@method
class SpectralFactorization(Factorization):
    """A factorization at given ranks, or at those that the singular values of each layer show."""

    unscanned: ClassVar[tuple[str, ...]] = (*Factorization.unscanned, "energy")

    budget: str = inherited(
        Factorization,
        "budget",
        choices=("uniform", "energy", "vbmf", "sensitivity"),
        help="the same `rank` for all layers; ranks that keep a share `energy` of each weight, or stand out from noise "
        "(vbmf); or as many weights together as with `rank`, spent where each lowers the measured loss most",
    )
    energy: float = knob(
        default=0.9,
        help="with budget='energy': share of the sum of squared singular values that is kept",
        low=0,
        high=1,
        open="low",
        slider_range=(0.5, 1),
    )

    def __post_init__(self):
        super().__post_init__()
        # An `energy` beside another budget is no error: where a learner switches the budget back, an explorer sends it.
        if self.budget in FOUND and self.rank != knobs(self)["rank"].default:
            raise ValueError(
                f"{type(self).__name__}.rank is {self.rank!r}, yet budget={self.budget!r} finds the ranks itself; "
                "leave rank out"
            )

    def ranks_for(self, task: Task, name: str, layer: nn.Module) -> Ranks:
        """Return the ranks of layer `name`, or raise `Skip` with the reason why it stays."""
        if self.budget not in FOUND:
            return super().ranks_for(task, name, layer)
        weight = weight_of(layer).detach()
        if self.budget == "energy":
            ranks = tuple(rank_of_energy(values, self.energy) for values in self.spectra(weight))
        else:
            ranks = tuple(map(signal_rank, self.matrices(weight)))
        if 0 in ranks:
            raise Skip("no singular value of its weight stands out from noise")
        geometry = Geometry.of(layer)
        if reason := self.saves_nothing(geometry, ranks):
            cure = "a lower energy, " if self.budget == "energy" else ""
            raise Skip(
                f"{reason}; budget={self.budget!r} asks for that: choose {cure}another budget, or allow_larger=True"
            )
        if reason := self.impossible(geometry, ranks):
            raise Skip(f"{reason}; budget={self.budget!r} asks for that: choose another budget")
        return ranks

    def spectra(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the singular values of each of the `matrices`, in descending order."""
        return tuple(torch.linalg.svdvals(matrix) for matrix in self.matrices(weight))

    @abstractmethod
    def matrices(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the matrices whose ranks are the factorization's, at least in single precision."""
