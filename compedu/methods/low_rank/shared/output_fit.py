"""Factors that keep the outputs of a layer close, for inputs x of a known second moment S = E[x x^T]."""

import torch
from torch import Tensor

from compedu.methods.input_moments import damped
from compedu.methods.low_rank.shared.svd import factors
from compedu.methods.low_rank.shared.vertical_horizontal import vertical_horizontal

DAMPING = 1e-6  # of the mean of the diagonal of S: inputs that never occur leave factors undetermined
ROUNDS = 6  # in which the two convolutions are fitted in turn, at most
STEPS = 12  # of conjugate gradients in a round
SOLVED = 1e-20  # of the first squared residual: below it, steps only collect rounding errors
ENOUGH = 1e-4  # relative fall of the error in a round below which it ends


def linear_for_outputs(weight: Tensor, second: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return a first (rank, in) and a second (out, rank) weight of least E||W x - second first x||^2, float64.

    With S = C C^T the error is ||(W - B A) C||^2, so that the product is the truncated decomposition of W C, times C^-1
    (Zhang, Zou, He, Sun 2016, arXiv:1505.06798, section 3.1; there the mean response is subtracted, and the bias
    takes it up: here the bias stays).
    """
    root = torch.linalg.cholesky(damped(second, DAMPING))
    left, right = factors(weight.double() @ root, rank)
    return torch.linalg.solve_triangular(root, right, upper=False, left=False), left


def vertical_horizontal_for_outputs(weight: Tensor, second: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return a vertical and a horizontal weight of small E||(W - W') x||^2, float64; shapes as `vertical_horizontal`.

    Each is fitted in turn while the other stays, from the closest factors of the weight on, for a few rounds, while the
    error falls. It has no closed form, and what is left need not be the least one. Fitting layers to the outputs is the
    data reconstruction of Jaderberg, Vedaldi, Zisserman 2014, arXiv:1405.3866, section 2.2, who train them for it by
    back-propagation.
    """
    problem = _OutputError(weight.double(), damped(second, DAMPING))
    vertical, horizontal = vertical_horizontal(weight.double(), rank)
    error = problem.error(vertical, horizontal)
    for _ in range(ROUNDS):
        across = problem.best_horizontal(vertical)
        down = problem.better_vertical(vertical, across)
        found = problem.error(down, across)
        if not found < error:  # not a number, or no better: what there is stays
            break
        vertical = down
        horizontal = across
        if found >= error * (1 - ENOUGH):
            break
        error = found
    return vertical, horizontal


class _OutputError:
    """The sum over outputs n of (w_n - w'_n)^T S (w_n - w'_n), w_n being their weights (in * height * width)."""

    def __init__(self, weight: Tensor, second: Tensor):
        self.out, self.inside, self.height, self.width = weight.shape
        self.weight = weight.flatten(1)
        self.second = second

    def product(self, vertical: Tensor, horizontal: Tensor) -> Tensor:
        """Return the weight (out, in * height * width) of the two convolutions in sequence."""
        return torch.einsum("rci,nrj->ncij", vertical[..., 0], horizontal[:, :, 0]).flatten(1)

    def error(self, vertical: Tensor, horizontal: Tensor) -> float:
        """Return the error of the two convolutions."""
        change = self.weight - self.product(vertical, horizontal)
        return float(((change @ self.second) * change).sum())

    def best_horizontal(self, vertical: Tensor) -> Tensor:
        """Return the horizontal weight of least error: for each output the same normal equations."""
        rank = len(vertical)
        same = torch.eye(self.width, dtype=vertical.dtype)
        basis = torch.einsum("rci,jk->rjcik", vertical[..., 0], same).reshape(rank * self.width, -1)
        reached = basis @ self.second
        normal = damped(reached @ basis.T, DAMPING)
        found = torch.linalg.solve(normal, reached @ self.weight.T)
        return found.T.reshape(self.out, rank, 1, self.width)

    def better_vertical(self, vertical: Tensor, horizontal: Tensor) -> Tensor:
        """Return a vertical weight of less error, by conjugate gradients: the normal equations would not fit."""
        residual = self._gathered((self.weight - self.product(vertical, horizontal)) @ self.second, horizontal)
        direction = residual
        square = residual.square().sum()
        first = float(square)
        for _ in range(STEPS):
            pushed = self._gathered(self.product(direction, horizontal) @ self.second, horizontal)
            curvature = (direction * pushed).sum()
            if float(square) <= SOLVED * first or float(curvature) <= 0:
                break
            step = square / curvature
            vertical = vertical + step * direction
            residual = residual - step * pushed
            before = square
            square = residual.square().sum()
            direction = residual + square / before * direction
        return vertical

    def _gathered(self, weight: Tensor, horizontal: Tensor) -> Tensor:
        """Return the adjoint of `product` in its first argument, (rank, in, height, 1)."""
        cut = weight.view(self.out, self.inside, self.height, self.width)
        return torch.einsum("ncij,nrj->rci", cut, horizontal[:, :, 0])[..., None]
