"""Methods that train: the knobs of a recipe, and the call of the one training loop."""

from typing import Any, ClassVar

import torch
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import refuse_misfit, refuse_probabilities
from compedu.forms import Masked
from compedu.knobs import inherited, knob, method, seed_knob
from compedu.methods.method import Method
from compedu.training import Recipe, fit, refuse_changed_targets


@method
class TrainingMethod(Method):
    """A method that trains; a subclass redeclares a knob to change its default."""

    trainings: ClassVar[int] = 1  # of all epochs, one after the other: the student alone must have as many
    uses_labels: ClassVar[bool] = True  # whether the labels of training images count, which changes must leave true

    # training follows the scan
    unscanned: ClassVar[tuple[str, ...]] = ("epochs", "lr", "batch", "shift", "mirror", "weight_decay", "seed")

    epochs: int = knob(default=5, help="passes over the training images", low=1, slider_range=(1, 20))
    lr: float = knob(
        default=1e-3, help="peak learning rate", low=0, high=1, open="low", slider_range=(1e-4, 1e-2), log=True
    )
    batch: int = knob(
        default=64, help="images per training step", low=1, slider_range=(16, 256), log=True, unit="images"
    )
    shift: int = knob(
        default=0,
        help="training images are shifted at random by up to this many pixels",
        low=0,
        slider_range=(0, 2),
        unit="pixels",
    )
    mirror: bool = knob(default=False, help="half of the training images, drawn at random, are mirrored left to right")
    weight_decay: float = knob(
        default=1e-4,
        help="by this share of the learning rate all weights shrink in each step",
        low=0,
        high=1,
        slider_range=(1e-5, 1e-1),
        log=True,
    )
    seed: int = seed_knob("seed of the order of the images and of all other random draws")

    @property
    def needs(self) -> str:
        """Training images."""
        return "training"

    @property
    def recipe(self) -> Recipe:
        """The knobs as a recipe for the training loop."""
        return Recipe(
            epochs=self.epochs, lr=self.lr, batch=self.batch, weight_decay=self.weight_decay, seed=self.seed,
            shift=self.shift, mirror=self.mirror,
        )  # fmt: skip

    def train(self, model: nn.Module, data: Dataset, **options: Any) -> nn.Module:
        """Train `model` in place and return it; `options` and further errors are those of `compedu.training.fit`."""
        self.refuse_untrainable(model, data)
        return self.train_unchecked(model, data, **options)

    def refuse_untrainable(self, model: nn.Module, data: Dataset) -> None:
        """Raise `CompressionError` for a network that cannot be trained on `data`.

        That is one without trainable parameters, one that the images do not fit, one that trains in half precision, and
        one that ends in a softmax. Nor can targets be learned that are not true of shifted or mirrored images.
        """
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise CompressionError(
                f"{self!r} found nothing to train: no parameter of {type(model).__name__} is trainable"
            )
        if self.uses_labels:
            refuse_changed_targets(data.objective, self.recipe)
        refuse_misfit(model.eval(), data)
        # Adam divides by the root of a mean square plus 1e-8. In float16 that is 0, and so are squares below 6e-8.
        trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        if half := [name for name, value in trained if value.dtype == torch.float16]:
            raise CompressionError(
                f"{self!r} cannot train in float16, as {half[0]} would: small gradients are divided by zero; give "
                "network and images in float32, or in bfloat16"
            )
        refuse_probabilities(model, data)

    def train_unchecked(self, model: nn.Module, data: Dataset, **options: Any) -> nn.Module:
        """Train `model` in place and return it; weights outside the masks of masked layers are zero afterwards."""
        fit(model, data, self.recipe, **options)
        for layer in [module for module in model.modules() if isinstance(module, Masked)]:
            layer.clear()
        return model


@method
class FromScratch(TrainingMethod):
    """A method that trains a new network: for more epochs and at a higher learning rate than one that fine-tunes.

    Student and control share these defaults, because they are compared.
    """

    from_scratch: ClassVar[bool] = True

    epochs: int = inherited(TrainingMethod, "epochs", default=20, slider_range=(1, 40))
    lr: float = inherited(TrainingMethod, "lr", default=2e-3)
    shift: int = inherited(TrainingMethod, "shift", default=1)
