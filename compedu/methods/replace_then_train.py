"""Methods that replace layers by forms and then train the whole network with them."""

from torch import nn

from compedu.knobs import inherited, method
from compedu.methods.layer_method import LayerMethod
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod


@method
class ReplaceThenTrain(TrainingMethod, LayerMethod):
    """Replace the selected layers, then train; a subclass chooses the form."""

    epochs: int = inherited(
        TrainingMethod,
        "epochs",
        low=0,
        slider_range=(0, 20),
        help="passes over the training images; 0 shows the new layers without training",
    )

    @property
    def needs(self) -> str:
        """Training images; without training the weights alone."""
        return "training" if self.epochs else "weights"

    def compress(self, task: Task) -> nn.Module:
        """Replace every selected layer that can be compressed, then train the network unless `epochs` is 0."""
        model = LayerMethod.compress(self, task)
        return self.train_replaced(task, model) if self.epochs else model

    def train_replaced(self, task: Task, model: nn.Module) -> nn.Module:
        """Return `model` after training; subclasses may pass penalties or companions to `train`."""
        return self.train(model, task.data)
