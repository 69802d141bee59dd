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
from compedu.methods.pruning.sensitivity import SPARSITIES

BY_HAND, UNIFORM, NO_HAND = "by hand", "uniform", "scan, no hand"
SCAN = "sensitivity"
RULES = {"one threshold for all": "global", "LAMP": "lamp", "Erdos-Renyi": "erdos-renyi"}  # names and budgets
BEFORE, AFTER, TRIALS = "accuracy before, %", "accuracy after, %", "trials"


@dataclass(frozen=True)
class Budgeted:
    """A network trained on glyphs for `epochs` over `images`, pruned to one `sparsity` of all weights, then retrained.

    `trials` are those of the hand, beside its looks at every rule and the scan; `looked_at` are the validation images
    that it judges by.
    """

    network: str
    sparsity: float
    images: int
    epochs: int
    trials: int = 32
    looked_at: int = 1000
    retrain: int = 1

    def __str__(self) -> str:
        return f"{self.network} on {self.images} glyphs, {self.sparsity:.0%} zeros"


    @property
    def data(self) -> Dataset:
        """The images."""
        return glyphs(self.images, self.looked_at)


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
    model: nn.Module, data: Dataset, setting: Budgeted, proposed: Iterable[nn.Module]
) -> tuple[MagnitudePruning, int]:
    """Return the pruning that a hand chooses by validation accuracy, and all networks that it looked at.

    It begins with the best of what the rules `proposed`.
    """
    def pruning(found: Mapping[str, float]) -> MagnitudePruning:
        return MagnitudePruning(sparsity={name: round(1 - value, 6) for name, value in found.items()})

    def score(found: dict[str, float]) -> float:
        try:
            return evaluate(pruning(found)(model), data).correct
        except CompressionError:  # a layer would be empty
            return 0

    starts = [densities(one) for one in proposed]
    sizes = {name: kernel_of(model.get_submodule(name)).numel() for name in starts[0]}
    found = tuned_by_hand(max(starts, key=score), sizes, 1 - setting.sparsity, setting.trials, score)
    return pruning(found), setting.trials + len(starts) + len(sizes) * len(SPARSITIES)


def compute(setting: Budgeted, seed: int) -> Run:
    """Train a dense network, prune it by every budget, retrain each equally; accuracies on the test images."""
    data = setting.data
    model = dense_network(setting.network, data, setting.epochs, seed)
    rules = {UNIFORM: UNIFORM} | RULES | {NO_HAND: SCAN}
    networks = {
        name: MagnitudePruning(sparsity=setting.sparsity, budget=budget)(model, data) for name, budget in rules.items()
    }
    hand, trials = by_hand(model, data, setting, networks.values())
    outcomes: dict[str, dict[str, float]] = {"dense": {BEFORE: accuracy(model, data)}}
    for name, pruned in (networks | {BY_HAND: hand(model, data)}).items():
        retrained = FineTune(epochs=setting.retrain, lr=1e-3, shift=1, seed=seed)(pruned, data)
        outcomes[name] = {BEFORE: accuracy(pruned, data), AFTER: accuracy(retrained, data)}
    outcomes[BY_HAND][TRIALS] = trials
    return Run(str(setting), seed, outcomes, {BY_HAND: repr(hand)})


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return for each automatic rule how much accuracy the hand is ahead of it, in points, mean over settings."""
    points = Rule(1.0, "points of accuracy")

    def ahead(name: str, measure: str) -> tuple[float, ...]:
        return by_seed(runs, lambda run: run.of(BY_HAND, measure) - run.of(name, measure))

    return (
        Part("uniform falls short of the hand: there is something to tune", ahead(UNIFORM, AFTER), points, "control"),
        *(Part(f"{name} falls short of the hand", ahead(name, AFTER), points) for name in RULES),
        Part("the scan falls short of the hand", ahead(NO_HAND, AFTER), points, "finding"),
        *(Part(f"{name} falls short, not retrained", ahead(name, BEFORE), points, "finding") for name in RULES),
    )


LENET, VGG = ("lenet5(width=0.5)", 0.9), ("vgg(width=0.25)", 0.6)

MANUAL_SENSITIVITY = Experiment(
    key="D4",
    title="Sensitivity must be set by hand",
    claim="All pruning criteria need a sensitivity that is set by hand for each layer.",
    source="the survey by Cheng, Wang, Zhou and Zhang (2018), drawbacks of pruning",
    form="universal",
    scope="small convolutional networks on drawn characters (20 classes), single weights pruned by magnitude in one "
    "step, so far that uniform pruning leaves little and the hand still sees something; retrained for one epoch; "
    "accuracies on 4,000 test images",
    arms=(
        Arm(UNIFORM, "`MagnitudePruning(sparsity=s)`", "one epoch", "0"),
        Arm(BY_HAND, "`MagnitudePruning(sparsity={layer: ...})`, by validation accuracy, from the best other arm on",
            "one epoch", "32 (quick: 16), a look at each other arm, and 8 looks at each layer alone"),
        *(
            Arm(name, f"`MagnitudePruning(sparsity=s, budget={rule!r})`", "one epoch", "0")
            for name, rule in RULES.items()
        ),
        Arm(NO_HAND, "`MagnitudePruning(sparsity=s, budget='sensitivity')`", "one epoch",
            "0, and 8 looks at each layer alone"),
    ),
    decides="a rule needs the hand if it falls short by more than 1 point of accuracy after equal retraining, averaged "
    "over the networks; a single rule that falls short by less refutes the claim, provided that uniform falls short by "
    "more",
    varies="the dense network: its first weights and the order of the images, in training and in retraining. The full "
    "plan counts seeds from 8 on; those before it were looked at while the hand was improved",
    changes="more trials, or trials that retrain; whole filters instead of weights; larger networks. The rules have "
    "choices of their own, made once by their authors and not for these networks",
    quick=Plan((Budgeted(*LENET, images=2000, epochs=5, trials=16, looked_at=500),), 3, "half a minute"),
    full=Plan(
        (Budgeted(*LENET, images=4000, epochs=8), Budgeted(*VGG, images=3000, epochs=6)), 8,
        "nine minutes", first=8,
    ),
    compute=compute,
    parts=parts,
    uses=(MagnitudePruning, FineTune),
    version=2,
)  # fmt: skip
