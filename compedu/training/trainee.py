"""A module in training: its optimizer, the learning rates of its parameters, and its saved state."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.identity import structure_digest
from compedu.knobs import value_for
from compedu.training.companions import Companion
from compedu.training.optimizers import Optimizer
from compedu.training.recipe import Recipe


class Trainee:
    """A module that trains on `images` images by `recipe` and `optimizer`, parts of it at other learning rates.

    `rates` maps patterns of parameter names to factors of the learning rate; the first match wins.
    """

    def __init__(
        self, module: nn.Module, recipe: Recipe, optimizer: Optimizer, images: int, rates: Mapping[str, float] | None
    ):
        self.module = module
        self.recipe = recipe
        parts = by_factor(module, rates or {})
        self.factors = list(parts)
        groups = [{"params": part, "lr": recipe.lr, "weight_decay": recipe.weight_decay} for part in parts.values()]
        self.optimizer = optimizer.over(groups, images) if groups else None
        self.identity = _structure(module)  # when the training begins: hooks may change the module later

    @classmethod
    def beside(cls, companion: Companion, recipe: Recipe, optimizer: Optimizer, images: int) -> "Trainee":
        """Return the trainee of a `companion` of a network that trains by `recipe` and `optimizer`."""
        own = {"lr": companion.lr, "weight_decay": companion.weight_decay}
        recipe = replace(recipe, **{name: value for name, value in own.items() if value is not None})
        optimizer = companion.optimizer or optimizer
        trainee = cls(companion.module, recipe, optimizer, images, None)
        trainee.identity = f"{trainee.identity} lr={recipe.lr!r} weight_decay={recipe.weight_decay!r} {optimizer!r}"
        return trainee

    def train(self) -> None:
        """Put the module into training mode, if it has trainable parameters."""
        if self.optimizer is not None:
            self.module.train()

    def evaluate(self) -> None:
        """Put the module into evaluation mode, if it has trainable parameters."""
        if self.optimizer is not None:
            self.module.eval()

    def clear_gradients(self) -> None:
        """Clear the gradients of the last step."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def update(self, step: int, steps: int) -> None:
        """Move the parameters along their gradients, at the learning rates of `step`."""
        if self.optimizer is None:
            return
        rate = self.recipe.rate(step, steps)
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()

    def not_finite(self) -> list[str]:
        """Return the names of the parameters that are no longer finite."""
        return [name for name, value in self.module.named_parameters() if not bool(value.isfinite().all())]

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the module and of its optimizer, flat."""
        found = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        found |= {f"buffer.{name}": value for name, value in _transient_buffers(self.module).items()}
        state = {} if self.optimizer is None else self.optimizer.state_dict()["state"]
        for index, values in state.items():
            found |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that `tensors()` returned."""
        self.module.load_state_dict(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        for name, buffer in _transient_buffers(self.module).items():
            _restore(self.module, buffer, tensors[f"buffer.{name}"])
        if self.optimizer is None:
            return
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def by_factor(module: nn.Module, rates: Mapping[str, float]) -> dict[float, list[nn.Parameter]]:
    """Return the trainable parameters of `module`, grouped by the factor of their learning rate, in order.

    Raises `CompressionError` for a factor that is not above 0, and for a pattern that matches no trainable parameter.
    """
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    for pattern, factor in rates.items():
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
            raise CompressionError(
                f"rates[{pattern!r}] must be a factor of the learning rate above 0, got {factor!r}; to freeze a "
                "parameter use requires_grad_(False)"
            )
        if not any(value_for({pattern: factor}, name) for name in names):
            raise CompressionError(
                f"rates: no trainable parameter matches {pattern!r}; there are {', '.join(names) or 'none'}"
            )
    parts: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            parts.setdefault(float(value_for(rates, name) or 1.0), []).append(parameter)
    return parts


def _transient_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that a state dict leaves out (`persistent=False`): training may change them too."""
    kept = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in kept}


def _restore(module: nn.Module, buffer: Tensor, value: Tensor) -> None:
    """Give `buffer` its value of before, under all of its names; training may have changed its shape."""
    if buffer.shape == value.shape and buffer.dtype == value.dtype:
        buffer.copy_(value)
        return
    for owner in module.modules():
        for name in [name for name, other in owner._buffers.items() if other is buffer]:
            owner._buffers[name] = value


def _structure(module: nn.Module) -> str:
    """Return a digest of everything but the values of tensors that affects how `module` trains."""
    shapes = {name: list(value.shape) for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    return sha256(f"{structure_digest(module)}|{json.dumps(shapes)}".encode()).hexdigest()
