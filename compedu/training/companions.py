"""Modules that train together with the network: mixture priors, regressors, gates, each with its own learning rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from compedu.errors import CompressionError
from compedu.training.optimizers import Optimizer, check_optimizer


@dataclass(frozen=True, eq=False)
class Companion:
    """A module that trains together with the network, in place.

    `fit` does not pass it on: a loss or penalty closes over the module, as that of `Distillation` does.

    None stands for the value of the training: the peak learning rate and weight decay of its recipe, its optimizer. The
    learning rate follows the schedule of the recipe. A module without trainable parameters, such as a moving average of
    weights, keeps its mode and is only part of the saved state.
    """

    module: nn.Module
    lr: float | None = None
    weight_decay: float | None = None
    optimizer: Optimizer | None = None

    def __post_init__(self):
        if not isinstance(self.module, nn.Module):
            raise CompressionError(f"Companion.module must be a torch module, got {self.module!r}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise CompressionError(f"Companion.lr must be above 0, got {self.lr!r}")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise CompressionError(f"Companion.weight_decay must be at least 0, got {self.weight_decay!r}")
        if self.optimizer is not None:
            check_optimizer(self.optimizer, "Companion")


def check_companions(model: nn.Module, companions: Mapping[str, Companion]) -> None:
    """Raise `CompressionError` for names that are not identifiers, and for parameters that would train twice."""
    owners = {id(parameter): "the network" for parameter in model.parameters()}
    for name, companion in companions.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise CompressionError(f"companions: a name must be an identifier such as 'regressor', got {name!r}")
        if not isinstance(companion, Companion):
            raise CompressionError(f"companions[{name!r}] must be a Companion(module, ...), got {companion!r}")
        for own, parameter in companion.module.named_parameters():
            if (owner := owners.get(id(parameter))) and parameter.requires_grad:
                raise CompressionError(
                    f"companions[{name!r}]: its parameter {own} also belongs to {owner} and would train twice; for "
                    "another learning rate of a part of the network use rates={'pattern': factor}"
                )
        owners |= {id(parameter): f"companion {name!r}" for parameter in companion.module.parameters()}
