"""Claim D9: factored networks need extensive retraining. Short against long retraining, and other starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from compedu.claims.experiments import Experiment
from compedu.claims.judgment import LogicalForm, Part, Role
from compedu.claims.store import Run, by_seed, by_setting
from compedu.claims.survey.shared.factored import MEASURED, ToBeFactored, at_fraction
from compedu.claims.survey.shared.networks import accuracy, parameters
from compedu.claims.trial import Arm, Plan
from compedu.claims.verdict import Rule
from compedu.forms import Masked
from compedu.methods import FineTune, LowRankTraining, MagnitudePruning, TruncatedSVD
from compedu.methods.method import Method

DENSE = "dense, trained on"
EQUAL = "equal fractions"
BUDGET = "one budget"
DRAWN = "drawn factors"
NORMALIZED = "drawn, batch norm between"
PRUNED = "pruned"
ON_TRIAL = (EQUAL, BUDGET)
COMPARED = (DRAWN, NORMALIZED, PRUNED)
ARMS = (*ON_TRIAL, *COMPARED)

WEIGHTS = "parameters"
FRESH = 4e-3  # the peak learning rate of networks that start anew, as of the dense one
TRAINED = 1e-3  # of those that start from the dense network
SHORT = 0.3  # of the epochs that the dense network took
BEFORE = "before, %"
SOON = f"after {SHORT:.0%} of the epochs, %"
LATE = "after 100% of the epochs, %"


@dataclass(frozen=True)
class Retrained(ToBeFactored):
    """A dense network that is factored at `fraction` of its full ranks, then retrained for a short or a long time."""

    fraction: float

    def __str__(self) -> str:
        return at_fraction(self.network, self.fraction)

    @property
    def lengths(self) -> Mapping[str, int]:
        """The epochs of short and of long retraining."""
        return {SOON: round(SHORT * self.epochs), LATE: self.epochs}


def as_sparse(model: nn.Module, left: int) -> MagnitudePruning:
    """Return pruning of all layers but the last that leaves `left` parameters other than zero."""
    pruning = MagnitudePruning(sparsity=0.5, budget="lamp", layers="-last")
    masks = [module.mask for module in pruning(model).modules() if isinstance(module, Masked)]
    weights = sum(mask.numel() for mask in masks)
    return replace(pruning, sparsity=(parameters(model) - left) / weights)


def starts(setting: Retrained, model: nn.Module) -> dict[str, Method | None]:
    """Return for each arm what makes it from the dense network before any training; None leaves it as it is."""
    equal = TruncatedSVD(rank=setting.fraction)
    drawn = LowRankTraining(rank=setting.fraction, lr=FRESH, shift=1)
    return {
        DENSE: None,
        EQUAL: equal,
        BUDGET: replace(equal, budget="sensitivity"),
        DRAWN: replace(drawn, normalize=False),
        NORMALIZED: drawn,
        PRUNED: as_sparse(model, parameters(equal(model))),
    }


def trained(start: Method | None, epochs: int, seed: int) -> Method:
    """Return an arm with its training: from the dense network at a low rate, anew at that of the dense network."""
    if isinstance(start, LowRankTraining):
        return replace(start, epochs=epochs, seed=seed)
    tuning = FineTune(epochs=epochs, lr=TRAINED, shift=1, seed=seed)
    return start | tuning if start else tuning


def compute(setting: Retrained, seed: int) -> Run:
    """Train a dense network, then each arm for a short and for a long time; accuracies on test images."""
    data = setting.data
    model = setting.dense(seed)
    outcomes: dict[str, dict[str, float]] = {}
    arms = starts(setting, model)
    for arm, start in arms.items():
        made = {name: trained(start, epochs, seed)(model, data) for name, epochs in setting.lengths.items()}
        outcomes[arm] = {WEIGHTS: float(parameters(made[LATE]))}
        if not isinstance(start, LowRankTraining):  # before training drawn factors know nothing
            outcomes[arm] |= {BEFORE: accuracy(start(model, data) if start else model, data)}
        outcomes[arm] |= {name: accuracy(network, data) for name, network in made.items()}
    settings = {arm: repr(trained(start, setting.epochs, seed)) for arm, start in arms.items()}
    return Run(str(setting), seed, outcomes, settings)


def gain(run: Run, arm: str) -> float:
    """Return the points that long retraining is ahead of short retraining."""
    return run.of(arm, LATE) - run.of(arm, SOON)


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return for each setting what long retraining adds, beyond what it adds to the dense network; and findings."""
    points = Rule(1.0, "points of accuracy")
    settings = by_setting(runs)

    def more(over: Sequence[Run], arm: str) -> tuple[float, ...]:
        return by_seed(over, lambda run: gain(run, arm) - gain(run, DENSE))

    def short(arm: str) -> tuple[float, ...]:
        return by_seed(runs, lambda run: run.of(DENSE, BEFORE) - run.of(arm, SOON))

    room = by_seed(runs, lambda run: run.of(DENSE, BEFORE) - run.of(EQUAL, BEFORE), min)
    verdicts = [
        Part(f"{name}, {arm}: long retraining ends higher", more(same, arm), points)
        for name, same in settings.items()
        for arm in ON_TRIAL
    ]
    findings = {f"on average, {arm}: long training ends higher": more(runs, arm) for arm in COMPARED}
    findings |= {f"on average, {arm}: short of the dense network after short training": short(arm) for arm in ARMS}
    return (
        Part(f"{EQUAL}: short of the dense network before retraining", room, points, Role.CONTROL),
        *verdicts,
        *(Part(name, values, points, Role.FINDING) for name, values in findings.items()),
    )


QUICK = Plan((Retrained("lenet5(width=0.5)", 1000, 10, 0.1),), 3, "one minute")
FULL = Plan(
    (Retrained("lenet5", 2000, 20, 0.1), Retrained("vgg(width=0.25)", 1500, 20, 0.2)), 8, "thirty minutes", first=200
)

RETRAINING = Experiment(
    key="D9",
    title="Extensive retraining",
    claim="Factorization requires extensive retraining to converge.",
    source="the survey by Cheng, Wang, Zhou and Zhang (2018), drawbacks of low-rank factorization",
    form=LogicalForm.TENDENCY,
    scope="two small convolutional networks on drawn characters (20 classes; quick: one network), all layers but the "
    "last factored in two by truncated singular value decomposition, at 10 or 20 % of the full rank, then retrained "
    "for 30 % of the epochs that the dense network took (short), or for as many as it took (long). Accuracies on 4,000 "
    "test images",
    arms=(
        Arm(DENSE, "`FineTune()`", "both", "0"),
        Arm(EQUAL, "`TruncatedSVD(rank=f) | FineTune()`: the same fraction of the full rank for every layer", "both",
            "0"),
        Arm(BUDGET, "`TruncatedSVD(rank=f, budget='sensitivity') | FineTune()`: as many parameters, spent where they "
            "lower the loss most", "both", MEASURED),
        Arm(DRAWN, "`LowRankTraining(rank=f, normalize=False)`: the same layers as with equal fractions, trained from "
            "drawn weights", "both", "0"),
        Arm(NORMALIZED, "`LowRankTraining(rank=f)`: with batch normalization between the factors", "both", "0"),
        Arm(PRUNED, "`MagnitudePruning(budget='lamp') | FineTune()`: as many parameters other than zero", "both", "0"),
    ),
    decides="retraining is extensive if long retraining ends more than 1 point of accuracy above short retraining, "
    "each with a whole cosine schedule of its own. What long retraining adds to the dense network, which may not have "
    "converged either, is subtracted. Equal fractions and one budget are parts of their own in each network. That a "
    "network of low rank stays below the dense one, however long it trains, is another matter: the findings tell how "
    "far each arm is short of it. Provided that there is something to retrain: equal fractions must be over a point "
    "short before it",
    varies="the dense network: its initial weights and the order of the images, in training and in retraining. The "
    "full plan uses seeds from 200 on, which had not been inspected before. Seeds 0 to 2 were, with the quick plan at "
    "20 % of the full rank, where equal fractions are not always a point short before retraining: it now has 10 %",
    changes="other learning rates: networks from the dense one start at 0.001, drawn ones at 0.004 like the dense one, "
    "and none was tuned; distillation from the dense network; more images; deeper networks",
    quick=QUICK,
    full=FULL,
    compute=compute,
    parts=parts,
    uses=(TruncatedSVD, LowRankTraining, MagnitudePruning, FineTune),
)  # fmt: skip
