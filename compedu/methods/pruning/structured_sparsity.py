"""Structured sparsity: a penalty on whole filters, channels, kernel positions or layers, each pruned as a whole."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.evaluation import refuse_misfit
from compedu.forms import Geometry, Masked, trained_weight
from compedu.graph import INPUT, OUTPUT, ChannelGroup, Channels, bypassed_layers, find_channels, part_of
from compedu.knobs import inherited, knob, method
from compedu.methods.channel_method import go_together
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.pruning.regularized_pruning import RegularizedPruning
from compedu.methods.pruning.shared.channel_pruning import ChannelPruning, counts_over_all, smallest
from compedu.methods.pruning.shared.channel_removal import take_out
from compedu.methods.pruning.shared.group_lasso import block_soft_threshold, group_lasso, root_mean_squares
from compedu.methods.pruning.shared.masks import masked_layers, prunable
from compedu.methods.pruning.shared.penalized import PenalizedPruning, proximal_hook
from compedu.methods.pruning.shared.weight_groups import (
    Groups,
    channel_groups,
    column_labels,
    labeled_groups,
    layer_labels,
    members_with_weights,
)  # fmt: skip
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod


def weakest(scores: Sequence[Tensor], sparsity: float, budget: str) -> list[list[int]]:
    """Return for each layer the indices of its groups to prune: the floor(sparsity * n) of lowest score, and all zeros.

    With the budget "uniform" n counts the groups of one layer; with "global" those of all layers are ranked together,
    but the best of each layer stays. Raises `ValueError` if too few can go.

    >>> weakest([torch.tensor([0.0, 0.0, 3.0]), torch.tensor([2.0, 1.0, 4.0])], 0.5, "uniform")
    [[0, 1], [1]]
    """
    if budget == "uniform":
        counts = [part_of(sparsity, len(score)) for score in scores]
    else:
        counts = counts_over_all(scores, sparsity)
    return [smallest(score, max(count, int((score == 0).sum()))) for score, count in zip(scores, counts, strict=True)]


@method
class StructuredSparsity(SelectiveMethod, TrainingMethod):
    r"""Fine-tune under a penalty on whole groups of weights, then prune the groups of smallest norm.

    $\min_w L(w) + \lambda \sum_g \sqrt{|g|}\,\lVert w_g \rVert_2$, by proximal step $w_g \leftarrow w_g
    \max(0, 1 - \eta_t \lambda \sqrt{|g|} / \lVert w_g \rVert_2)$ after each update, or in the loss. A group is all
    weights that produce a channel (`filters`), all that read one (`channels`), one kernel position in one input channel
    over all filters (`shapes`), or a layer with a shortcut around it (`layers`). A fraction `sparsity` of all groups is
    pruned, those of smallest $\lVert w_g \rVert_2 / \sqrt{|g|}$, and those that training made exactly zero. Filters
    and channels are removed from the network, with their biases and batch norms; the others are masked. On AdamW and
    the two steps see RegularizedPruning. Add `| FineTune()` to retrain after pruning.
    Stored: the smaller layers, dense; of masked ones the kept weights, and their positions as gaps.
    Skips: for filters and channels, layers whose channels cannot be traced; for layers, those without a shortcut around
    them; forms, except that shapes and layers accept masked ones.
    Paper: Wen, Wu, Wang, Chen, Li 2016, Learning structured sparsity in deep neural networks, arXiv:1608.03665, section
    3; Lebedev, Lempitsky 2016, Fast ConvNets using group-wise brain damage, arXiv:1506.02515 (shapes); Zhou, Alvarez,
    Porikli 2016, Less is more: towards compact CNNs, ECCV (filters).
    """

    family: ClassVar[str] = "pruning"

    sparsity: float = knob(
        default=0.5,
        help="smallest fraction of the groups pruned; with filters or channels p leaves about (1 - p)^2 of the weights",
        low=0,
        high=1,
        open="high",
        slider_range=(0.0, 0.9),
    )
    groups: str = knob(
        default="filters", help="which weights are pruned together", choices=("filters", "channels", "shapes", "layers")
    )
    budget: str = inherited(
        ChannelPruning,
        "budget",
        help="how the removals are allocated to the layers; whole layers are ranked together",
    )
    strength: float = inherited(PenalizedPruning, "strength", default=0.2, slider_range=(1e-6, 1.0))
    step: str = inherited(RegularizedPruning, "step")

    def compress(self, task: Task) -> nn.Module:
        """Train under the penalty, then remove or mask."""
        return self.remove(task) if self.groups in ("filters", "channels") else self.mask(task)

    def trained_scores(self, task: Task, groups: Groups) -> Tensor:
        """Train the task's network under the penalty on `groups`; return the root mean square of each, (count,)."""
        weights = {name: trained_weight(task.model.get_submodule(name)) for name in groups.labels}

        def shrink(amount: float) -> None:
            for name, weight in block_soft_threshold(weights, groups, amount).items():
                if weights[name].requires_grad:
                    weights[name].copy_(weight)

        hooks = proximal_hook(shrink, self.strength, self.recipe, len(task.data.x_train))
        if self.step == "subgradient":
            hooks = {"penalty": lambda model: self.strength * group_lasso(weights, groups)}
        self.train(task.model, task.data, **hooks)
        return root_mean_squares(weights, groups).detach()

    def weakest(self, names: Sequence[str], scores: Sequence[Tensor]) -> list[list[int]]:
        """Return the indices to prune in each of the layers called `names`; refuse to empty one."""
        if empty := [name for name, score in zip(names, scores, strict=True) if not bool(score.any())]:
            raise CompressionError(
                f"{self!r} left nothing in {', '.join(empty)}: the penalty made all {self.groups} zero; "
                "lower the strength"
            )
        try:
            return weakest(scores, self.sparsity, self.budget)
        except ValueError as error:
            raise CompressionError(f"{self!r} {error}; lower the sparsity") from error

    def weakest_when_trained(
        self, task: Task, groups: Groups, names: Sequence[str], sizes: Sequence[int]
    ) -> list[list[int]]:
        """Train under the penalty; return the indices to prune in each of the layers `names` with `sizes` groups."""
        self.weakest(names, [torch.ones(size) for size in sizes])  # refuses before training what sizes alone forbid
        return self.weakest(names, self.trained_scores(task, groups).split(list(sizes)))

    # Groups that are removed

    def remove(self, task: Task) -> nn.Module:
        """Train, then remove channels from all layers that produce or read them."""
        side = OUTPUT if self.groups == "filters" else INPUT
        channels = find_channels(task.source, task.data.example)
        chosen = task.selected_layers()
        found = self.wanted(task, channels, chosen, side)
        task.refuse_if_nothing_done(len(found))
        geometries = {name: Geometry.of(layer) for name, layer in chosen.items()}
        names, sizes = zip(*((group.name, group.size) for group in found), strict=True)
        groups = channel_groups(found, geometries, side)
        removal = dict(zip(names, self.weakest_when_trained(task, groups, names, sizes), strict=True))
        smaller = take_out(task, channels, removal)
        named = {skipped.layer for skipped in task.skipped}
        for name, geometry in geometries.items():
            if name not in named and Geometry.of(smaller.get_submodule(name)).shape == geometry.shape:
                task.skip(name, f"keeps all its {self.groups}: those of other layers score lower")
        return smaller

    def wanted(self, task: Task, channels: Channels, chosen: Mapping[str, nn.Module], side: str) -> list[ChannelGroup]:
        """Return the channel groups whose layers on that side are all selected; record why other layers are skipped."""
        found = []
        reasons = {}
        inside = set()
        for group in channels.groups:
            layers = {member.layer for member in members_with_weights(group, side)}
            if layers and layers <= chosen.keys():
                found.append(group)
                inside |= layers
            if missing := sorted(layers - chosen.keys()):
                reasons |= dict.fromkeys(layers, go_together(missing))
        for name in chosen:
            if name not in inside:
                task.skip(name, reasons.get(name) or channels.why_left_out(name) or NOT_READ)
        return found

    # Groups that are masked

    def mask(self, task: Task) -> nn.Module:
        """Train inside masks that keep everything, then drop the columns or layers of lowest score."""
        layers = masked_layers(task, self.maskable(task))
        geometries = {name: layer.geometry for name, layer in layers.items()}
        label = column_labels if self.groups == "shapes" else layer_labels
        labels = {name: label(geometry) for name, geometry in geometries.items()}
        groups, counts = labeled_groups(labels, geometries)
        kept = self.kept(task, groups, list(layers), counts)
        for name, label in groups.labels.items():
            drop(task.model.get_submodule(name), kept[label])
        return task.model

    def maskable(self, task: Task) -> dict[str, nn.Module]:
        """Return the layers that can be masked; for "layers" only those that the network can do without."""
        layers = prunable(task)
        if self.groups == "layers":
            refuse_misfit(task.model, task.data)
            around = bypassed_layers(task.source)
            for name in layers:
                if name not in around:
                    task.skip(name, "no shortcut leads around it")
            layers = {name: layer for name, layer in layers.items() if name in around}
            task.refuse_if_nothing_done(len(layers))
        return layers

    def kept(self, task: Task, groups: Groups, names: Sequence[str], counts: Sequence[int]) -> Tensor:
        """Train under the penalty; return which groups stay, (count,) boolean."""
        if self.groups == "layers":
            scores = self.trained_scores(task, groups)
            kept = scores > 0
            kept[smallest(scores, part_of(self.sparsity, len(scores)))] = False
            return kept
        kept = torch.ones(groups.count, dtype=torch.bool)
        for piece, gone in zip(
            kept.split(list(counts)), self.weakest_when_trained(task, groups, names, counts), strict=True
        ):
            piece[gone] = False
        return kept


NOT_READ = "it reads no channels that can be removed"


@torch.no_grad()
def drop(layer: Masked, kept: Tensor) -> None:
    """Drop in place the weights outside `kept`, which broadcasts to the weight; even all of them."""
    layer.mask.logical_and_(kept)
    layer.clear()
