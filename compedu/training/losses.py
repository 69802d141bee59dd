"""The loss of one batch: that of the objective, with auxiliary classifiers where there are any, and clear errors."""

from collections.abc import Callable

from torch import Tensor, nn

from compedu.datasets.objectives import CHANGES, Objective
from compedu.errors import CompressionError, first_line
from compedu.evaluation import shape_of
from compedu.failing import raised_by_hook
from compedu.training.recipe import Recipe

AUXILIARY = 0.3  # weight of the loss of an auxiliary classifier

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def supervised_loss(objective: Objective, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss that `objective` defines of the model's outputs for images x and targets y.

    A network may return logits of auxiliary classifiers after its own; the loss of each is added with weight 0.3
    (Szegedy et al. 2015, arXiv:1409.4842, section 5). Raises `CompressionError` for outputs that are not logits.
    """
    outputs = model(x)
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    if not all(isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape == heads[0].shape for logits in heads):
        raise CompressionError(
            f"{type(model).__name__} returns {shape_of(outputs)} in training; it must return logits (images, classes), "
            "or a tuple of them, those of the auxiliary classifiers last: train it with a loss of its own, "
            "fit(loss=...)"
        )
    first, *auxiliary = (objective.loss(logits, y) for logits in heads)
    return first + AUXILIARY * sum(auxiliary)


def refuse_changed_targets(objective: Objective, recipe: Recipe) -> None:
    """Raise `CompressionError` if images are changed in training so that their targets would no longer be true."""
    for change in CHANGES:
        value = getattr(recipe, change)
        if value and change not in objective.unchanged_by:
            raise CompressionError(
                f"{change}={value!r} changes training images but not their targets, which are then no longer true "
                f"({objective.kind}: {objective.criterion}); train with {change}={type(value)()!r}"
            )


def loss_of(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return the loss; errors of torch in training only, such as one image for a batch norm, get a clear message."""
    try:
        return loss(model, x, y)
    except CompressionError:
        raise
    except (RuntimeError, ValueError) as error:
        if hook := raised_by_hook(model, error):
            raise CompressionError(f"{hook}; fix or remove it") from error
        raise CompressionError(
            f"{type(model).__name__} cannot be trained on a batch of {len(x)} image(s): {first_line(error)}; "
            "if batch normalization has too few values, choose a batch size that leaves no batch of one image"
        ) from error
