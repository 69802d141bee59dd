"""Low-rank training: the factored network is trained from scratch, with batch norm between the two factors."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import nn

from compedu.forms import Geometry, NormalizedFactors
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.initialization import initialize
from compedu.methods.low_rank.shared.matrix import MatrixFactorization
from compedu.methods.low_rank.shared.rank import Ranks
from compedu.methods.task import Task
from compedu.methods.training_method import FromScratch


@method
class LowRankTraining(FromScratch, MatrixFactorization):
    r"""Train a network of low rank from scratch: two layers in place of each, and batch normalization between them.

    $y = U\,\mathrm{BN}(V x) + b$ with $r$ channels between $V$ and $U$; of a convolution $V$ is a vertical and $U$ a
    horizontal one. Of the given network only its architecture counts, and, where a budget chooses the ranks, its
    weights. `normalize=False` leaves the batch normalization out: then deep networks are hard to train.
    Stored: the two factors, and scale, shift and statistics of the batch normalization, at full precision.
    Skips: layers where a fractional rank is not below break-even, unless `allow_larger`; grouped convolutions. An
    integer rank that saves nothing raises `CompressionError`.
    Paper: Tai, Xiao, Zhang, Wang, E 2016, Convolutional neural networks with low-rank regularization,
    arXiv:1511.06067, section 4.
    """

    identity_settings: ClassVar[dict[str, Any] | None] = None
    from_scratch: ClassVar[bool] = False  # it keeps the given network's channels, hence what is said about them
    writes: ClassVar[bool] = True
    unscanned: ClassVar[tuple[str, ...]] = (*FromScratch.unscanned, *MatrixFactorization.unscanned, "normalize")

    rank: PerLayer[float | int] = inherited(MatrixFactorization, "rank")
    budget: str = inherited(MatrixFactorization, "budget")
    normalize: bool = knob(default=True, help="batch normalization between the two layers")

    @property
    def needs(self) -> str:
        """Training images."""
        return "training"

    def compress(self, task: Task) -> nn.Module:
        """Replace the layers, draw all weights anew, then train."""
        self.refuse_untrainable(task.model, task.data)
        model = MatrixFactorization.compress(self, task)
        initialize(model, self.seed, repr(self))
        return self.train_unchecked(model, task.data)

    def left_alone(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, str]:
        """Return also the names of the layers that are read otherwise than by calling them, where blocks take part."""
        read_apart = task.obstacles(layers, rounding=True) if self.normalize else {}
        return super().left_alone(task, layers) | read_apart

    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return two layers in sequence at the ranks that `rank` or the budget gives the trained `layer`."""
        ranks = self.ranks_for(task, name, layer)
        return self.normalized(layer, ranks) if self.normalize else self.factored(layer, ranks)

    def smallest(self, layer: nn.Module) -> nn.Module:
        """Return two layers of rank 1, with batch norm between them where it is asked for."""
        return self.normalized(layer, (1,)) if self.normalize else super().smallest(layer)

    def normalized(self, layer: nn.Module, ranks: Ranks) -> NormalizedFactors:
        """Return two layers in sequence with batch norm between them, of any weights."""
        (rank,) = ranks
        return cast(NormalizedFactors, NormalizedFactors.drawn(Geometry.of(layer), rank=rank))
