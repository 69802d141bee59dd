"""Gradual pruning: the sparsity rises while the network trains, fast at first and slowly at the end."""

from torch import nn

from compedu.forms import Masked
from compedu.knobs import method
from compedu.methods.pruning.shared.scheduled import RampedPruning
from compedu.methods.task import Task


@method
class GradualPruning(RampedPruning):
    r"""Raise the sparsity along a cubic curve while training: the network adapts to each small loss of weights at once.

    $s_t = s\,(1 - (1 - t/n)^3)$ at step $t$ of a ramp of $n$; every few steps the smallest $|w|$ become zero.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Zhu, Gupta 2017, To prune, or not to prune, arXiv:1710.01878, section 3, equation 1.
    """

    def train_and_prune(self, task: Task, layers: dict[str, Masked]) -> nn.Module:
        """Train, and prune along the ramp."""
        return self.train(task.model, task.data, after_step=self.along_ramp(task, layers))
