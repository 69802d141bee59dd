"""One budget for a network: which setting each layer gets, by what it takes and by the loss that it costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.evaluation import all_logits
from compedu.graph.copying import inference_copy
from compedu.methods.layers import replace_layer
from compedu.methods.task import Task


@dataclass(frozen=True)
class Choice:
    """One setting of a layer: its `value`, such as bits or a rank, what it takes of the budget, and its loss."""

    value: Any
    cost: float
    loss: float


def loss_with(task: Task, name: str, made: nn.Module, images: tuple[Tensor, Tensor]) -> float:
    """Return the mean cross-entropy in nats on `images` (x, y) where `made` takes the place of layer `name` alone.

    The sensitivity scan of Han, Pool, Tran, Dally (2015, arXiv:1506.02626, section 5). The network of `task` stays as
    it is. Raises `CompressionError` for a loss that is not finite.
    """
    x, y = images
    network = replace_layer(inference_copy(task.model), name, made.eval())
    loss = float(F.cross_entropy(all_logits(network, x, task.data), y))
    if not math.isfinite(loss):
        raise CompressionError(
            f"with {type(made).__name__} as layer {name!r} the loss on the images of {task.data.name!r} is {loss}, so "
            "layers cannot be compared; look for an operation that grows without bound"
        )
    return loss


def worthwhile(choices: list[Choice]) -> list[Choice]:
    """Return the choices on the lower convex hull of loss over cost, from the cheapest, each of less loss than before.

    Between two of them no third is better for its cost, and each further unit of cost helps less than the one before.

    >>> worthwhile([Choice(1, 1.0, 5.0), Choice(2, 2.0, 4.5), Choice(3, 3.0, 1.0), Choice(4, 4.0, 1.2)])
    [Choice(value=1, cost=1.0, loss=5.0), Choice(value=3, cost=3.0, loss=1.0)]
    """
    hull: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.cost, choice.loss)):
        if hull and choice.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and gain(hull[-1], choice) >= gain(hull[-2], hull[-1]):
            hull.pop()
        hull.append(choice)
    return hull


def gain(before: Choice, after: Choice) -> float:
    """Return by how much the loss falls for each further unit of cost."""
    return (before.loss - after.loss) / (after.cost - before.cost)


def shared_out(scanned: Mapping[str, list[Choice]], most: float, unit: str) -> dict[str, Any]:
    """Return the value for each layer for which the sum of losses is small and all costs together are at most `most`.

    All layers begin with their cheapest choice; then the step that lowers the loss most for each unit of cost comes
    first, as long as it fits. Where a step ends at the limit, no other shares have less loss at this cost; what is
    left before the limit goes to whatever choice still fits, the best for its cost first. (HAQ searches such a
    space by reinforcement learning: Wang et al. 2019, arXiv:1811.08886.) Losses of layers are taken to add up.
    Raises `CompressionError`, which names the `unit` of cost, if even the cheapest choices do not fit.
    """
    hulls = {name: worthwhile(choices) for name, choices in scanned.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    left = most - sum(choice.cost for choice in chosen.values())
    if left < 0:
        raise CompressionError(
            f"{len(chosen)} layers take {most - left:,.0f} {unit} even at the least, and the budget is {most:,.0f}; "
            "allow more, or choose fewer layers"
        )
    steps = [(-gain(before, after), name, after) for name, hull in hulls.items() for before, after in pairwise(hull)]
    full = set()  # layers whose next step did not fit: no later one may be taken without it
    for _, name, after in sorted(steps, key=lambda step: step[:2]):
        further = after.cost - chosen[name].cost
        if name in full or further > left:
            full.add(name)
            continue
        left -= further
        chosen[name] = after
    while fitting := _fitting(scanned, chosen, left):
        _, name, after = min(fitting, key=lambda step: step[:2])
        left -= after.cost - chosen[name].cost
        chosen[name] = after
    return {name: choice.value for name, choice in chosen.items()}


def _fitting(
    scanned: Mapping[str, list[Choice]], chosen: Mapping[str, Choice], left: float
) -> list[tuple[float, str, Choice]]:
    """Return the choices of less loss than the `chosen` one of their layer that cost at most `left` more."""
    return [
        (-gain(chosen[name], choice), name, choice)
        for name, choices in scanned.items()
        for choice in choices
        if choice.loss < chosen[name].loss and 0 < choice.cost - chosen[name].cost <= left
    ]
