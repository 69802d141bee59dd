"""The optimizers of a training, a closed list: AdamW, SGD with momentum, Langevin dynamics."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from compedu.errors import CompressionError

Groups = list[dict[str, Any]]  # torch's parameter groups: "params", "lr", "weight_decay"


def _check(value: Any, name: str, right: bool, allowed: str) -> None:
    if not right:
        raise ValueError(f"{type(value).__name__}.{name} must be {allowed}, got {getattr(value, name)!r}")


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019, arXiv:1711.05101)."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        _check(self, "beta1", 0 <= self.beta1 < 1, "in [0, 1)")
        _check(self, "beta2", 0 <= self.beta2 < 1, "in [0, 1)")
        _check(self, "eps", 0 < self.eps < math.inf, "above 0")

    def over(self, groups: Groups, images: int) -> torch.optim.Optimizer:
        """Return torch's optimizer for `groups` of parameters."""
        return torch.optim.AdamW(groups, betas=(self.beta1, self.beta2), eps=self.eps)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient (L2), as in torch."""

    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self):
        _check(self, "momentum", 0 <= self.momentum < 1, "in [0, 1)")
        _check(self, "nesterov", not (self.nesterov and self.momentum == 0), "False where momentum is 0")

    def over(self, groups: Groups, images: int) -> torch.optim.Optimizer:
        """Return torch's optimizer for `groups` of parameters."""
        return torch.optim.SGD(groups, lr=0.0, momentum=self.momentum, nesterov=self.nesterov)


@dataclass(frozen=True)
class SGLD:
    r"""Stochastic gradient Langevin dynamics: gradient steps with noise, which sample weights from the posterior.

    $w \leftarrow w - \eta\,(\nabla L + \lambda w) + \sqrt{2 \eta T / N}\;\xi$ with $\xi \sim N(0, I)$. With the mean
    loss $L$ over $N$ images as -log likelihood, small steps sample from
    $p(w) \propto \exp(-N (L(w) + \lambda \|w\|^2 / 2) / T)$; the weight decay $\lambda$ is a Gaussian prior. The step
    size of the paper is $\epsilon = 2 \eta / N$ (Welling, Teh 2011, Bayesian learning via stochastic gradient Langevin
    dynamics, ICML, equation 4). At `temperature` 0 it is plain gradient descent.
    """

    temperature: float = 1.0

    def __post_init__(self):
        _check(self, "temperature", 0 <= self.temperature < math.inf, "at least 0")

    def over(self, groups: Groups, images: int) -> torch.optim.Optimizer:
        """Return the sampler for `groups` of parameters, for training on `images` images."""
        return _Langevin(groups, self.temperature / images)


Optimizer = AdamW | SGD | SGLD
STANDARD = AdamW()


def check_optimizer(optimizer: Any, where: str) -> None:
    """Raise `CompressionError` for anything but one of the optimizers; `where` says whose it is."""
    if not isinstance(optimizer, Optimizer):
        raise CompressionError(
            f"{where}: the optimizer must be one of AdamW(...), SGD(...), SGLD(...) of compedu.training, got "
            f"{optimizer!r}"
        )


class _Langevin(torch.optim.Optimizer):
    """Gradient steps with noise of variance 2 lr `heat`, from torch's stream, which the loop seeds for each step."""

    def __init__(self, groups: Iterable[dict[str, Any]], heat: float):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.heat = heat

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move each parameter that has a gradient."""
        for group in self.param_groups:
            # Equation 4 of Welling, Teh with epsilon = 2 lr / N: steps on the mean loss, noise of variance 2 lr T / N.
            deviation = math.sqrt(2 * group["lr"] * self.heat)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                    parameter.sub_(gradient, alpha=group["lr"])
                    parameter.add_(torch.randn_like(parameter), alpha=deviation)
