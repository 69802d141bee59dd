"""The sweeps that come with the package, and the command that computes them: python -m compedu.sweeps.shipping."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from compedu import datasets, methods
from compedu.knobs import STEPS, knobs
from compedu.methods.method import Method
from compedu.networks.recipes import RECIPES
from compedu.networks.shipped import trained
from compedu.shipped import shipped, shipped_sweep
from compedu.sweeps.points import grid
from compedu.sweeps.running import sweep
from compedu.sweeps.store import compact

ROUNDINGS = knobs(methods.FixedPoint)["rounding"].choices
BUDGETS = ("uniform", "singular values", "sensitivity")  # of ranks, at equal numbers of weights
OTHERS = ("lenet300", "resnet", "mobilenet", "vit", "vgg")  # besides lenet5, which most sweeps are of
EVERY = STEPS + 1  # all stops of a slider: each position that it can take was measured


@dataclass(frozen=True)
class Shipped:
    """One shipped sweep: a network with its data, and the points; with their speed where a learner compares with it."""

    network: str
    data: str
    points: tuple[Method, ...]
    speed: bool = False

    @property
    def path(self) -> Path:
        """The file, such as data/sweeps/glyphs/lenet5/MagnitudePruning.jsonl."""
        return shipped_sweep(self.data, self.network, type(self.points[0]).__name__)


def sweeps() -> list[Shipped]:
    """Return all shipped sweeps, quick ones first."""
    pruning = (methods.MagnitudePruning, methods.RandomPruning, methods.FilterPruning, methods.RandomFilterPruning)
    rules = [budget for budget in knobs(methods.MagnitudePruning)["budget"].choices if budget != "uniform"]
    by_rule = [point for rule in rules for point in grid(methods.MagnitudePruning(budget=rule), "sparsity", 25)]
    magnitude, *others = (grid(cls(), "sparsity", EVERY) for cls in pruning)
    live = [
        [*magnitude, *by_rule],
        *others,
        *(grid(cls(), "bits", EVERY) for cls in (methods.LinearQuantization, methods.GPTQ, methods.AdaRound)),
        grid(methods.BlockCirculantProjection(), "block", EVERY),
        # in the first layer one rank is a fifth of each filter: fractions suit the large layers
        grid(methods.TruncatedSVD(layers="-first,-last"), "rank", EVERY),
    ]
    untimed = [
        grid(methods.SmoothQuant(bits=4, activation_bits=4), "alpha", 21),
        grid(methods.EntropyConstrainedQuantization(), "price", 26),
        [point for way in ROUNDINGS for point in grid(methods.FixedPoint(rounding=way), "bits", EVERY)],
        [point for name in ("nf4", "mxfp4") for point in grid(methods.BlockFormats(format=name), "block", 11)],
        [point for budget in BUDGETS for point in grid(methods.TruncatedSVD(budget=budget), "rank", 25)],
        *(grid(cls(), "rank", 25) for cls in (methods.SeparableFilters, methods.TuckerDecomposition)),
        grid(methods.CPDecomposition(), "rank", 13),
    ]
    pairs = [("lenet5", "digits"), ("lenet5", "glyphs")]
    filters = Shipped("vgg", "glyphs", tuple(grid(methods.FilterPruning(), "sparsity", 19)), speed=True)
    without_training = [Shipped(*pair, tuple(points), pair[1] == "glyphs") for pair in pairs for points in live]
    formats = [Shipped(*pair, tuple(points)) for pair in pairs for points in untimed]
    images = {"lenet5": methods.GPTQ().calibration_images} | dict.fromkeys(OTHERS, 128)
    rounded = [Shipped(network, "glyphs", tuple(arm)) for network, count in images.items() for arm in few_bits(count)]
    with_training = [Shipped(*pair, tuple(points)) for pair in pairs for points in trained_points(*pair)]
    learned = [Shipped(network, "glyphs", tuple(learned_steps())) for network in ("lenet5", *OTHERS)]
    low_rank = [Shipped(network, "glyphs", tuple(ranks_of_all_layers())) for network in ("lenet5", "resnet", "vgg")]
    return [filters, *without_training, *formats, *rounded, *with_training, *learned, *low_rank]


def few_bits(calibration_images: int) -> list[list[Method]]:
    """Return four ways to round to 4, 3 and 2 bits without training, with weights alone and with activations."""
    nearest = [methods.LinearQuantization(), methods.LinearQuantization(clipping="mse")]
    by_inputs = [cls(calibration_images=calibration_images) for cls in (methods.GPTQ, methods.AdaRound)]
    few = weights_and_activations()
    files = [nearest, *([arm] for arm in by_inputs)]  # a file for each class
    return [[replace(arm, bits=bits, activation_bits=inputs) for arm in arms for bits, inputs in few] for arms in files]


def weights_and_activations() -> list[tuple[int, int]]:
    """Return 4, 3 and 2 bits of the weights, and of the activations 0, which leaves them in float, or as many."""
    return [(bits, inputs) for bits in (4, 3, 2) for inputs in (0, bits)]


def learned_steps() -> list[Method]:
    """Return learned steps of 4, 3 and 2 bits, and 2 bits trained as long with the steps they started from."""
    learned = methods.LearnedStepQuantization(shift=1)
    fixed = methods.LinearQuantization(bits=2, clipping=learned.clipping)
    training = methods.FineTune(epochs=learned.epochs, lr=learned.lr, shift=learned.shift)
    few = [replace(learned, bits=bits, activation_bits=inputs) for bits, inputs in weights_and_activations()]
    return [*few, *(replace(fixed, activation_bits=inputs) | training for inputs in (0, 2))]


def ranks_of_all_layers() -> list[Method]:
    """Return equal fractions of the ranks and one budget of as many weights, before and after equal fine-tuning."""
    cuts = [methods.TruncatedSVD(rank=rank, budget=budget) for rank in (0.05, 0.1, 0.2) for budget in BUDGETS]
    tuning = methods.FineTune(epochs=2, lr=1e-3, shift=1)
    return [*cuts, *(cut | tuning for cut in cuts)]


def trained_points(network: str, data: str) -> list[list[Method]]:
    """Return the points of the methods that train.

    The small dense network and the student train as long, and at the same learning rate, as the dense network did: a
    control that trained less would flatter every method.
    """
    recipe = RECIPES[network, data]
    learned_steps = methods.LearnedStepQuantization(shift=1)
    same = {"epochs": recipe.epochs, "lr": recipe.lr, "batch": recipe.batch, "shift": recipe.shift}
    student = methods.SoftTargetDistillation(**same)
    arms = [
        replace(student, temperature=10.0),
        replace(student, weight=0.0),
    ]  # with and without the teacher, three seeds each
    return [
        pruned_and_trained(),
        grid(methods.SmallDense(**same), "width", 7),
        grid(methods.CReLU(), "epochs", 5),
        [*grid(learned_steps, "bits", EVERY), replace(learned_steps, epochs=8)],
        [
            methods.FixedPointTraining(bits=bits, rounding=way, shift=1)
            for way in ROUNDINGS
            for bits in (2, 3, 4, 5, 6, 8)
        ],
        [*grid(student, "temperature", 5), *(replace(arm, seed=seed) for arm in arms for seed in range(3))],
    ]


def pruned_and_trained() -> list[Method]:
    """Return gradual pruning, and one-shot pruning with as much training, at sparsities where it matters."""
    learning = {"epochs": 3, "lr": 2e-3, "shift": 1}
    rule = {"budget": "lamp"}
    sparsities = (0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
    cut = [methods.MagnitudePruning(sparsity=s, **rule) | methods.FineTune(**learning) for s in sparsities]
    return [*(methods.GradualPruning(sparsity=s, **rule, **learning) for s in sparsities), *cut]


def remake(names: Iterable[str] = ()) -> None:
    """Compute missing points of the shipped sweeps whose file names begin with one of `names`, by default of all."""
    for one in sweeps():
        if names and not one.path.name.startswith(tuple(names)):
            continue
        data = datasets.load(one.data)
        running = sweep(one.points, trained(one.network, one.data), data, speed=one.speed, store=one.path)
        done = sum(1 for _ in running)
        compact(one.path)
        place = one.path.relative_to(shipped("data", "sweeps"))
        print(f"{place}: {done} points, {len(running.failures)} refused", flush=True)


if __name__ == "__main__":
    remake(sys.argv[1:])
