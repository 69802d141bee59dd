"""Claim D3: pruning by an L1 or L2 penalty takes more steps of training than the same pruning without one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import nn

from compedu.claims.experiments import Arm, Experiment, Part, Plan
from compedu.claims.networks import accuracy, dense_network, glyphs
from compedu.claims.store import Run, by_seed
from compedu.claims.verdict import Rule
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.methods import FineTune, GradualPruning, RegularizedPruning
from compedu.methods.method import Method
from compedu.training import Recipe

GRADUAL, NONE = "cubic schedule", "no penalty, same cut"
L1, L2, PROXIMAL = "L1 in the loss", "L2 in the loss", "L1, proximal step"
TUNING_SEED = 1000  # of the dense network that settings are chosen on, which no counted run uses
STEPS, LONGEST = "steps", "steps at most"


@dataclass(frozen=True)
class Reached:
    """A dense network and the budgets of training, in epochs, after which a pruned one may come close to it again.

    It is trained on glyphs for `epochs` over `images`; close are `tolerance` points of accuracy at this `sparsity`.
    `tuned_at` is the budget at which each arm's one knob is chosen.
    """

    network: str
    images: int
    epochs: int
    sparsity: float = 0.9
    budgets: tuple[int, ...] = (2, 4, 8, 16)
    tuned_at: int = 4
    tolerance: float = 0.5
    lr: float = 2e-3

    def __str__(self) -> str:
        return f"{self.network} on {self.images} glyphs, {self.sparsity:.0%} zeros"

    @property
    def steps_of_an_epoch(self) -> int:
        """Training steps of one pass over the images."""
        return Recipe(epochs=1).steps(self.images)


    @property
    def longest(self) -> float:
        """Steps that an arm counts as which never comes close: twice the longest budget."""
        return 2.0 * self.budgets[-1] * self.steps_of_an_epoch

    @property
    def data(self) -> Dataset:
        """The images."""
        return glyphs(self.images, 1000)

    def dense(self, seed: int) -> nn.Module:
        """Return the dense network of this seed."""
        return dense_network(self.network, self.data, self.epochs, seed)


def penalized(penalty: str, step: str) -> Callable[[Reached, int, float, int], Method]:
    """Return what makes the arm of a penalty: half of the epochs under it, a cut, the other half inside the mask."""

    def method(setting: Reached, epochs: int, strength: float, seed: int) -> Method:
        same = {"epochs": epochs // 2, "lr": setting.lr, "shift": 1, "seed": seed}
        pruning = RegularizedPruning(
            sparsity=setting.sparsity, budget="lamp", strength=strength, penalty=penalty, step=step, **same
        )
        return pruning | FineTune(**same)

    return method


def gradual(setting: Reached, epochs: int, ramp: float, seed: int) -> Method:
    """Return the arm with neither a penalty nor a single cut: all epochs under a cubic schedule."""
    return GradualPruning(
        sparsity=setting.sparsity, budget="lamp", ramp=ramp, epochs=epochs, lr=setting.lr, shift=1, seed=seed
    )


ARMS: Mapping[str, tuple[Callable[[Reached, int, float, int], Method], tuple[float, ...]]] = {
    GRADUAL: (gradual, (0.4, 0.6, 0.8)),
    NONE: (penalized("l1", "subgradient"), (0.0,)),
    L1: (penalized("l1", "subgradient"), (1e-5, 1e-4, 1e-3)),
    L2: (penalized("l2", "subgradient"), (1e-4, 1e-3, 1e-2)),
    PROXIMAL: (penalized("l1", "proximal"), (0.02, 0.1, 0.5)),
}  # each with the values of its knob that are tried; a single one needs no trial


@lru_cache(maxsize=1)
def tuned(setting: Reached) -> dict[str, float]:
    """Return for each arm the value of its knob that is best on validation images after `tuned_at` epochs."""
    dense = setting.dense(TUNING_SEED)
    return {
        name: values[0] if len(values) == 1 else max(values, key=lambda value: tried(setting, dense, name, value))
        for name, (_, values) in ARMS.items()
    }


def tried(setting: Reached, dense: nn.Module, arm: str, value: float) -> float:
    """Return the validation accuracy of a trial; 0 where the penalty leaves a layer without weights."""
    method = ARMS[arm][0](setting, setting.tuned_at, value, TUNING_SEED)
    try:
        return accuracy(method(dense, setting.data), setting.data, "validation")
    except CompressionError:
        return 0.0


def reached_after(budgets: Sequence[int], accuracies: Sequence[float], target: float) -> float:
    """Return the budget at which the accuracy reaches `target`, on a line over the logarithm of the budget.

    At the first budget already: that one, or fewer. At none of them: twice the last, or more.

    >>> reached_after((2, 8), (90.0, 94.0), 92.0), reached_after((2, 8), (90.0, 91.0), 92.0)
    (4.0, 16.0)
    """
    for index, reached in enumerate(accuracies):
        if reached >= target:
            if index == 0:
                return float(budgets[0])
            low, before = math.log2(budgets[index - 1]), accuracies[index - 1]
            return 2 ** (low + (math.log2(budgets[index]) - low) * (target - before) / (reached - before))
    return 2.0 * budgets[len(accuracies) - 1]


def counted(setting: Reached, dense: nn.Module, seed: int, arm: str, value: float, target: float) -> dict[str, float]:
    """Return the steps that an arm needs to `target` per cent of test images, and what each budget gave on the way."""
    method, reached = ARMS[arm][0], []
    for budget in setting.budgets:
        reached.append(accuracy(method(setting, budget, value, seed)(dense, setting.data), setting.data))
        if reached[-1] >= target:
            break
    steps = reached_after(setting.budgets, reached, target) * setting.steps_of_an_epoch
    return {STEPS: steps} | {f"{b} epochs, %": a for b, a in zip(setting.budgets, reached)}


def compute(setting: Reached, seed: int) -> Run:
    """Give each arm larger and larger budgets, until its pruned network is close to the dense one, on test images."""
    knobs, dense = tuned(setting), setting.dense(seed)
    unpruned = accuracy(dense, setting.data)
    outcomes = {"dense": {"accuracy, %": unpruned, LONGEST: setting.longest}} | {
        name: counted(setting, dense, seed, name, knobs[name], unpruned - setting.tolerance) for name in ARMS
    }
    return Run(str(setting), seed, outcomes, {
        name: repr(method(setting, setting.tuned_at, knobs[name], seed)) for name, (method, _) in ARMS.items()
    })  # fmt: skip


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return for each penalty its steps as a multiple of those without one; beside it, of the cubic schedule's."""
    slower = Rule(1.5, "times the steps", ratio=True)

    def multiple(arm: str, of: str) -> tuple[float, ...]:
        return by_seed(runs, lambda run: run.of(arm, STEPS) / run.of(of, STEPS))

    room = by_seed(runs, lambda run: run.of("dense", LONGEST) / run.of(NONE, STEPS))
    return (
        Part(f"the longest budget leaves room above {NONE}", room, replace(slower, margin=2.0), "control"),
        Part(f"{L1} takes more", multiple(L1, NONE), slower),
        Part(f"{L2} takes more", multiple(L2, NONE), slower),
        Part(f"{PROXIMAL}, takes more", multiple(PROXIMAL, NONE), slower, "finding"),
        *(Part(f"{arm}: more than the {GRADUAL}", multiple(arm, GRADUAL), slower, "finding")
          for arm in (NONE, L1, L2, PROXIMAL)),
    )  # fmt: skip


QUICK = Plan((Reached("lenet5(width=0.5)", 1000, 8, budgets=(2, 4, 8)),), 3, "a minute")
FULL = Plan((Reached("lenet5(width=0.5)", 3000, 10),), 24, "twenty minutes", first=8)

REGULARIZED_PRUNING = Experiment(
    key="D3",
    title="Penalties take longer",
    claim="Pruning with L1 or L2 regularization takes more iterations to converge.",
    source="the survey by Cheng, Wang, Zhou and Zhang (2018), drawbacks of pruning",
    form="tendency",
    scope="a small convolutional network on drawn characters (20 classes), 90 % of the weights gone, shared out by "
    "LAMP in all arms; training begins with the dense network and its steps are counted until the pruned one is within "
    "half a point of the dense one's accuracy on 4,000 test images",
    arms=(
        Arm(GRADUAL, "`GradualPruning(sparsity=0.9, budget='lamp', ramp=...)`", "counted", "3"),
        Arm(NONE, "`RegularizedPruning(strength=0) | FineTune()`: half of all steps, a cut, the rest", "counted", "0"),
        Arm(L1, "the same with `penalty='l1', step='subgradient', strength=...`", "counted", "3"),
        Arm(L2, "the same with `penalty='l2', step='subgradient', strength=...`", "counted", "3"),
        Arm(PROXIMAL, "the same with `penalty='l1', step='proximal', strength=...`", "counted", "3"),
    ),
    decides="a penalty takes more if it needs over 1.5 times the steps of the same training and cut without one; the "
    "claim names L1 and L2, so that both must. The cubic schedule differs from them in two things, the penalty and the "
    "single cut half-way, so that multiples of it are findings. Steps are read off a line between budgets of 2, 4, 8, "
    "... epochs; an arm that never comes close counts as twice the longest, which favours it",
    varies="the dense network: its first weights and the order of the images, in all training; the trials have a "
    "network of their own. The full plan counts 24 seeds from 8 on and was fixed before any of them was run; the first "
    "8 served to choose the arms and the number of seeds, and decided nothing",
    changes="penalties from the first step of training on, which need no dense network first; a share other than half "
    "of the steps before the cut; stronger or weaker penalties than the three that were tried; plain gradient descent "
    "instead of AdamW; larger networks; budgets that are long enough for every seed to come close",
    quick=QUICK,
    full=FULL,
    compute=compute,
    parts=parts,
    uses=(GradualPruning, RegularizedPruning, FineTune),
    version=3,
)  # fmt: skip
