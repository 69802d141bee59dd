"""Budgets: how the zeros of a network are allocated to its layers."""

import math
from collections.abc import Mapping

from torch import Tensor

from compedu.errors import CompressionError
from compedu.forms import Masked
from compedu.knobs import value_for
from compedu.methods.method import Method
from compedu.methods.pruning.shared.lamp import lamp_masks
from compedu.methods.pruning.shared.masks import keep_largest, keep_largest_together, refuse_empty
from compedu.methods.task import Task

BUDGETS = ("uniform", "global", "lamp", "erdos-renyi")  # those that need only the scores


def budget_masks(budget: str, scores: Mapping[str, Tensor], sparsity: float | Mapping[str, float]) -> dict[str, Tensor]:
    """Return a boolean mask for each layer of `scores` that together drop a fraction `sparsity` of all weights.

    "uniform" takes the same fraction from each layer, or the one that a mapping gives (layers that fit no pattern are
    left out); "global" ranks all weights together; "lamp" ranks them by `lamp_scores`; "erdos-renyi" keeps the
    densities of `erdos_renyi_densities`.
    """
    if budget == "global":
        return keep_largest_together(dict(scores), sparsity)
    if budget == "lamp":
        return lamp_masks(scores, sparsity)
    if budget == "erdos-renyi":
        densities = erdos_renyi_densities({name: tuple(score.shape) for name, score in scores.items()}, 1 - sparsity)
        sparsity = {name: 1 - density for name, density in densities.items()}
    given = {name: value_for(sparsity, name) for name in scores}
    return {name: keep_largest(scores[name], value) for name, value in given.items() if value is not None}


def erdos_renyi_densities(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Return the density of each layer: proportional to the sum of its dimensions over their product.

    That is the Erdos-Renyi-Kernel rule, which sets 1 - e (n_in + n_out + w + h) / (n_in n_out w h) of a layer to zero
    (Evci, Gale, Menick, Castro, Elsen 2020, arXiv:1911.11134, section 3); for linear layers, without w and h, it is the
    rule of Mocanu et al. (2018, arXiv:1707.04780). One e for all layers makes the overall density `density`; layers
    whose density would exceed 1 stay dense.

    >>> erdos_renyi_densities({"a": (100, 100), "b": (10, 100)}, 0.1)
    {'a': 0.07096774193548387, 'b': 0.3903225806451613}
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return densities_in_proportion({name: sum(shape) / sizes[name] for name, shape in shapes.items()}, sizes, density)


def densities_in_proportion(shares: Mapping[str, float], sizes: Mapping[str, int], density: float) -> dict[str, float]:
    """Return densities in proportion to `shares`, at most 1, that keep a fraction `density` of all weights.

    `sizes` are the layers' numbers of weights.

    >>> densities_in_proportion({"a": 1.0, "b": 4.0}, {"a": 100, "b": 100}, 0.5)
    {'a': 0.2, 'b': 0.8}
    """
    kept = density * sum(sizes.values())
    dense = set()
    while True:  # a layer that reaches density 1 leaves more to the others, whose factor grows
        free = kept - sum(sizes[name] for name in dense)
        weight = sum(shares[name] * sizes[name] for name in sizes if name not in dense)
        factor = free / weight if weight else 0.0
        over = {name for name in sizes if name not in dense and factor * shares[name] > 1}
        if not over:
            return {name: 1.0 if name in dense else factor * shares[name] for name in sizes}
        dense |= over


def refuse_mapping_unless_uniform(method: Method) -> None:
    """Raise `ValueError` if the knob `sparsity` is a mapping although the budget allocates the zeros."""
    if method.budget != "uniform" and not isinstance(method.sparsity, (int, float)):
        raise ValueError(
            f"{type(method).__name__}.sparsity must be one number when budget is {method.budget!r}, "
            f"got {method.sparsity!r}"
        )


def refuse_emptying(
    task: Task, layers: Mapping[str, Masked], budget: str, sparsity: float | Mapping[str, float]
) -> None:
    """Raise `CompressionError` before training if sizes alone show that one of `layers` would be emptied.

    "uniform" and "erdos-renyi" depend on nothing else; "global" and "lamp" must leave a weight per layer.
    """
    present = {name: layer.mask.float() for name, layer in layers.items()}
    if budget in ("uniform", "erdos-renyi"):
        for name, mask in budget_masks(budget, present, sparsity).items():
            refuse_empty(task, name, mask)
        return
    size = sum(mask.numel() for mask in present.values())
    if size - round(sparsity * size) < len(present):
        raise CompressionError(
            f"{task.method!r} would leave {size - round(sparsity * size)} of {size:,} weights, fewer than the "
            f"{len(present)} layers {', '.join(present)}, so some would be empty; the sparsity must be at most "
            f"{(size - len(present)) / size:.9g}, or exclude layers, as with layers='-{next(iter(present))}'"
        )
