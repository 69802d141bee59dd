"""A replication: the survey's table of low-rank networks, beside a plain, an Inception and a residual network of ours.

    python -m compedu.replications.low_rank_networks rates
    python -m compedu.replications.low_rank_networks glyphs
    COMPEDU_DATA=FOLDER python -m compedu.replications.low_rank_networks cifar10

computes the runs that are not stored yet and prints all of them. A network gets low rank in three ways: trained from
scratch, as long as the dense one was, as vertical and horizontal layers with batch normalization between them (BN); by
singular value decomposition of the dense network into such layers (SVD); and by its canonical polyadic decomposition
(CP); the last two are fine-tuned. 1x1 convolutions of Inception are matrices, for which CP is SVD too. The control is a
narrower dense network, trained as long. All have about as few parameters as the survey's networks of that kind, against
the dense one; the residual network as few as the Inception network, for the survey has none.

What the survey prints as CP low-rank stands beside SVD: the authors of the networks (Tai, Xiao, Zhang, Wang, E 2016)
give the same accuracies, 79.66 % of AlexNet and 90.31 % of VGG-16, for filters that their program splits in two by
singular value decomposition (github.com/chengtaipu/lowrankcnn, imagenet/README.md and lowrank_approx.py).

The images of CIFAR-10 are JPEG files, whose pixels differ slightly from the originals', and one seed was run on them.
The learning rate of fine-tuning is the one of `RATES` with the lowest loss on validation images of `glyphs`, over all
networks and both decompositions (`rates`); what starts anew is trained as the dense network was, at its rate. The test
images are used once, for the figures. A seed changes the initial weights, where there are new ones, and the order of
the images in training.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from compedu import datasets
from compedu.columns import Columns
from compedu.methods import CPDecomposition, FineTune, LowRankTraining, SmallDense, TruncatedSVD
from compedu.methods.method import Method
from compedu.metrics import Report, Timing
from compedu.metrics.accuracy import Interval
from compedu.metrics.seeds import mean, student_interval
from compedu.networks.recipes import RECIPES
from compedu.networks.shipped import trained
from compedu.replications.stored import baseline_accuracy, incomplete, stored_reports
from compedu.shipped import shipped_sweep
from compedu.sweeps.running import sweep

SEEDS = {"glyphs": 3, "cifar10": 1}
SPLIT = "test"
TUNED_SPLIT = "validation"
BUT_ENDS = "-first, -last"  # the layers that read the image and write the classes stay dense
POINTWISE = "*one.conv, *three.0.conv, *five.0.conv, *pooled.1.conv"  # of Inception: for a matrix, CP is the SVD
RATES = (3e-4, 1e-3, 3e-3, 1e-2)  # of fine-tuning, tried on validation images of TUNED_ON
TUNED_ON = "glyphs"
BEST_RATE = 3e-3
TUNING_EPOCHS = 4
TIMING = Timing(budget_s=5.0)

DENSE = "dense"
NORMALIZED = "BN low-rank"
SINGULAR = 'SVD low-rank (the survey\'s "CP")'
POLYADIC = "CP low-rank"
NARROW = "narrow dense"
ARMS = (NORMALIZED, SINGULAR, POLYADIC, NARROW)
DECOMPOSED = (SINGULAR, POLYADIC)


class Row(NamedTuple):
    """A row of the survey's table: top-5 accuracy in percent, speed-up and compression rate in times."""

    accuracy: float
    speed_up: float
    rate: float


@dataclass(frozen=True)
class Compared:
    """A network, what the survey says of a relative, and the rank, decomposition and width that make it as small.

    `rate` is how many times fewer parameters all arms have, about as in the survey; `rank` that of the vertical and
    horizontal layers, trained anew or computed.
    """

    network: str
    relative: str
    rate: float
    survey: dict[str, Row]
    rank: float
    polyadic: Method
    width: float

    def path(self, data: str) -> Path:
        """Return the file of the runs, such as data/sweeps/glyphs/vgg/low_rank_networks.jsonl."""
        return shipped_sweep(data, self.network, "low_rank_networks")

    def method(self, arm: str, data: str, seed: int, rate: float = BEST_RATE) -> Method:
        """Return how an arm is made; `rate` is the learning rate of fine-tuning."""
        recipe = RECIPES[self.network, data]
        images = {"batch": recipe.batch, "shift": recipe.shift, "mirror": recipe.mirror}
        same = images | {"weight_decay": recipe.weight_decay, "seed": seed}
        as_long = same | {"epochs": recipe.epochs, "lr": recipe.lr}
        if arm == NORMALIZED:
            return LowRankTraining(rank=self.rank, layers=BUT_ENDS, **as_long)
        if arm == NARROW:
            return SmallDense(width=self.width, **as_long)
        return self.decomposition(arm) | FineTune(epochs=TUNING_EPOCHS, lr=rate, **same)

    def decomposition(self, arm: str) -> Method:
        """Return how an arm that is fine-tuned is computed from the dense network."""
        return self.polyadic if arm == POLYADIC else TruncatedSVD(rank=self.rank, layers=BUT_ENDS)

    def runs(self, data: str) -> dict[str, list[Method]]:
        """Return the methods by arm, one for each seed."""
        return {arm: [self.method(arm, data, seed) for seed in range(SEEDS[data])] for arm in ARMS}


# Cheng, Wang, Zhou, Zhang 2018, Model compression and acceleration for deep neural networks, the table of low rank on
# ILSVRC-2012. Its AlexNet has no relative here, and of residual networks it has none. Ranks and widths were found by
# bisection, so that every arm has as many parameters as the dense network over `rate`.
COMPARED = (
    Compared(
        "vgg", "VGG-16", 2.75,
        {DENSE: Row(90.60, 1, 1), NORMALIZED: Row(90.47, 1.53, 2.72), SINGULAR: Row(90.31, 2.05, 2.75)},
        rank=0.195, polyadic=CPDecomposition(rank=0.19, layers=BUT_ENDS), width=0.6,
    ),
    Compared(
        "inception", "GoogLeNet", 2.8,
        {DENSE: Row(92.21, 1, 1), NORMALIZED: Row(91.88, 1.08, 2.79), SINGULAR: Row(91.79, 1.20, 2.84)},
        rank=0.215, width=0.593,
        polyadic=TruncatedSVD(rank=0.26, layers=POINTWISE) | CPDecomposition(rank=0.19, layers=BUT_ENDS),
    ),
    Compared(
        "resnet", "", 2.8, {},
        rank=0.179, polyadic=CPDecomposition(rank=0.164, layers=BUT_ENDS), width=0.593,
    ),
)  # fmt: skip


def remake(data_name: str) -> None:
    """Compute and store missing runs on a data set, one arm of all networks after the other."""
    for arm in ARMS:
        for compared in COMPARED:
            run(compared, data_name, compared.runs(data_name)[arm], SPLIT, compared.path(data_name), TIMING)


def run(one: Compared, data_name: str, points: Sequence[Method], split: str, store: Path, speed: bool | Timing) -> None:
    """Compute and store those of `points` that are missing in the file `store`."""
    data = datasets.load(data_name)
    dense = trained(one.network, data_name)
    for report in sweep(points, dense, data, split=split, speed=speed, store=store):
        print(f"{one.network}: {report.method}: {report.accuracy:.2%}", flush=True)


def try_rates() -> None:
    """Compute and store missing runs with each rate of fine-tuning, one seed."""
    for one in COMPARED:
        points = [method for arm in DECOMPOSED for method in at_rates(one, arm)]
        run(one, TUNED_ON, points, TUNED_SPLIT, rates_path(one), speed=False)


def at_rates(one: Compared, arm: str) -> list[Method]:
    """Return how an arm is made with each of `RATES`."""
    return [one.method(arm, TUNED_ON, 0, rate) for rate in RATES]


def rates_path(one: Compared) -> Path:
    """Return the file of the runs with each rate."""
    return shipped_sweep(TUNED_ON, one.network, "low_rank_rates")


def losses() -> dict[tuple[str, str], list[float]]:
    """Return the loss on validation images, nats, by network and arm, with each of `RATES`."""
    return {
        (one.network, arm): [run.loss for run in stored_reports(rates_path(one), at_rates(one, arm), TUNED_SPLIT)]
        for one in COMPARED
        for arm in DECOMPOSED
    }


def rates() -> Columns:
    """Return a table of `losses`, its last line their means."""
    found = losses()
    lines = [(*names, *(f"{loss:.4f}" for loss in row)) for names, row in found.items()]
    means = [f"{mean(column):.4f}" for column in zip(*found.values(), strict=True)]
    head = ("loss on validation images", "", *(f"rate {rate:g}" for rate in RATES))
    return Columns([head, *lines, ("mean", "", *means)], left={0, 1})


def stored_runs(compared: Compared, data: str) -> dict[str, list[Report]]:
    """Return the stored reports by arm, one for each seed."""
    path = compared.path(data)
    return {arm: stored_reports(path, methods, SPLIT) for arm, methods in compared.runs(data).items()}


def table(data: str) -> Columns:
    """Return the survey's figures and ours."""
    survey = ("survey: top-5", "survey: speed", "survey: rate")
    head = ("", *survey, f"{data}: test", "to dense, points", "speed", "MACs", "rate")
    return Columns([head, *(line for compared in COMPARED for line in rows(compared, data))], left={0})


def rows(compared: Compared, data: str) -> Iterator[Sequence[str]]:
    """Yield the cells of a network's lines, one for each arm that was run."""
    runs = stored_runs(compared, data)
    (one, *_), *_ = filter(None, runs.values())
    dense = f"{100 * baseline_accuracy(one):.2f} %"
    name = f"{compared.network} ({compared.relative})" if compared.relative else compared.network
    yield f"{name}, dense", *theirs(compared, DENSE), dense, "", "1.00", "1.00", "1.00"
    for arm, reports in runs.items():
        if reports:
            yield f"  {arm}", *theirs(compared, arm), *ours([Figures.of(report) for report in reports])


def theirs(compared: Compared, arm: str) -> Sequence[str]:
    """Return the survey's figures of an arm, empty where it has none."""
    row = compared.survey.get(arm)
    return ("", "", "") if row is None else (f"{row.accuracy:.2f} %", f"{row.speed_up:.2f}", f"{row.rate:.2f}")


@dataclass(frozen=True)
class Figures:
    """The figures of one run: accuracy and difference to the dense network in percent, the rest in times."""

    accuracy: float
    difference: float
    interval: Interval  # of the difference, from the images alone
    speed_up: float
    distinguishable: bool  # whether faster or slower than the dense network, beyond noise
    macs: float
    rate: float

    @classmethod
    def of(cls, report: Report) -> "Figures":
        """Return the figures of a report; `CompressionError` where one of them was not measured."""
        change = report.change
        latency = report.latency
        rate = report.compression_rate
        if change is None or latency is None or latency.speed_up is None:
            raise incomplete(report)
        if rate is None or not report.macs or not report.baseline_macs:
            raise incomplete(report)
        return cls(
            accuracy=100 * report.accuracy,
            difference=100 * change.difference,
            interval=(100 * change.interval[0], 100 * change.interval[1]),
            speed_up=latency.speed_up,
            distinguishable=latency.verdict in ("faster", "slower"),
            macs=report.baseline_macs / report.macs,
            rate=rate,
        )


def ours(runs: Sequence[Figures]) -> Sequence[str]:
    """Return our figures of an arm: means over seeds; the difference to the dense network with its 95 % interval.

    With a single seed the interval is that of the images: what the seed changes is then unknown. A speed has a "?"
    where one of the seeds could not be told apart from the dense network.
    """
    differences = [run.difference for run in runs]
    low, high = student_interval(differences) if len(runs) > 1 else runs[0].interval
    accuracy = mean([run.accuracy for run in runs])
    doubt = "" if all(run.distinguishable for run in runs) else " ?"
    times = (mean([run.macs for run in runs]), mean([run.rate for run in runs]))
    difference = f"{mean(differences):+.2f} ({low:+.2f} to {high:+.2f})"
    speed_up = f"{mean([run.speed_up for run in runs]):.2f}{doubt}"
    return f"{accuracy:.2f} %", difference, speed_up, *(f"{value:.2f}" for value in times)


def main() -> None:
    """Compute missing runs and print their table."""
    given = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    given.add_argument("what", choices=("rates", *SEEDS), help="of fine-tuning, or the images the table is for")
    what = given.parse_args().what
    if what == "rates":
        try_rates()
        print(rates())
    else:
        remake(what)
        print(table(what))


if __name__ == "__main__":
    main()
