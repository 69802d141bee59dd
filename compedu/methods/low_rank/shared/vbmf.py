"""Empirical variational Bayesian matrix factorization: how many singular values of a matrix stand out from noise."""

import math

import torch
from torch import Tensor

VARIANCES = 1000  # of the noise that are compared, at even ratios


def signal_rank(matrix: Tensor) -> int:
    """Return the rank of the signal in `matrix`, a sum of a matrix of low rank and of noise of unknown variance.

    Singular values above sigma sqrt(M (1 + t) (1 + a / t)) are signal, where the matrix is L x M with L <= M,
    a = L / M, t = 2.5129 sqrt(a), and sigma^2 has the least free energy (Nakajima, Sugiyama, Babacan, Tomioka 2013,
    Global analytic solution of fully-observed variational Bayesian matrix factorization, JMLR 14; the threshold:
    Nakajima, Tomioka, Sugiyama, Babacan 2012, Perfect dimensionality recovery by variational Bayesian PCA, NIPS; for
    the ranks of networks: Kim, Park, Yoo, Choi, Yang, Shin 2016, arXiv:1511.06530, section 3.2). 0 for a matrix of
    noise alone, or of zeros.
    """
    rows, columns = sorted(matrix.shape)
    squares = torch.linalg.svdvals(matrix.double()).square() / columns
    if float(squares[0]) == 0:
        return 0
    ratio = rows / columns
    variances = _possible_variances(squares, ratio)
    energies = torch.stack([free_energy(squares, ratio, float(variance)) for variance in variances])
    return int((squares > variances[energies.argmin()] * threshold(ratio)).sum())


def threshold(ratio: float) -> float:
    """Return from which x = s^2 / (M sigma^2) on a singular value s is signal, for matrices of ratio a = L / M.

    >>> round(threshold(1.0), 4)
    4.9108
    """
    t = 2.5129 * math.sqrt(ratio)
    return (1 + t) * (1 + ratio / t)


def _possible_variances(squares: Tensor, ratio: float) -> Tensor:
    """Return noise variances between the bounds that hold for the best one; `squares` are s^2 / M, descending."""
    rows = len(squares)
    most = max(0, math.ceil(rows / (1 + ratio)) - 1)  # no more singular values can be signal
    noise = squares[most:]
    low = max(float(noise[0]) / threshold(ratio), float(noise.mean()))
    high = float(squares.mean())
    tiny = high * 1e-12  # the noise of a matrix whose rank is exactly low
    return torch.logspace(math.log10(max(low, tiny)), math.log10(max(high, tiny)), VARIANCES, dtype=torch.float64)


def free_energy(squares: Tensor, ratio: float, variance: float) -> Tensor:
    """Return the free energy at a noise `variance`, up to constants and a factor; `squares` are s^2 / M."""
    x = squares / variance
    signal = x > threshold(ratio)
    big = x[signal]
    small = x[~signal].clamp(min=torch.finfo(torch.float64).tiny)
    shifted = big - (1 + ratio)
    tau = 0.5 * (shifted + (shifted.square() - 4 * ratio).sqrt())
    of_noise = (small - small.log()).sum()
    of_signal = (big - tau + ((tau + 1) / big).log() + ratio * (tau / ratio + 1).log()).sum()
    return of_noise + of_signal
