"""The truncated singular value decomposition; cached, because another rank only truncates it elsewhere."""

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from compedu.forms import precise
from compedu.hashing import tensors_digest


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (m, k), the singular values (k,) in descending order and V^T (k, n) of `matrix` (m, n), k = min(m, n).

    At least in single precision. The last decompositions are cached by content; do not change the results.
    """
    return _decomposed(_ByContent(tensors_digest({"matrix": matrix}), [matrix.detach()]))


@dataclass(frozen=True)
class _ByContent:
    digest: str
    matrix: list[Tensor] = field(compare=False)  # taken out when decomposed: the cache would keep it in memory


@lru_cache(maxsize=64)
def _decomposed(kept: _ByContent) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.linalg.svd(precise(kept.matrix.pop()), full_matrices=False))


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return L (m, rank) and R (rank, n) whose product is the best approximation of `matrix` (m, n) of that rank.

    L = U sqrt(S) and R = sqrt(S) V^T, so that both have equal norms (Eckart and Young 1936).

    >>> left, right = factors(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 1)
    >>> (left @ right).abs().round(decimals=4).tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    u, s, vt = svd(matrix)
    # The root of S in both factors: with all of S in one, their gradients would differ in scale in training.
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(matrix.dtype), (root[:, None] * vt[:rank]).to(matrix.dtype)


def leading(gram: Tensor, rank: int) -> Tensor:
    """Return the eigenvectors (..., n, rank) of `gram` (..., n, n), symmetric, with the largest eigenvalues, ascending.

    They are the leading left singular vectors of a matrix whose product with its transpose is `gram`.
    """
    return torch.linalg.eigh(gram)[1][..., -rank:]


def energy(values: Tensor, rank: int) -> float:
    """Return the fraction of the energy, the sum of squared singular `values`, in the first `rank` of them.

    >>> energy(torch.tensor([2.0, 1.0, 1.0]), 1)
    0.6666666666666666
    """
    squares = values.double().square()
    total = squares.sum().item()
    return squares[:rank].sum().item() / total if total > 0 else 1.0


def rank_of_energy(values: Tensor, share: float) -> int:
    """Return the smallest rank whose singular `values` hold at least a `share` of the energy; 1 if all are zero.

    >>> rank_of_energy(torch.tensor([2.0, 1.0, 1.0]), 0.8)
    2
    """
    kept = values.double().square().cumsum(0)
    if float(kept[-1]) == 0:
        return 1
    kept = kept / kept[-1]
    # Rounding of the sum must not ask for one value more than there are.
    return 1 + int((kept < share * (1 - 1e-12)).sum().clamp(max=len(values) - 1))
