"""Claim D3: pruning by an L1 or L2 penalty takes more steps of training than the same pruning without one."""

import math
import statistics
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
from compedu.methods import FineTune, GradualPruning, MagnitudePruning, RegularizedPruning
from compedu.methods.method import Method
from compedu.training import Recipe

GRADUAL, AT_ONCE, NONE = "cubic schedule", "cut at once", "no penalty, same cut"
L1, L2, PROXIMAL = "L1 in the loss", "L2 in the loss", "L1, proximal step"
TUNING_SEEDS = (1000, 1001, 1002)  # of the dense networks that settings are chosen on, which no counted run uses
STEPS, SHORTEST, LONGEST, CAME_CLOSE = "steps", "shortest budget, steps", "steps at most", "came close"


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
    budgets: tuple[int, ...] = (4, 8, 16, 32)
    tuned_at: int = 8
    tolerance: float = 1.0
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
    def shortest(self) -> float:
        """Steps of the first budget, below which nothing is told apart."""
        return float(self.budgets[0] * self.steps_of_an_epoch)

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


def at_once(setting: Reached, epochs: int, _: float, seed: int) -> Method:
    """Return the arm that cuts first and retrains for all epochs."""
    cut = MagnitudePruning(sparsity=setting.sparsity, budget="lamp")
    return cut | FineTune(epochs=epochs, lr=setting.lr, shift=1, seed=seed)


ARMS: Mapping[str, tuple[Callable[[Reached, int, float, int], Method], tuple[float, ...]]] = {
    GRADUAL: (gradual, (0.2, 0.4, 0.6, 0.8)),
    AT_ONCE: (at_once, (0.0,)),
    NONE: (penalized("l1", "subgradient"), (0.0,)),
    L1: (penalized("l1", "subgradient"), (1e-5, 1e-4, 1e-3, 1e-2)),
    L2: (penalized("l2", "subgradient"), (1e-4, 1e-3, 1e-2, 1e-1)),
    PROXIMAL: (penalized("l1", "proximal"), (0.004, 0.02, 0.1, 0.5)),
}  # each with the values of its knob that are tried; a single one needs no trial


@lru_cache(maxsize=1)
def tuned(setting: Reached) -> dict[str, float]:
    """Return for each arm the value of its knob that is best after `tuned_at` epochs, over all tuning networks."""
    dense = {seed: setting.dense(seed) for seed in TUNING_SEEDS}
    return {
        name: values[0] if len(values) == 1 else max(values, key=lambda value: tried(setting, dense, name, value))
        for name, (_, values) in ARMS.items()
    }


def tried(setting: Reached, dense: Mapping[int, nn.Module], arm: str, value: float) -> float:
    """Return the mean validation accuracy of trials on networks by seed; 0 where a penalty leaves no weights."""
    make, found = ARMS[arm][0], []
    for seed, model in dense.items():
        try:
            pruned = make(setting, setting.tuned_at, value, seed)(model, setting.data)
        except CompressionError:
            return 0.0
        found.append(accuracy(pruned, setting.data, "validation"))
    return statistics.fmean(found)


def reached_after(budgets: Sequence[int], accuracies: Sequence[float], target: float) -> float:
    """Return the budget at which the accuracy reaches `target`, on a line over the logarithm of the budget.

    At the first budget already: that one. At none of them: twice the last. Both are conventions.

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
    close = float(reached[-1] >= target)
    return {STEPS: steps, CAME_CLOSE: close} | {f"{b} epochs, %": a for b, a in zip(setting.budgets, reached)}


def compute(setting: Reached, seed: int) -> Run:
    """Give each arm larger and larger budgets, until its pruned network is close to the dense one, on test images."""
    knobs, dense = tuned(setting), setting.dense(seed)
    unpruned = accuracy(dense, setting.data)
    outcomes = {
        "dense": {"accuracy, %": unpruned, SHORTEST: setting.shortest, LONGEST: setting.longest}
    } | {
        name: counted(setting, dense, seed, name, knobs[name], unpruned - setting.tolerance) for name in ARMS
    }
    return Run(str(setting), seed, outcomes, {
        name: repr(method(setting, setting.tuned_at, knobs[name], seed)) for name, (method, _) in ARMS.items()
    })  # fmt: skip


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return for each penalty its steps as a multiple of those of the cubic schedule; beside it, of other cuts'."""
    slower = Rule(1.5, "times the steps", ratio=True)

    def multiple(arm: str, of: str) -> tuple[float, ...]:
        return by_seed(runs, lambda run: run.of(arm, STEPS) / run.of(of, STEPS))

    below = by_seed(runs, lambda run: run.of(GRADUAL, STEPS) / run.of("dense", SHORTEST))
    above = by_seed(runs, lambda run: run.of("dense", LONGEST) / run.of(GRADUAL, STEPS))
    return (
        Part(f"the longest budget leaves room above the {GRADUAL}", above, replace(slower, margin=2.0), "control"),
        Part(f"the shortest one leaves room below the {GRADUAL}", below, replace(slower, margin=1.2), "control"),
        Part(f"{L1} takes more", multiple(L1, GRADUAL), slower),
        Part(f"{L2} takes more", multiple(L2, GRADUAL), slower),
        Part(f"{PROXIMAL}, takes more", multiple(PROXIMAL, GRADUAL), slower, "finding"),
        Part(f"{AT_ONCE}, takes more", multiple(AT_ONCE, GRADUAL), slower, "finding"),
        Part(f"{NONE}, takes more", multiple(NONE, GRADUAL), slower, "finding"),
        *(Part(f"{arm}: more than {NONE}", multiple(arm, NONE), slower, "finding") for arm in (L1, L2, PROXIMAL)),
    )


QUICK = Plan((Reached("lenet5(width=0.5)", 1000, 20, budgets=(4, 8, 16)),), 3, "three minutes")
FULL = Plan((Reached("lenet5(width=0.5)", 3000, 30),), 8, "twenty-five minutes", first=100)

REGULARIZED_PRUNING = Experiment(
    key="D3",
    title="Penalties take longer",
    claim="Pruning with L1 or L2 regularization takes more iterations to converge.",
    source="the survey by Cheng, Wang, Zhou and Zhang (2018), drawbacks of pruning",
    form="tendency",
    scope="a small convolutional network on drawn characters (20 classes), 90 % of the weights gone, shared out by "
    "LAMP in all arms; training begins with the dense network, itself trained for 30 epochs (quick: 20), and its steps "
    "are counted until the pruned one is within one point of the dense one's accuracy on 4,000 test images",
    arms=(
        Arm(GRADUAL, "`GradualPruning(sparsity=0.9, budget='lamp', ramp=...)`", "counted", "4"),
        Arm(AT_ONCE, "`MagnitudePruning(sparsity=0.9, budget='lamp') | FineTune()`", "counted", "0: no knob"),
        Arm(NONE, "`RegularizedPruning(strength=0) | FineTune()`: half of all steps, a cut, the rest", "counted",
            "0: no knob"),
        Arm(L1, "the same with `penalty='l1', step='subgradient', strength=...`", "counted", "4"),
        Arm(L2, "the same with `penalty='l2', step='subgradient', strength=...`", "counted", "4"),
        Arm(PROXIMAL, "the same with `penalty='l1', step='proximal', strength=...`", "counted", "4"),
    ),
    decides="a penalty takes more if it needs over 1.5 times the steps of the cubic schedule, which prunes without one "
    "and has one knob as well. Steps are read off a line between budgets of 4, 8, 16, ... epochs; an arm that never "
    "comes close counts as twice the longest (*came close* under *All runs* is the share that did). The penalties "
    "spend half of their steps before the cut, which may cost steps by itself: the findings set them beside the same "
    "cut without a penalty",
    varies="the dense network: its first weights and the order of the images, in all training. The knobs are chosen on "
    "three networks of their own. The full plan counts seeds from 100 on, which nobody had looked at. A plan of 8 "
    "seeds went before, at first with the cubic schedule and then with the same cut as what is compared with; both "
    "times it was undecided, as whatever could not have detected the margin was called then",
    changes="the knobs: 1,000 images of three networks hardly tell neighbouring values apart, so that another machine "
    "may choose others; penalties from the first step of training on, which need no dense network first; a share other "
    "than half of the steps before the cut; stronger or weaker penalties than the four that were tried; plain gradient "
    "descent instead of AdamW; larger networks; more zeros",
    quick=QUICK,
    full=FULL,
    compute=compute,
    parts=parts,
    uses=(MagnitudePruning, GradualPruning, RegularizedPruning, FineTune),
    version=4,
)  # fmt: skip
