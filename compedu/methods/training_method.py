"""Methods that train: the knobs of a recipe, and the call of the one training loop."""

from typing import Any, ClassVar

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import refuse_misfit, refuse_probabilities
from compedu.forms import Masked
from compedu.knobs import knob, method
from compedu.methods.method import Method
from compedu.training import Recipe, fit


@method
class TrainingMethod(Method):
    """A method that trains; a subclass redeclares a knob to change its default."""

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
    seed: int = knob(
        default=0,
        help="seed of the order of the images and of all other random draws",
        low=0,
        high=2**31 - 1,
        slider_range=(0, 9),
    )

    @property
    def needs(self) -> str:
        """Training images."""
        return "training"

    @property
    def recipe(self) -> Recipe:
        """The knobs as a recipe for the training loop."""
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch, shift=self.shift, seed=self.seed)

    def train(self, model: nn.Module, data: Dataset, **hooks: Any) -> nn.Module:
        """Train `model` in place and return it; `hooks` are those of `compedu.training.fit`.

        Weights outside the masks of masked layers are zero afterwards. Raises `CompressionError` for a network without
        trainable parameters, for images that do not fit it, and for one that ends in a softmax.
        """
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise CompressionError(
                f"{self!r} found nothing to train: no parameter of {type(model).__name__} is trainable"
            )
        refuse_misfit(model.eval(), data)
        refuse_probabilities(model, data)
        fit(model, data, self.recipe, **hooks)
        for layer in [module for module in model.modules() if isinstance(module, Masked)]:
            layer.clear()
        return model


@method
class FromScratch(TrainingMethod):
    """A method that trains a new network: for more epochs and at a higher learning rate than one that fine-tunes.

    Student and control share these defaults, because they are compared.
    """

    from_scratch: ClassVar[bool] = True

    epochs: int = knob(default=20, help="passes over the training images", low=1, slider_range=(1, 40))
    lr: float = knob(
        default=2e-3, help="peak learning rate", low=0, high=1, open="low", slider_range=(1e-4, 1e-2), log=True
    )
    shift: int = knob(
        default=1,
        help="training images are shifted at random by up to this many pixels",
        low=0,
        slider_range=(0, 2),
        unit="pixels",
    )
