"""Lottery tickets: does a mask found by training and pruning help a network that is trained from scratch?"""

from typing import Any, ClassVar

from torch import Tensor, nn

from compedu.forms import Masked
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.pruning.shared.scheduled import ScheduledPruning
from compedu.methods.pruning.shared.schedules import geometric_sparsity
from compedu.methods.task import Task
from compedu.methods.training_method import FromScratch
from compedu.networks import build
from compedu.training import counted

REDRAWN = 2**31  # added to the seed for redrawn weights: no other seed of a method gives them
NO_SPEC = "the network does not say how it is built (model.spec), as those of compedu do, and cannot be rebuilt"


def rewind_to(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load all weights and batch-norm statistics of `state` into `model`; its masks stay in force."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Masked)}
    model.load_state_dict(state | {f"{name}.mask": layer.mask.clone() for name, layer in layers.items()})
    for layer in layers.values():
        layer.clear()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all parameters and buffers of `model`, by name."""
    return {name: value.clone() for name, value in model.state_dict().items()}


@method
class LotteryTicket(ScheduledPruning):
    r"""Build the network again, train it, prune it, and rewind the remaining weights: a control for pruning.

    $f(x;\,m \odot \theta_0)$, where $m$ keeps the largest $|\theta_T|$ of the trained $f(x;\,\theta_T)$: found in
    rounds, each of which trains the network in full, prunes it, and rewinds it to $\theta_0$ or to an early $\theta_k$.
    Finally the ticket is trained; or, for comparison, the same mask with redrawn weights.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; of the given network only its architecture counts.
    Paper: Frankle, Carbin 2019, The lottery ticket hypothesis, arXiv:1803.03635, section 2; rewinding to an early step:
    Frankle, Dziugaite, Roy, Carbin 2020, Linear mode connectivity, arXiv:1912.05671, section 4.
    """

    from_scratch: ClassVar[bool] = True

    sparsity: PerLayer[float] = inherited(ScheduledPruning, "sparsity")
    budget: str = inherited(ScheduledPruning, "budget")
    start: str = knob(
        default="rewound",
        help="weights that each round trains from: rewound to early in training, the same until the last round draws "
        "them anew, or kept as trained",
        choices=("rewound", "redrawn", "kept"),
    )
    rewind: float = knob(
        default=0.0,
        help="fraction of the first training that weights are rewound to",
        low=0,
        high=1,
        open="high",
        slider_range=(0, 0.5),
    )
    rounds: int = knob(default=3, help="rounds of pruning and training again", low=1, slider_range=(1, 10))
    epochs: int = inherited(FromScratch, "epochs", help="passes over the training images, first and in each round")
    lr: float = inherited(FromScratch, "lr")
    shift: int = inherited(FromScratch, "shift")

    def compress(self, task: Task) -> nn.Module:
        """Build the network again, mask its layers, train and prune it."""
        spec = getattr(task.model, "spec", None)
        if spec is None:
            for name in task.selected_layers():
                task.skip(name, NO_SPEC)
            task.refuse_if_nothing_done(0)
        task.model = build(spec, seed=self.seed)
        return super().compress(task)

    def train_and_prune(self, task: Task, layers: dict[str, Masked]) -> nn.Module:
        """Train in full, then prune, rewind and train in full in each round."""
        model = task.model
        early = self.first_training(task)
        for done in range(1, self.rounds + 1):
            self.prune(task, layers, lambda final, done=done: geometric_sparsity(final, done, self.rounds))
            if self.start == "redrawn" and done == self.rounds:
                rewind_to(model, build(model.spec, seed=self.seed + REDRAWN).state_dict())
            elif self.start != "kept":
                rewind_to(model, early)
            self.train_part(task, done)
        return model

    def first_training(self, task: Task) -> dict[str, Tensor]:
        """Train the dense network; return the state that weights are rewound to."""
        last = round(self.rewind * self.recipe.steps(len(task.data.x_train)))
        early = state_of(task.model)

        def after_step(model: nn.Module, step: int) -> None:
            if step + 1 == last:
                early.update(state_of(model))

        self.train_part(task, 0, after_step=after_step)
        return early

    def train_part(self, task: Task, done: int, **hooks: Any) -> None:
        """Train in full after `done` trainings; a listener sees one long training."""
        steps = self.recipe.steps(len(task.data.x_train))
        with counted(done * steps, (self.rounds + 1) * steps):
            self.train(task.model, task.data, **hooks)
