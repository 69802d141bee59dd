"""Claim D4: every pruning criterion needs a sensitivity set by hand for each layer. Rules against a hand."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from compedu.claims.experiments import Arm, Experiment, Part, Plan
from compedu.claims.networks import accuracy, dense_network, glyphs
from compedu.claims.store import Run, by_seed
from compedu.claims.verdict import Rule
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import Masked, kernel_of
from compedu.methods import FineTune, MagnitudePruning
from compedu.methods.pruning.budgets import densities_in_proportion

BY_HAND, ALONE, UNIFORM, DENSE = "by hand", "by hand, from uniform on", "uniform", "dense"
RULES = {"one threshold": "global", "LAMP": "lamp", "Erdos-Renyi": "erdos-renyi", "scan": "sensitivity"}  # and budgets
BEFORE, AFTER, TRIALS = "accuracy before, %", "accuracy after, %", "networks trained and looked at"


@dataclass(frozen=True)
class Budgeted:
    """A network trained on glyphs for `epochs` over `images`, pruned to one `sparsity` of all weights, then retrained.

    `trials` are those of a hand, beside its look at what it begins with; `looked_at` are the validation images that it
    judges by.
    """

    network: str
    sparsity: float
    images: int
    epochs: int
    trials: int = 16
    looked_at: int = 1000
    retrain: int = 1

    def __str__(self) -> str:
        return f"{self.network} on {self.images} glyphs, {self.sparsity:.0%} zeros"

    @property
    def data(self) -> Dataset:
        """The images."""
        return glyphs(self.images, self.looked_at)

    def retrained(self, pruned: nn.Module, seed: int) -> nn.Module:
        """Return a pruned network after the training that every arm gets."""
        return FineTune(epochs=self.retrain, lr=1e-3, shift=1, seed=seed)(pruned, self.data)


def tuned_by_hand(
    start: Mapping[str, float], sizes: Mapping[str, int], density: float, trials: int,
    score: Callable[[dict[str, float]], float],
) -> dict[str, float]:
    """Return the best densities that a patient hand finds in so many `trials`, from those that it begins with.

    One layer after the other gets twice its share, then half of it, at the others' expense, and what helps is kept;
    when a round of all layers helps no more, the steps become smaller.
    """
    best, factor = densities_in_proportion(start, sizes, density), 2.0
    top, used = score(best), 1
    while used < trials:
        before = top
        for name in sizes:
            for change in (factor, 1 / factor):
                tried = densities_in_proportion({**best, name: best[name] * change}, sizes, density)
                if used < trials:
                    reached, used = score(tried), used + 1
                    if reached > top:
                        best, top = tried, reached
        if top == before:
            factor = math.sqrt(factor)
    return best


def densities(pruned: nn.Module) -> dict[str, float]:
    """Return the share of weights that each masked layer has left; one weight where none is left."""
    masks = {name: layer.mask for name, layer in pruned.named_modules() if isinstance(layer, Masked)}
    return {name: max(float(mask.float().mean()), 1 / mask.numel()) for name, mask in masks.items()}


def by_hand(
    model: nn.Module, setting: Budgeted, seed: int, proposed: Sequence[nn.Module]
) -> tuple[MagnitudePruning, int]:
    """Return the pruning that a hand chooses, and how many networks it trained and looked at.

    It begins with the best of the networks `proposed`, and judges by the validation accuracy after the retraining.
    """
    def pruning(found: Mapping[str, float]) -> MagnitudePruning:
        return MagnitudePruning(sparsity={name: round(1 - value, 6) for name, value in found.items()})

    def score(found: dict[str, float]) -> float:
        try:
            return evaluate(setting.retrained(pruning(found)(model), seed), setting.data).correct
        except CompressionError:  # a layer would be empty
            return 0

    starts = [densities(one) for one in proposed]
    sizes = {name: kernel_of(model.get_submodule(name)).numel() for name in starts[0]}
    best = max(starts, key=score) if len(starts) > 1 else starts[0]
    found = tuned_by_hand(best, sizes, 1 - setting.sparsity, setting.trials, score)
    return pruning(found), setting.trials + (len(starts) if len(starts) > 1 else 0)


def compute(setting: Budgeted, seed: int) -> Run:
    """Train a dense network, prune it by every budget, retrain each equally; accuracies on the test images."""
    data = setting.data
    model = dense_network(setting.network, data, setting.epochs, seed)
    networks = {
        name: MagnitudePruning(sparsity=setting.sparsity, budget=budget)(model, data)
        for name, budget in ({UNIFORM: UNIFORM} | RULES).items()
    }
    hands = {
        BY_HAND: by_hand(model, setting, seed, list(networks.values())),
        ALONE: by_hand(model, setting, seed, [networks[UNIFORM]]),
    }
    outcomes: dict[str, dict[str, float]] = {DENSE: {AFTER: accuracy(model, data)}}
    for name, pruned in (networks | {name: pruning(model, data) for name, (pruning, _) in hands.items()}).items():
        outcomes[name] = {BEFORE: accuracy(pruned, data), AFTER: accuracy(setting.retrained(pruned, seed), data)}
    for name, (_, trials) in hands.items():
        outcomes[name][TRIALS] = trials
    return Run(str(setting), seed, outcomes, {name: repr(pruning) for name, (pruning, _) in hands.items()})


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return for each automatic rule how much the hand is ahead of it, in points, in the network where it is most."""
    points = Rule(1.0, "points of accuracy")

    def ahead(name: str, of: str, over: Callable[[Iterable[float]], float] = max) -> tuple[float, ...]:
        return by_seed(runs, lambda run: run.of(name, AFTER) - run.of(of, AFTER), over)

    return (
        Part("a hand that begins with uniform gets ahead of it", ahead(ALONE, UNIFORM, min), points, "control"),
        Part("LAMP leaves room below the dense network", ahead(DENSE, "LAMP", min), points, "control"),
        *(Part(f"{name} falls short of the hand", ahead(BY_HAND, name), points) for name in RULES),
        Part("LAMP falls short of the hand that began with uniform", ahead(ALONE, "LAMP"), points, "finding"),
    )


LENET, VGG = ("lenet5(width=0.5)", 0.9), ("vgg(width=0.25)", 0.8)

MANUAL_SENSITIVITY = Experiment(
    key="D4",
    title="Sensitivity must be set by hand",
    claim="All pruning criteria need a sensitivity that is set by hand for each layer.",
    source="the survey by Cheng, Wang, Zhou and Zhang (2018), drawbacks of pruning",
    form="universal",
    scope="small convolutional networks on drawn characters (20 classes), one criterion, the size of a weight, with "
    "four rules that share the zeros out; pruned in one step, so far that uniform pruning leaves little; retrained for "
    "one epoch; accuracies on 4,000 test images",
    arms=(
        Arm(UNIFORM, "`MagnitudePruning(sparsity=s)`", "one epoch", "0"),
        Arm(BY_HAND, "`MagnitudePruning(sparsity={layer: ...})`, by validation accuracy, from the best other arm on",
            "one epoch", "16 that retrain (quick: 8), and a look at each other arm"),
        Arm(ALONE, "the same, from uniform on", "one epoch", "16 that retrain (quick: 8)"),
        *(
            Arm(name, f"`MagnitudePruning(sparsity=s, budget={rule!r})`", "one epoch",
                "8 looks at each layer alone" if rule == "sensitivity" else "0")
            for name, rule in RULES.items()
        ),
    ),
    decides="a rule needs the hand if it falls short by more than 1 point of accuracy after equal retraining, in the "
    "network where it falls short most; a single rule that falls short by less refutes the claim, provided that the "
    "hand is able to find something, and that the dense network leaves it room",
    varies="the dense network: its first weights and the order of the images, in training and in retraining. The full "
    "plan counts seeds from 100 on, which nobody had looked at. Two plans went before. The first (4 seeds) had a hand "
    "that began with the scan, the second (8 seeds) one that began with the best rule; both judged before retraining "
    "and averaged over networks, and both refuted the claim by LAMP",
    changes="more trials of the hand: its 15 moves do not try each of the second network's 18 directions once; other "
    "criteria; whole filters instead of weights; larger networks. The rules have choices of their own, made once by "
    "their authors and not for these networks",
    quick=Plan((Budgeted(*LENET, images=2000, epochs=8, trials=8, looked_at=500),), 3, "a minute"),
    full=Plan(
        (Budgeted(*LENET, images=4000, epochs=16), Budgeted(*VGG, images=1500, epochs=12)), 8, "twenty minutes",
        first=100,
    ),
    compute=compute,
    parts=parts,
    uses=(MagnitudePruning, FineTune),
    version=3,
)  # fmt: skip
