"""A replication: the survey's table of low-rank networks, beside a plain, an Inception and a residual network of ours.

    python -m compedu.replications.low_rank_networks glyphs --rates
    python -m compedu.replications.low_rank_networks glyphs
    COMPEDU_DATA=FOLDER python -m compedu.replications.low_rank_networks cifar10 --rates
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
The learning rate of fine-tuning is the one of `RATES` with the lowest loss on validation images, for each network,
decomposition and data set, after as many epochs on at most `TUNED_IMAGES` images (`--rates`); what starts anew is
trained as the dense network was, at its rate. The test images are for the figures alone; those of a first run of CP, at
one rate for all networks, had been seen before the rates were chosen. A seed changes the initial weights, where there
are new ones, and the order of the images in training.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compedu import datasets
from compedu.columns import Columns
from compedu.metrics import Report, Timing
from compedu.metrics.accuracy import Interval
from compedu.metrics.seeds import mean, student_interval
from compedu.networks.shipped import trained
from compedu.replications.low_rank_arms import (
    ARMS,
    COMPARED,
    DECOMPOSED,
    DENSE,
    RATES,
    SEEDS,
    TUNED_IMAGES,
    TUNED_SPLIT,
    Compared,
)
from compedu.replications.stored import baseline_accuracy, incomplete, stored_reports
from compedu.sweeps.running import sweep

SPLIT = "test"
TIMING = Timing(budget_s=5.0)


def remake(data_name: str) -> None:
    """Compute and store missing runs on a data set, one arm of all networks after the other."""
    data = datasets.load(data_name)
    for arm in ARMS:
        for one in COMPARED:
            dense = trained(one.network, data_name)
            points = one.runs(data_name)[arm]
            told(one, sweep(points, dense, data, split=SPLIT, speed=TIMING, store=one.path(data_name)))


def try_rates(data_name: str) -> None:
    """Compute and store missing runs with each rate of fine-tuning, one seed."""
    data = datasets.load(data_name)
    if len(data.x_train) > TUNED_IMAGES:
        data = data.shortened(train=TUNED_IMAGES)
    for one in COMPARED:
        dense = trained(one.network, data_name)
        points = [method for arm in DECOMPOSED for method in one.at_rates(arm, data_name)]
        told(one, sweep(points, dense, data, split=TUNED_SPLIT, store=one.rates_path(data_name)))


def told(one: Compared, running: Iterator[Report]) -> None:
    """Print the accuracy of each run as it comes."""
    for report in running:
        print(f"{one.network}: {report.method}: {report.accuracy:.2%}", flush=True)


def rates(data: str) -> Columns:
    """Return a table of the losses with each rate of fine-tuning."""
    head = ("loss on validation images", "", *(f"rate {rate:g}" for rate in RATES))
    tried = [(one, arm) for one in COMPARED for arm in DECOMPOSED]
    lines = [(one.network, arm, *(f"{loss:.4f}" for loss in one.losses(arm, data))) for one, arm in tried]
    return Columns([head, *lines], left={0, 1})


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
    given.add_argument("data", choices=SEEDS, help="the images: both come with dense networks to compare with")
    given.add_argument("--rates", action="store_true", help="try the learning rates of fine-tuning, which come first")
    asked = given.parse_args()
    if asked.rates:
        try_rates(asked.data)
        print(rates(asked.data))
    else:
        remake(asked.data)
        print(table(asked.data))


if __name__ == "__main__":
    main()
