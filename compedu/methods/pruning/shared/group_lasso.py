"""Group lasso: a penalty on the norms of groups of weights, and its proximal step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compedu.methods.pruning.shared.weight_groups import Groups, group_totals


def group_norms(weights: Mapping[str, Tensor], groups: Groups) -> Tensor:
    """Return the Euclidean norm of each group, (count,); where it is zero its gradient is zero too.

    >>> rows = torch.tensor([[0], [1]])
    >>> weight = {"fc": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}
    >>> group_norms(weight, Groups.of({"fc": rows}, {"fc": (2, 2)}, 2)).tolist()
    [5.0, 0.0]
    """
    squares = group_totals({name: weights[name].square() for name in groups.labels}, groups.labels, groups.count)
    some = squares > 0
    # The root of zero has an infinite gradient, which would turn into NaN: zero groups take the root of one instead.
    return torch.where(some, squares, torch.ones_like(squares)).sqrt() * some


def root_mean_squares(weights: Mapping[str, Tensor], groups: Groups) -> Tensor:
    """Return for each group its norm divided by the root of its size, (count,), which compares groups of any size."""
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
    factors = torch.cat([factors, factors.new_ones(1)])  # index -1, weights in no group, reads the last
    return {name: weights[name] * factors[label] for name, label in groups.labels.items()}
