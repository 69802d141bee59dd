"""The arms of claim D3: ways to train a dense network down to a tenth of its weights, one knob each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from compedu.claims.survey.shared.networks import dense_network, glyphs
from compedu.datasets.dataset import Dataset
from compedu.methods import FineTune, GradualPruning, MagnitudePruning, RegularizedPruning
from compedu.methods.method import Method
from compedu.training import Recipe

GRADUAL = "cubic schedule"
AT_ONCE = "cut at once"
NONE = "no penalty, same cut"
L1 = "L1 in the loss"
L2 = "L2 in the loss"
PROXIMAL = "L1, proximal step"


@dataclass(frozen=True)
class Start:
    """A network trained on glyphs for `epochs` over `images`, and the sparsity to reach."""

    network: str
    images: int
    epochs: int
    sparsity: float = 0.9
    lr: float = 2e-3

    def __str__(self) -> str:
        return f"{self.network} on {self.images} glyphs, {self.sparsity:.0%} zeros"

    @property
    def data(self) -> Dataset:
        """The images, with all 4,000 for validation and all 4,000 for tests."""
        return glyphs(self.images, 4000)

    @property
    def steps_of_an_epoch(self) -> int:
        """Training steps of one pass over the images."""
        return Recipe(epochs=1).steps(self.images)

    @lru_cache(maxsize=2)  # noqa: B019  starts are constants of this module, which live as long as it does
    def dense(self, seed: int) -> nn.Module:
        """Return the dense network of this seed; methods do not change it."""
        return dense_network(self.network, self.data, self.epochs, seed)


def penalized(penalty: str, step: str) -> Callable[[Start, int, float, int], Method]:
    """Return the factory of the arm of a penalty: half of the epochs under it, a cut, the rest inside the mask."""

    def method(start: Start, epochs: int, strength: float, seed: int) -> Method:
        same = {"epochs": epochs // 2, "lr": start.lr, "shift": 1, "seed": seed}
        pruning = RegularizedPruning(
            sparsity=start.sparsity, budget="lamp", strength=strength, penalty=penalty, step=step, **same
        )
        return pruning | FineTune(**same)

    return method


def gradual(start: Start, epochs: int, ramp: float, seed: int) -> Method:
    """Return the arm with neither a penalty nor a single cut: all epochs under a cubic schedule."""
    return GradualPruning(
        sparsity=start.sparsity, budget="lamp", ramp=ramp, epochs=epochs, lr=start.lr, shift=1, seed=seed
    )


def at_once(start: Start, epochs: int, _: float, seed: int) -> Method:
    """Return the arm that cuts first and retrains for all epochs."""
    cut = MagnitudePruning(sparsity=start.sparsity, budget="lamp")
    return cut | FineTune(epochs=epochs, lr=start.lr, shift=1, seed=seed)


ARMS: Mapping[str, Callable[[Start, int, float, int], Method]] = {
    GRADUAL: gradual,
    AT_ONCE: at_once,
    NONE: penalized("l1", "subgradient"),
    L1: penalized("l1", "subgradient"),
    L2: penalized("l2", "subgradient"),
    PROXIMAL: penalized("l1", "proximal"),
}  # each called with the start, the budget in epochs, the value of its knob (0 if it has none), and the seed
