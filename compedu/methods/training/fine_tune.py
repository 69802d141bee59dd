"""Fine-tuning: training a compressed network further, within its compressed layers."""

from typing import Any, ClassVar

from torch import nn

from compedu.knobs import knob, method
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod


@method
class FineTune(TrainingMethod):
    r"""Train the network further: masks stay, codes stay on their grid, factors stay factors.

    $\min_\theta \frac{1}{n} \sum_i -\log p_\theta(y_i \mid x_i)$ over the parameters $\theta$ of the compressed layers;
    gradients pass straight through the rounding.
    Stored: what the layers stored before; no byte is added.
    Skips: nothing; scales of codes, masks and ranges of activations are not parameters and stay as they are.
    Paper: LeCun, Denker, Solla 1990, Optimal brain damage, NIPS 2 (after pruning); Han, Pool, Tran, Dally 2015,
    Learning both weights and connections, arXiv:1506.02626, section 3 (the same in deep networks); through rounding:
    Bengio, Leonard, Courville 2013, arXiv:1308.3432.
    """

    family: ClassVar[str] = "training"
    identity_settings: ClassVar[dict[str, Any]] = {"epochs": 0}

    epochs: int = knob(default=3, help="passes over the training images", low=0, slider_range=(0, 10))
    lr: float = knob(
        default=2e-3, help="peak learning rate", low=0, high=1, open="low", slider_range=(1e-4, 1e-2), log=True
    )

    def compress(self, task: Task) -> nn.Module:
        """Train the copy."""
        return self.train(task.model, task.data)
