"""One running training: its batches, its modules, and the state that a file must hold to resume it."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from compedu.datasets.augmentation import mirrored, shifted
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.training.companions import Companion, check_companions
from compedu.training.listening import Step, tell
from compedu.training.optimizers import Optimizer, check_optimizer
from compedu.training.recipe import Recipe
from compedu.training.saved_state import save_training, saved_training
from compedu.training.trainee import Trainee

SAVE_EVERY_S = 20.0


FORMAT = "2"  # raise it when `Trainee.tensors` returns other names, so that older states are refused


class Run:
    """The state of one training: all that a file must hold to resume it bit by bit."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        optimizer: Optimizer,
        rates: Mapping[str, float] | None,
        companions: Mapping[str, Companion],
        path: Path | None,
    ):
        check_optimizer(optimizer, "fit")
        check_companions(model, companions)
        images = len(data.x_train)
        self.model = model
        self.data = data
        self.recipe = recipe
        self.path = path
        network = Trainee(model, recipe, optimizer, images, rates)
        others = {name: Trainee.beside(one, recipe, optimizer, images) for name, one in companions.items()}
        self.trainees = {"": network} | {f"{name}/": trainee for name, trainee in others.items()}
        if all(trainee.optimizer is None for trainee in self.trainees.values()):
            raise CompressionError("the network has no parameter that can be trained")
        self.per_epoch = recipe.steps_per_epoch(images)
        self.steps = recipe.steps(images)
        self.threads = torch.get_num_threads()
        self.identity: dict[str, str] = {}
        if path is not None:  # a digest of all images is in it
            self.identity = {
                "format of the state": FORMAT,
                "network": network.identity,
                "recipe": repr(asdict(recipe)),
                "data set": data.digest,
                "version of torch": torch.__version__,
                "optimizer": repr(optimizer),
                "rates": repr(list((rates or {}).items())),
            } | {f"companion {name!r}": trainee.identity for name, trainee in others.items()}
        self.losses: list[float] = []
        self.saved_at = time.monotonic()
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def done(self) -> int:
        """The number of finished steps."""
        return len(self.losses)

    def train(self) -> None:
        """Put all modules into training mode, even a frozen network, for its batch norms and dropout."""
        self.model.train()
        for trainee in self.trainees.values():
            trainee.train()

    def evaluate(self) -> None:
        """Put the network and its trainees into evaluation mode."""
        self.model.eval()
        for trainee in self.trainees.values():
            trainee.evaluate()

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

    def clear_gradients(self) -> None:
        """Clear the gradients of the last step."""
        for trainee in self.trainees.values():
            trainee.clear_gradients()

    def update(self, step: int) -> None:
        """Move the network, then its companions, along their gradients, at the learning rates of `step`."""
        for trainee in self.trainees.values():
            trainee.update(step, self.steps)

    def record(self, loss: float) -> None:
        """Record a finished step: the state is consistent and may be saved, shown, cancelled."""
        self.losses.append(loss)
        if not math.isfinite(loss):
            raise CompressionError(f"training diverged at step {self.done}: the loss is {loss}; choose a lower lr")
        if self.path is not None and time.monotonic() - self.saved_at > SAVE_EVERY_S:
            self.save()
        tell(Step(self.done, self.steps, loss, self.model))

    def end(self) -> list[float]:
        """Save, and return the losses; refuse non-finite parameters of the last update, which no loss checks."""
        if broken := [f"{prefix}{name}" for prefix, one in self.trainees.items() for name in one.not_finite()]:
            raise CompressionError(f"training diverged at its last step: {broken[0]} is not finite; choose a lower lr")
        self.save()
        return self.epoch_losses()

    def epoch_losses(self) -> list[float]:
        """Return the mean loss of each epoch."""
        chunks = [self.losses[i : i + self.per_epoch] for i in range(0, self.done, self.per_epoch)]
        return [sum(chunk) / len(chunk) for chunk in chunks]

    def save(self) -> None:
        """Write the state."""
        if self.path is None or self.done == 0:
            return
        tensors = {
            f"{prefix}{name}": value
            for prefix, trainee in self.trainees.items()
            for name, value in trainee.tensors().items()
        }
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["threads"] = torch.tensor(self.threads)
        save_training(self.path, self.identity, tensors)
        self.saved_at = time.monotonic()

    def load(self) -> None:
        """Restore the saved state if there is one; the training continues with the number of threads it began with."""
        if self.path is None or not self.path.exists():
            return
        tensors = saved_training(self.path, self.identity)
        self.losses = tensors.pop("losses").tolist()
        self.threads = int(tensors.pop("threads"))
        for prefix, trainee in self.trainees.items():
            own = (name for name in tensors if name.startswith(prefix or ("model.", "buffer.", "optimizer.")))
            trainee.load({name.removeprefix(prefix): tensors[name] for name in own})
