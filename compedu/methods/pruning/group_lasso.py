"""Group lasso: weights that live or die together, the norm of each group, and the step that shortens it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups 0..count-1 of the weights of one or more layers.

    `labels[layer]` holds the number of each weight's group, -1 for weights in none; its shape is that of the layer's
    kernel, or 1 along dimensions over which the number does not change. `sizes` (count,) are the numbers of weights.
    """

    labels: Mapping[str, Tensor]
    sizes: Tensor

    @classmethod
    def of(cls, labels: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], count: int) -> "Groups":
        """Return the groups that `labels` make in kernels of `shapes`."""
        ones = {name: torch.ones(()).expand(shapes[name]) for name in labels}
        return cls(labels, group_totals(ones, labels, count))

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.sizes)


def group_totals(values: Mapping[str, Tensor], labels: Mapping[str, Tensor], count: int) -> Tensor:
    """Return for each group the sum of `values`, one for each weight of the layers in `labels`; (count,)."""
    total = next(iter(values.values())).new_zeros(count)
    for name, label in labels.items():
        sums, inside = values[name].sum_to_size(label.shape), label >= 0
        total = total.index_add(0, label[inside], sums[inside])
    return total


def group_norms(weights: Mapping[str, Tensor], groups: Groups) -> Tensor:
    """Return the Euclidean norm of each group, (count,); where it is zero its gradient is zero too.

    >>> rows = torch.tensor([[0], [1]])
    >>> weight = {"fc": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}
    >>> group_norms(weight, Groups.of({"fc": rows}, {"fc": (2, 2)}, 2)).tolist()
    [5.0, 0.0]
    """
    squares = group_totals({name: weights[name].square() for name in groups.labels}, groups.labels, groups.count)
    some = squares > 0
    return torch.where(some, squares, torch.ones_like(squares)).sqrt() * some


def root_mean_squares(weights: Mapping[str, Tensor], groups: Groups) -> Tensor:
    """Return for each group its norm divided by the root of its size, (count,): groups of any size compare."""
    return group_norms(weights, groups) / groups.sizes.to(next(iter(weights.values())).dtype).sqrt()


def group_lasso(weights: Mapping[str, Tensor], groups: Groups) -> Tensor:
    """Return the sum over all groups g of sqrt(|g|) ||w_g||_2 (Yuan, Lin 2006; Wen et al. 2016 leave the root out)."""
    return (groups.sizes.sqrt() * group_norms(weights, groups)).sum()


def block_soft_threshold(weights: Mapping[str, Tensor], groups: Groups, amount: float) -> dict[str, Tensor]:
    """Return the v that minimize the sum of (v - w)^2 / 2 plus amount * group_lasso(v), by layer.

    Each group is multiplied by max(0, 1 - amount sqrt(|g|) / ||w_g||_2); weights in no group stay (Parikh, Boyd 2014,
    Proximal algorithms, doi:10.1561/2400000003, section 6.5.4).
    """
    sizes = root_mean_squares(weights, groups)
    factors = (1 - amount / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)).clamp_min(0)
    factors = torch.cat([factors, factors.new_ones(1)])  # the last is what -1 reads
    return {name: weights[name] * factors[label] for name, label in groups.labels.items()}
