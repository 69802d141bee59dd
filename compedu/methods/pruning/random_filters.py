"""Random filter pruning: the random baseline of every filter criterion."""

from collections.abc import Sequence

from torch import Tensor

from compedu.graph import ChannelGroup
from compedu.knobs import PerLayer, inherited, method, seed_knob
from compedu.methods.pruning.random_weights import random_scores
from compedu.methods.pruning.shared.channel_pruning import ChannelPruning
from compedu.methods.task import Task


@method
class RandomFilterPruning(ChannelPruning):
    r"""Remove randomly chosen filters, and with them the matching input channels: what a filter criterion must beat.

    $s_c = h_c$, an integer hash of channel, layer and seed; a fraction `sparsity` of the filters, those of lowest
    $s_c$, is removed.
    Stored: the smaller layers, dense, at full precision.
    Skips: the layers that produce the network's output; layers whose channels cannot be traced; forms of any kind.
    Paper: Mittal, Bhardwaj, Khapra, Ravindran 2018, Recovering from random pruning, arXiv:1801.10447.
    """

    sparsity: PerLayer[float] = inherited(ChannelPruning, "sparsity")
    budget: str = inherited(ChannelPruning, "budget")
    round_to: int = inherited(ChannelPruning, "round_to")
    seed: int = seed_knob("seed of the choice of filters")

    def scores(self, task: Task, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Return scores that do not depend on the weights."""
        return [random_scores((group.size,), self.seed, group.name).double() for group in groups]
