"""Gradual pruning: the sparsity rises while the network trains, fast at first and slowly at the end."""

from torch import nn

from compedu.forms import Masked
from compedu.knobs import inherited, knob, method
from compedu.methods.method import Task
from compedu.methods.pruning.scheduled import ScheduledPruning


def cubic_sparsity(final: float, progress: float) -> float:
    """Return the sparsity when the share `progress` of the ramp lies behind: 0 at the start, `final` from 1 on.

    >>> cubic_sparsity(0.8, 0.5)
    0.7
    """
    return final * (1 - (1 - min(progress, 1.0)) ** 3)


@method
class GradualPruning(ScheduledPruning):
    r"""Raise the sparsity along a cubic curve while training: the network adapts to each small loss at once.

    $s_t = s\,(1 - (1 - t/n)^3)$ at step $t$ of a ramp of $n$; every few steps the smallest $|w|$ become zero.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Zhu, Gupta 2017, To prune, or not to prune, arXiv:1710.01878, section 3, equation 1.
    """

    sparsity: float = inherited(ScheduledPruning, "sparsity")
    budget: str = inherited(ScheduledPruning, "budget")
    ramp: float = knob(
        0.6, "share of the training after which the final sparsity is reached", low=0, high=1, open="low", tour=(0.1, 1)
    )
    every: int = knob(10, "training steps from one pruning to the next", low=1, tour=(1, 100), log=True, unit="steps")

    def train_and_prune(self, task: Task, layers: dict[str, Masked]) -> nn.Module:
        """Train, and prune along the ramp."""
        last = max(1, round(self.ramp * self.recipe.steps(len(task.data.x_train))))

        def after_step(model: nn.Module, step: int) -> None:
            done = step + 1
            if done == last or (done < last and done % self.every == 0):
                self.prune(task, layers, lambda final: cubic_sparsity(final, done / last))

        return self.train(task.model, task.data, after_step=after_step)
