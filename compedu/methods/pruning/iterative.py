"""Iterative pruning: prune a little, retrain inside the mask, prune again."""

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from compedu.errors import CompressionError
from compedu.forms import Masked
from compedu.graph.trace import layer_calls, only_consumer, trace
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.pruning.shared.scheduled import ScheduledPruning
from compedu.methods.pruning.shared.schedules import geometric_sparsity
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod
from compedu.training import Recipe


@method
class IterativePruning(ScheduledPruning):
    r"""Prune the smallest weights in several rounds, and retrain the rest after each.

    $s_r = 1 - (1 - s)^{r/R}$ after round $r$ of $R$: each round removes the same fraction of the remaining weights.
    Dropout directly before a pruned layer is reduced to $p\sqrt{C_r/C}$, because fewer of its $C$ weights overfit less.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: LeCun, Denker, Solla 1990, Optimal brain damage, NIPS 2, section 2 (rounds, by curvature); Han, Pool, Tran,
    Dally 2015, Learning both weights and connections, arXiv:1506.02626, section 3 (by size, and the dropout).
    """

    sparsity: PerLayer[float] = inherited(ScheduledPruning, "sparsity")
    budget: str = inherited(ScheduledPruning, "budget")
    rounds: int = knob(default=3, help="rounds of pruning and retraining", low=1, slider_range=(1, 10))
    epochs: int = inherited(TrainingMethod, "epochs", default=3, help="passes over the training images in each round")

    @property
    def recipe(self) -> Recipe:
        """The knobs as a recipe for the training loop: the learning rate rises and falls in each round."""
        return replace(super().recipe, epochs=self.rounds * self.epochs, cycles=self.rounds)

    def train_and_prune(self, task: Task, layers: dict[str, Masked]) -> nn.Module:
        """Prune and train in turn, round after round."""
        steps = self.recipe.steps(len(task.data.x_train)) // self.rounds
        dropouts = dropouts_before(task.model, layers)

        def begin(done: int) -> None:
            self.prune(task, layers, lambda final: geometric_sparsity(final, done, self.rounds))
            for dropout, (probability, layer, density) in dropouts.items():
                # capacity grows with the number of weights, and with it the dropout that a layer bears (section 3.2)
                dropout.p = probability * math.sqrt(layer.mask.float().mean().item() / density)

        def after_step(model: nn.Module, step: int) -> None:
            done, rest = divmod(step + 1, steps)
            if rest == 0 and done < self.rounds:
                begin(done + 1)

        begin(1)
        return self.train(task.model, task.data, after_step=after_step)


def dropouts_before(model: nn.Module, layers: Mapping[str, Masked]) -> dict[nn.Module, tuple[float, Masked, float]]:
    """Return the dropouts whose output only one of `layers` reads: probability, layer, and its current density.

    Empty if the network cannot be traced: dropout then keeps its probability.
    """
    try:
        calls = layer_calls(trace(model))
    except CompressionError:
        return {}
    found = {}
    for name, nodes in calls.items():
        dropout = model.get_submodule(name)
        reader = only_consumer(nodes[0])
        if isinstance(dropout, nn.modules.dropout._DropoutNd) and reader is not None and reader.target in layers:
            layer = layers[reader.target]
            found[dropout] = (dropout.p, layer, layer.mask.float().mean().item())
    return found
