"""Surgery on a quadratic model of the loss: one weight is pruned, and the others compensate as well as they can.

Near a minimum the loss rises by dw^T H dw / 2 when the weights change by dw. Hassibi and Stork (1993, Second order
derivatives for network pruning: Optimal Brain Surgeon, NIPS 5) minimize that under the constraint that weight q
becomes 0.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from compedu.methods.input_moments import damped

BLOCK = 64  # removals after which the inverse is updated in one product


def surgeon_saliencies(weights: Tensor, inverse: Tensor) -> Tensor:
    """Return L_q = w_q^2 / (2 [H^-1]_qq) for each of the `weights` (n,), given H^-1 (n, n) (section 2).

    >>> surgeon_saliencies(torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 0.0], [0.0, 4.0]])).tolist()
    [1.0, 0.5]
    """
    return weights.square() / (2 * inverse.diagonal())


def surgeon_update(weights: Tensor, inverse: Tensor, q: int) -> Tensor:
    """Return dw = -(w_q / [H^-1]_qq) H^-1 e_q, (n,), which sets weight q to zero at the least rise (section 2).

    >>> surgeon_update(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.5], [0.5, 1.0]]), 0).tolist()
    [-1.0, -0.5]
    """
    return -(weights[q] / inverse[q, q]) * inverse[:, q]


def damped_inverse(hessian: Tensor, damping: float) -> Tensor:
    """Return (H + damping m I)^-1 in float64, where m is the mean of the diagonal of `hessian` (n, n), above 0."""
    hessian = hessian.double()
    return torch.cholesky_inverse(torch.linalg.cholesky(damped(hessian, damping)))


def remove_greedily(weights: Tensor, inverse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return weights (n,) without `count` of them, pruned one by one, each the cheapest at its time, and the mask.

    `inverse` is H^-1 (n, n). Each removal updates all other weights, as `surgeon_update` does, and the inverse, which
    becomes that of H without row and column q, H^-1 - H^-1 e_q e_q^T H^-1 / [H^-1]_qq. The rank-one updates of a block
    are applied together, as one matrix product.
    """
    weights = weights.clone()
    inverse = inverse.clone()
    kept = torch.ones(len(weights), dtype=torch.bool)
    while count:
        block = min(BLOCK, count)
        columns = weights.new_zeros(len(weights), block)
        diagonal = inverse.diagonal().clone()
        for done in range(block):
            saliency = torch.where(kept, weights.square() / diagonal, torch.inf)
            q = int(saliency.argmin())
            # Column q of the current inverse: the stored one minus the pending rank-one updates.
            column = torch.where(kept, inverse[:, q] - columns[:, :done] @ columns[q, :done], 0)
            weights -= column * (weights[q] / column[q])
            kept[q] = False
            columns[:, done] = column / column[q].sqrt()  # so that the update is an outer product with itself
            diagonal -= columns[:, done].square()
            weights[q] = 0
        inverse -= columns @ columns.T
        count -= block
    return weights, kept


def make_up_for(weights: Tensor, hessian: Tensor, kept: Tensor) -> Tensor:
    """Return the rows (rows, n) that are zero where `kept` is false, each at the least rise dw^T H dw / 2, given H.

    For the sets S of kept and M of missing weights of a row, the derivative of the rise with respect to dw_S is zero,
    at dw_M = -w_M, for H_SS dw_S = H_SM w_M. With the inverse of H (n, n) the same change is -[H^-1]_SM x, where
    [H^-1]_MM x = w_M. Each row solves the smaller of the two systems.
    """
    missing = torch.where(kept, 0, weights)
    result = weights - missing
    rises = missing @ hessian
    sizes = kept.sum(1)
    by_missing = 2 * sizes > kept.shape[1]
    for row in (missing.any(1) & ~by_missing).nonzero().flatten().tolist():
        places = kept[row].nonzero().flatten()
        result[row, places] += _solution(hessian, places, rises[row, places])
    if bool((rows := missing.any(1) & by_missing).any()):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian)).contiguous()
        forces = torch.zeros_like(weights)
        for row in rows.nonzero().flatten().tolist():
            places = (~kept[row]).nonzero().flatten()
            forces[row, places] = _solution(inverse, places, weights[row, places])
        result -= torch.where(kept, forces @ inverse, 0)
    return result


def _solution(matrix: Tensor, places: Tensor, right: Tensor) -> Tensor:
    """Return x (m,) of A x = `right` for the part A of the positive definite `matrix` (n, n) at `places` (m,)."""
    flat = places[:, None] * len(matrix) + places  # taken at once: rows and then columns would take twice the time
    part = matrix.view(-1).index_select(0, flat.reshape(-1)).view(flat.shape)
    lower = torch.linalg.cholesky(part)
    half = torch.linalg.solve_triangular(lower, right[:, None], upper=False)
    return torch.linalg.solve_triangular(lower.mT, half, upper=True).squeeze(1)


def operate_on_network(
    outputs: Callable[[Tensor], Tensor], weights: Tensor, damping: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights (n,) of a whole small network after each removal, with the mask of those left, down to none.

    `outputs` maps weights to the outputs for all samples, (N,); the loss is their mean squared error, halved, so that
    H = J^T J / N with the Jacobian J, which is recomputed after each removal; `damping` is added to its diagonal
    (sections 2 and 3). The caller may send other weights back, such as retrained ones.
    """
    kept = torch.ones(len(weights), dtype=torch.bool)
    while kept.any():
        rows = jacobian(outputs, weights)[:, kept]
        hessian = rows.T @ rows / len(rows) + damping * torch.eye(rows.shape[1], dtype=rows.dtype)
        inverse = torch.linalg.inv(hessian)
        q = int(surgeon_saliencies(weights[kept], inverse).argmin())
        changed = weights.clone()
        changed[kept] += surgeon_update(weights[kept], inverse, q)
        place = kept.nonzero()[q]
        changed[place] = 0
        kept = kept.clone().index_fill(0, place, False)
        sent = yield changed, kept
        weights = changed if sent is None else sent * kept
