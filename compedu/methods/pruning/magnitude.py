"""Magnitude pruning: the weights of smallest absolute value become zero."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from compedu.forms import weight_of
from compedu.knobs import method
from compedu.methods.pruning.shared.weight_pruning import WeightPruning
from compedu.methods.task import Task


@method
class MagnitudePruning(WeightPruning):
    r"""Set the weights of smallest absolute value to zero.

    $m_{ij} = [\,|w_{ij}| > \tau\,]$, with a threshold $\tau$ for each layer or for all, depending on `budget`.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Han, Pool, Tran, Dally 2015, Learning both weights and connections, arXiv:1506.02626, section 3. Budgets:
    Lee, Park, Mo, Ahn, Shin 2021, arXiv:2010.07611 (lamp); Evci, Gale, Menick, Castro, Elsen 2020, arXiv:1911.11134
    (erdos-renyi, with kernel sizes).
    """

    writes: ClassVar[bool] = False

    def scores(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Return the absolute values."""
        return {name: weight_of(layer).detach().abs() for name, layer in layers.items()}
