"""Canonical polyadic decomposition by alternating least squares, of one tensor or of many at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compedu.forms.factored import full_rank
from compedu.methods.low_rank.shared.svd import leading

SWEEPS = 150  # at most
ENOUGH = 1e-5  # relative fall of the error in a sweep below which it ends
SHAKEN = 0.1  # length of what is added to each singular vector at the start
CANCELLED = 2.0  # times the square of their sum: terms whose squares together are larger mostly cancel out
CUT = 1e-10  # of the largest eigenvalue of the normal equations: smaller ones are directions that make no difference


def decomposed(tensor: Tensor, rank: int, seed: int = 0) -> list[Tensor]:
    """Return factors A_k (batch, d_k, rank), float64, with tensor[b, i, j, ...] ~ sum_r A_1[b, i, r] A_2[b, j, r] ...

    `tensor` is (batch, d_1, ..., d_m), m >= 2. In each sweep each factor is fitted in turn while the others stay
    (Carroll, Chang 1970; Harshman 1970; Kolda, Bader 2009, Tensor decompositions and applications, section 3.4), from
    the leading singular vectors on, so that the error never rises. Where the rank suffices for a sum over all entries
    of all axes but the longest, that exact one is returned. It need not be the closest of its rank, which may not
    exist: then the terms grow and cancel out (de Silva, Lim 2008, arXiv:math/0607647).
    """
    tensor = tensor.double()
    sizes = tensor.shape[1:]
    if rank >= full_rank(sizes):
        return _exact(tensor, rank)
    factors = [_leading(_unfolded(tensor, axis), rank, seed + axis) for axis in range(len(sizes))]
    norm = tensor.square().sum()
    error = float(norm)
    for _ in range(SWEEPS):
        before = error
        error = float(norm - 2 * _sweep(tensor, factors) + _gram(factors).sum())
        if error >= before * (1 - ENOUGH) or error <= 1e-24 * float(norm):
            break
    return balanced(factors)


def recomposed(factors: Sequence[Tensor]) -> Tensor:
    """Return the tensors (batch, d_1, ..., d_m) that the factors (batch, d_k, rank) stand for."""
    sizes = [factor.shape[1] for factor in factors]
    return (factors[0] @ _khatri_rao(factors[1:]).mT).reshape(-1, *sizes)


def cancellation(factors: Sequence[Tensor]) -> float:
    """Return the sum of the squared norms of the terms over the squared norm of their sum, factors (1, d_k, rank).

    It is 1 for orthogonal terms, and large for terms that cancel out. Terms that are all zero are orthogonal.

    >>> left, right = torch.tensor([[[3.0, -2.0]]]), torch.ones(1, 1, 2)
    >>> cancellation([left, right])
    13.0
    """
    squares = torch.stack([factor.square().sum(1) for factor in factors]).prod(0).sum()
    return float(squares / recomposed(factors).square().sum()) if squares > 0 else 1.0


def balanced(factors: Sequence[Tensor]) -> list[Tensor]:
    """Return factors of the same product whose columns of each term have equal norms."""
    norms = torch.stack([factor.norm(dim=1, keepdim=True) for factor in factors])
    equal = norms.prod(0) ** (1 / len(factors))
    return [
        torch.where(norm > 0, factor * equal / norm, torch.zeros_like(factor))
        for factor, norm in zip(factors, norms, strict=True)
    ]


def _sweep(tensor: Tensor, factors: list[Tensor]) -> Tensor:
    """Fit each factor in turn, in place of the one before; return the inner product of tensor and product."""
    # All but the first need the tensor with its first axis contracted: that is done once, and is most of the work.
    projected = _unfolded(tensor, 0) @ _khatri_rao(factors[1:])
    factors[0] = _fitted(projected, factors, 0)
    rest = (_unfolded(tensor, 0).mT @ factors[0]).reshape(len(tensor), *tensor.shape[2:], -1)
    for axis in range(1, len(factors)):
        projected = _contracted(rest, factors, axis)
        factors[axis] = _fitted(projected, factors, axis)
    return (projected * factors[-1]).sum()


def _contracted(rest: Tensor, factors: Sequence[Tensor], axis: int) -> Tensor:
    """Return (batch, d_axis, rank): `rest` (batch, d_2, ..., d_m, rank) times the factors of its other axes."""
    for other in range(len(factors) - 1, 0, -1):
        if other != axis:
            shape = [1] * (rest.ndim - 2)
            place = other - 1
            shape[place] = -1
            factor = factors[other]
            rest = (rest * factor.reshape(len(factor), *shape, factor.shape[-1])).sum(1 + place, keepdim=True)
    return rest.reshape(len(rest), -1, rest.shape[-1])


def _fitted(projected: Tensor, factors: Sequence[Tensor], axis: int) -> Tensor:
    """Return the factor of least error, the others being fixed: `projected` times the inverse of their Gram matrix."""
    values, vectors = torch.linalg.eigh(_gram([*factors[:axis], *factors[axis + 1 :]]))
    kept = values > CUT * values[:, -1:]
    inverse = torch.where(kept, 1 / values.where(kept, torch.ones_like(values)), torch.zeros_like(values))
    return ((projected @ vectors) * inverse[:, None]) @ vectors.mT


def _gram(factors: Sequence[Tensor]) -> Tensor:
    """Return the inner products of the terms, (batch, rank, rank)."""
    return torch.stack([factor.mT @ factor for factor in factors]).prod(0)


def _khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Return the products of the entries of each term, (batch, d_1 * ... * d_k, rank)."""
    made = factors[0]
    for factor in factors[1:]:
        made = (made[:, :, None] * factor[:, None]).flatten(1, 2)
    return made


def _unfolded(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis + 1, 1).flatten(2)


def _leading(matrices: Tensor, rank: int, seed: int) -> Tensor:
    """Return the leading left singular vectors of `matrices` (batch, d, n), random columns beyond d, shaken a little.

    Singular vectors alone can be a point from which no factor improves while the others stay.
    """
    known = min(rank, matrices.shape[1])
    drawn = torch.randn(*matrices.shape[:2], rank, dtype=matrices.dtype, generator=torch.Generator().manual_seed(seed))
    drawn /= matrices.shape[1] ** 0.5
    drawn[..., :known] *= SHAKEN
    drawn[..., :known] += leading(matrices @ matrices.mT, known).flip(-1)
    return drawn


def _exact(tensor: Tensor, rank: int) -> list[Tensor]:
    """Return one term for each entry of all axes but the longest, and zeros up to the rank."""
    sizes = list(tensor.shape[1:])
    longest = sizes.index(max(sizes))
    terms = full_rank(sizes)
    places = torch.cartesian_prod(*(torch.arange(size) for axis, size in enumerate(sizes) if axis != longest))
    places = places.reshape(terms, -1)
    made: list[Tensor] = []
    column = 0
    for axis, size in enumerate(sizes):
        if axis == longest:
            factor = _unfolded(tensor, axis)
        else:
            factor = torch.eye(size, dtype=tensor.dtype)[:, places[:, column]].expand(len(tensor), -1, -1)
            column += 1
        made.append(torch.nn.functional.pad(factor, (0, rank - terms)))
    return balanced(made)
