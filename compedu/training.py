"""The one training loop: resumable bit by bit, interruptible at any step, with hooks for every method that trains."""

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.std import tqdm

from compedu.datasets.augmentation import mirrored, shifted
from compedu.datasets.dataset import Dataset
from compedu.errors import Cancelled, CompressionError, first_line
from compedu.evaluation import shape_of
from compedu.failing import raised_by_hook
from compedu.identity import structure_digest
from compedu.reproducible import seeded, torch_threads
from compedu.saved_training import save_training, saved_training

SAVE_EVERY_S = 20.0
AUXILIARY = 0.3  # what the loss of an auxiliary classifier counts


@dataclass(frozen=True)
class Recipe:
    """How to train: passes over the data, peak learning rate, batch size, decoupled weight decay, seed of the order.

    The learning rate rises over the first `warm_up` share of the steps and falls to zero along a cosine, anew in each
    of `cycles` equal parts of the epochs (Loshchilov and Hutter 2017, arXiv:1608.03983); the optimizer is AdamW
    (arXiv:1711.05101). `shift` moves training images at random by up to that many pixels; `mirror` flips half of them.
    """

    epochs: int
    lr: float = 1e-3
    batch: int = 64
    weight_decay: float = 1e-4
    warm_up: float = 0.1
    seed: int = 0
    shift: int = 0
    mirror: bool = False
    cycles: int = 1

    def steps_per_epoch(self, images: int) -> int:
        """Return how many steps one pass over so many training images takes."""
        return math.ceil(images / self.batch)

    def steps(self, images: int) -> int:
        """Return how many steps the whole training takes on so many training images."""
        return self.epochs * self.steps_per_epoch(images)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate at `step` of `steps`."""
        steps //= self.cycles
        step %= steps
        rise = max(1, int(self.warm_up * steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


@dataclass(frozen=True)
class Step:
    """One finished step of training: its number, the number of steps, the loss of its batch, the network as it is."""

    done: int
    steps: int
    loss: float
    model: nn.Module


_listener: ContextVar[Callable[[Step], None] | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Callable[[Step], None]) -> Iterator[None]:
    """Call `listener` after every training step inside the block; it cancels the training by raising `Cancelled`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def counted(before: int, steps: int) -> Iterator[None]:
    """Let a training inside the block count as a part: `before` of all `steps` were done when it began."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    with listening(lambda step: listener(replace(step, done=before + step.done, steps=steps))):
        yield


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross entropy of the model's scores for images x and labels y, in nats.

    A network may return scores of auxiliary classifiers after its own; the cross entropy of each is added with weight
    0.3 (Szegedy et al. 2015, arXiv:1409.4842, section 5). Raises `CompressionError` for outputs that are not scores.
    """
    outputs = model(x)
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    if not all(isinstance(scores, Tensor) and scores.ndim == 2 and scores.shape == heads[0].shape for scores in heads):
        raise CompressionError(
            f"{type(model).__name__} returns {shape_of(outputs)} in training; needed are scores (images, classes), or "
            "a tuple of such scores, those of the auxiliary classifiers last: train it by a loss of its own, "
            "fit(loss=...)"
        )
    first, *auxiliary = (F.cross_entropy(scores, y) for scores in heads)
    return first + AUXILIARY * sum(auxiliary)


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    loss: Loss = cross_entropy,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    before_step: Callable[[nn.Module, int], None] | None = None,
    after_step: Callable[[nn.Module, int], None] | None = None,
    resume: Path | None = None,
) -> list[float]:
    """Train `model` in place on `data`'s training split and return the mean loss of each epoch.

    `penalty(model)` is added to the loss; `before_step` runs between the gradient and the update, `after_step` after
    the update, both with the step's number. Whatever draws random numbers in a step draws by seed and step. With
    `resume`, the state is kept in that file and taken up from it, so that an interrupted run ends with the same bits
    as an uninterrupted one. The model ends in evaluation mode.
    """
    run = _Run(model, optimizer_of(model, recipe), recipe, data, resume)
    run.load()
    model.train()
    try:
        with (
            torch_threads(run.threads),
            interrupt_between_steps() as interrupted,
            tqdm(total=run.steps, initial=run.done, disable=None, unit="step", leave=False) as bar,
        ):
            for step in range(run.done, run.steps):
                with seeded(recipe.seed * 1_000_003 + step):  # so that a run repeats and resumes bit by bit
                    x, y = run.batch(step)
                    run.optimizer.zero_grad(set_to_none=True)
                    value = loss_of(model, x, y, loss)
                    (value if penalty is None else value + penalty(model)).backward()
                    if before_step:
                        before_step(model, step)
                    run.update(step)
                    if after_step:
                        after_step(model, step)
                run.finished(value.item())
                bar.update()
                interrupted()
    except (Cancelled, KeyboardInterrupt):
        run.save()
        raise
    finally:
        model.eval()
    return run.end()


def loss_of(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return the loss; what torch refuses in training alone, such as one image for a batch norm, is a clear error."""
    try:
        return loss(model, x, y)
    except CompressionError:
        raise
    except (RuntimeError, ValueError) as error:
        if hook := raised_by_hook(model, error):
            raise CompressionError(f"{hook}; mend or remove it") from error
        raise CompressionError(
            f"{type(model).__name__} cannot be trained on a batch of {len(x)} image(s): {first_line(error)}; "
            "where batch normalization finds too few values, choose a batch size that leaves no batch of one image"
        ) from error


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW over the parameters of `model` that can be trained; `CompressionError` where there are none."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise CompressionError("the network has no parameter that can be trained")
    return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)


@contextlib.contextmanager
def interrupt_between_steps() -> Iterator[Callable[[], None]]:
    """Hold back Ctrl-C (SIGINT) and SIGTERM inside the block; the yielded function raises them as `KeyboardInterrupt`.

    It is called where the state is whole.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # signals reach the main thread only
        return
    received: list[int] = []
    before = {
        ending: signal.signal(ending, lambda number, frame: received.append(number))
        for ending in (signal.SIGINT, signal.SIGTERM)
    }

    def raise_if_received() -> None:
        if received:
            raise KeyboardInterrupt

    try:
        yield raise_if_received
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)


def _identity(model: nn.Module, recipe: Recipe, data: Dataset) -> str:
    """Return what decides how a training goes: the network's structure, the recipe, the data, the version of torch."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    structure = sha256(f"{structure_digest(model)}|{json.dumps(shapes)}".encode()).hexdigest()
    return json.dumps([structure, asdict(recipe), data.digest, torch.__version__], sort_keys=True)


class _Run:
    """The state of one training: what a file must hold so that it goes on as if nothing had happened."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, data: Dataset, path: Path | None
    ):
        self.model, self.optimizer, self.recipe, self.data, self.path = model, optimizer, recipe, data, path
        self.per_epoch = recipe.steps_per_epoch(len(data.x_train))
        self.steps = recipe.steps(len(data.x_train))
        self.threads = torch.get_num_threads()
        self.identity = _identity(model, recipe, data)  # of the network as it begins: what runs may set it otherwise
        self.losses: list[float] = []
        self.saved_at = time.monotonic()
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def done(self) -> int:
        return len(self.losses)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels of `step`; the order of each epoch depends on seed and epoch alone."""
        epoch, index = divmod(step, self.per_epoch)
        if self.order[0] != epoch:
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + epoch)
            self.order = (epoch, torch.randperm(len(self.data.x_train), generator=generator))
        chosen = self.order[1][index * self.recipe.batch : (index + 1) * self.recipe.batch]
        x = self.data.x_train[chosen]
        if self.recipe.shift:
            x = shifted(x, self.recipe.shift, self.recipe.seed * 7_919 + step)
        if self.recipe.mirror:
            x = mirrored(x, self.recipe.seed * 6_007 + step)
        return x, self.data.y_train[chosen]

    def update(self, step: int) -> None:
        """Move the weights along the gradient, at the learning rate of `step`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(step, self.steps)
        self.optimizer.step()

    def finished(self, loss: float) -> None:
        """Note a finished step: the state is whole here and may be saved, shown, cancelled."""
        self.losses.append(loss)
        if not math.isfinite(loss):
            raise CompressionError(f"training diverged at step {self.done}: the loss is {loss}; choose a lower lr")
        if self.path is not None and time.monotonic() - self.saved_at > SAVE_EVERY_S:
            self.save()
        if (listener := _listener.get()) is not None:
            listener(Step(self.done, self.steps, loss, self.model))

    def end(self) -> list[float]:
        """Save, and return the losses; refuse what the last update, which no loss has seen, left as no number."""
        if broken := [name for name, weight in self.model.named_parameters() if not bool(weight.isfinite().all())]:
            raise CompressionError(f"training diverged at its last step: {broken[0]} is not finite; choose a lower lr")
        self.save()
        return self.epoch_losses()

    def epoch_losses(self) -> list[float]:
        chunks = [self.losses[i : i + self.per_epoch] for i in range(0, self.done, self.per_epoch)]
        return [sum(chunk) / len(chunk) for chunk in chunks]

    def save(self) -> None:
        """Write the state."""
        if self.path is None or self.done == 0:
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["threads"] = torch.tensor(self.threads)
        save_training(self.path, self.identity, tensors)
        self.saved_at = time.monotonic()

    def load(self) -> None:
        """Take up the saved state if there is one; the training goes on with as many threads as it began with."""
        if self.path is None or not self.path.exists():
            return
        tensors = saved_training(self.path, self.identity)
        self.losses, self.threads = tensors.pop("losses").tolist(), int(tensors.pop("threads"))
        self.model.load_state_dict(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
