"""Filter pruning: the filters of lowest score are removed, and the layers really become smaller."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from compedu.datasets.objectives import CLASSIFICATION, KINDS, REGRESSION
from compedu.evaluation import refuse_misfit, refuse_probabilities
from compedu.graph import ChannelGroup
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.calibration import calibration_knob, calibration_set
from compedu.methods.pruning.shared.channel_pruning import ChannelPruning
from compedu.methods.pruning.shared.filter_criteria import (
    batch_norm_scores,
    filter_scores,
    group_scores,
    mean_absolute,
    mean_distance,
    mean_square,
    taylor_scores,
)  # fmt: skip
from compedu.methods.task import Task

NO_SCALES = "no batch norm with scales follows it: choose another criterion"

Criterion = Callable[[Task, Sequence[ChannelGroup], int], list[Tensor]]


def one_by_one(scores: Callable[[nn.Module, ChannelGroup], Tensor]) -> Criterion:
    """Return the criterion that scores each group separately, from the weights alone."""
    return lambda task, groups, images: [scores(task.model, group) for group in groups]


def taylor(task: Task, groups: Sequence[ChannelGroup], images: int) -> list[Tensor]:
    """Return the Taylor scores of all groups on so many training images."""
    refuse_misfit(task.model, task.data)
    refuse_probabilities(task.model, task.data)
    return taylor_scores(task.model, groups, *calibration_set(task.data, images), task.data.objective)


CRITERIA: Mapping[str, Criterion] = {
    "l1": one_by_one(partial(filter_scores, criterion=mean_absolute)),
    "l2": one_by_one(partial(filter_scores, criterion=mean_square)),
    "batch-norm": one_by_one(batch_norm_scores),
    "geometric-median": one_by_one(partial(filter_scores, criterion=mean_distance)),
    "taylor": taylor,
    "group": one_by_one(group_scores),
}


@method
class FilterPruning(ChannelPruning):
    r"""Remove the least important filters, and with them the matching input channels of the layers that read them.

    A fraction `sparsity` of the filters is removed, those of lowest score $s_c$. For filter $c$ with $n$ weights: l1
    $\frac{1}{n} \sum_{ij} |W_{cij}|$; l2 $\frac{1}{n} \sum_{ij} W_{cij}^2$; geometric-median
    $\frac{1}{\sqrt{n}}\,\mathrm{mean}_{k \neq c} \lVert W_c - W_k \rVert$; batch-norm $|\gamma_c|$; taylor
    $\mathrm{mean}_{\mathrm{images}} |\sum a_c\, \partial L / \partial a_c|$ over the positions of the activations
    $a_c$, divided by the root of the sum of its squares over the layer; group $\sum |w| / \mathrm{mean}_k \sum |w|$
    over all weights that go with the filter: its own, scales of batch norms, and those that read it. Filters whose
    outputs are added or concatenated go together: by the mean over all their weights or batch norms, for group by the
    sum over all layers, for taylor by the change of the loss without all of them. With `budget` global these scores are
    compared between layers as they are; those of group are multiples of the layer's average. Before a batch norm the
    size of a filter's weights has no effect, so l1 and l2 may be no better than random; group and batch-norm use the
    scales too.
    Stored: the smaller layers, dense, at full precision.
    Skips: the layers that produce the network's output; layers whose channels cannot be traced; forms of any kind; with
    batch-norm, layers that no batch norm follows. A network without model.spec, which gives the size of its images, is
    traced on one image: pass data too.
    Paper: Li, Kadav, Durdanovic, Samet, Graf 2017, Pruning filters for efficient ConvNets, arXiv:1608.08710, section 3
    (l1, l2); Liu et al. 2017, arXiv:1708.06519 (batch-norm); Molchanov et al. 2017, arXiv:1611.06440 (taylor); He et
    al. 2019, arXiv:1811.00250 (geometric-median); Fang et al. 2023, arXiv:2301.12900, section 3.3 (group).
    """

    random_baseline: ClassVar[str] = "RandomFilterPruning"

    sparsity: PerLayer[float] = inherited(ChannelPruning, "sparsity")
    criterion: str = knob(default="l1", help="what makes a filter important", choices=tuple(CRITERIA))
    budget: str = inherited(ChannelPruning, "budget")
    round_to: int = inherited(ChannelPruning, "round_to")
    calibration_images: int = calibration_knob("training images for what depends on data, such as criterion='taylor'")

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Anything; Taylor scores need a loss of single images, which an embedding has none of."""
        return (CLASSIFICATION, REGRESSION) if self.criterion == "taylor" else KINDS

    @property
    def needs(self) -> str:
        """Weights alone; for the Taylor criterion training images."""
        return "calibration" if self.criterion == "taylor" else "weights"

    def scores(self, task: Task, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Return the scores of the criterion."""
        return CRITERIA[self.criterion](task, groups, self.calibration_images)

    def obstacles(self, task: Task, groups: Sequence[ChannelGroup]) -> list[str]:
        """Return for each group why it cannot be scored: the criterion may need batch norms that it does not have."""
        asked = self.criterion == "batch-norm"
        return [NO_SCALES if asked and batch_norm_scores(task.model, group) is None else "" for group in groups]
