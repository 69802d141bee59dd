"""The one training loop: resumable bit by bit, interruptible at any step, with hooks for all methods that train."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from tqdm.std import tqdm

from compedu.datasets.dataset import Dataset
from compedu.draws import drawing
from compedu.errors import Cancelled
from compedu.reproducible import seeded, torch_threads
from compedu.training.companions import Companion
from compedu.training.interruption import interrupt_between_steps
from compedu.training.losses import Loss, loss_of, refuse_changed_targets, supervised_loss
from compedu.training.optimizers import STANDARD, Optimizer
from compedu.training.recipe import Recipe
from compedu.training.run import Run

Penalty = Callable[[nn.Module], Tensor]
Hook = Callable[[nn.Module, int], None]


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    loss: Loss | None = None,
    penalty: Penalty | None = None,
    before_step: Hook | None = None,
    after_step: Hook | None = None,
    optimizer: Optimizer = STANDARD,
    rates: Mapping[str, float] | None = None,
    companions: Mapping[str, Companion] | None = None,
    resume: Path | None = None,
) -> list[float]:
    """Train `model` in place on `data`'s training split and return the mean loss of each epoch.

    The loss is that of the data's objective, such as the cross entropy, unless another `loss` is given.
    `penalty(model)` is added to it; `before_step` runs between the gradient and the update, `after_step` after
    the update, both with the step's number. `rates` multiplies the learning rate of the parameters whose names fit a
    pattern, {"*.gates": 10.0}; `companions` are further modules by name, trained in place with the network. All random
    numbers of a step follow from seed and step. With `resume`, the whole state is saved to that file and restored from
    it, so that an interrupted run ends with the same bits as an uninterrupted one. All modules end in evaluation mode.
    """
    if loss is None:
        refuse_changed_targets(data.objective, recipe)
        loss = partial(supervised_loss, data.objective)
    run = Run(model, data, recipe, optimizer, rates=rates, companions=companions or {}, path=resume)
    run.load()
    run.train()
    try:
        with contextlib.closing(_steps(run)) as steps:
            for step in steps:
                run.record(_step(run, step, loss, penalty, before_step, after_step))
    except (Cancelled, KeyboardInterrupt):
        run.save()
        raise
    finally:
        run.evaluate()
    return run.end()


def _steps(run: Run) -> Iterator[int]:
    """Yield the numbers of the steps that are left, with a bar; an interrupt is raised after a step is finished."""
    with (
        torch_threads(run.threads),
        interrupt_between_steps() as interrupted,
        tqdm(total=run.steps, initial=run.done, disable=None, unit="step", leave=False) as bar,
    ):
        for step in range(run.done, run.steps):
            yield step
            bar.update()
            interrupted()


def _step(
    run: Run, step: int, loss: Loss, penalty: Penalty | None, before_step: Hook | None, after_step: Hook | None
) -> float:
    """Make one step and return the loss of its batch; all random numbers in it follow from seed and step."""
    with seeded(run.recipe.seed * 1_000_003 + step), drawing(step):
        x, y = run.batch(step)
        run.clear_gradients()
        value = loss_of(run.model, x, y, loss)
        (value if penalty is None else value + penalty(run.model)).backward()
        if before_step:
            before_step(run.model, step)
        run.update(step)
        if after_step:
            after_step(run.model, step)
    return value.item()
