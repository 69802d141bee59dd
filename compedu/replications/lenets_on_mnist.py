"""A replication: LeNet-300-100 and LeNet-5 on MNIST, pruned at least twelvefold.

    COMPEDU_DATA=FOLDER python -m compedu.replications.lenets_on_mnist

computes the runs that are not stored yet and prints all of them. The settings were chosen on the validation images,
with another seed; the test images were used once, for the figures.

The paper prunes in rounds, by a threshold, under an L2 penalty; here the sparsity rises along a cubic schedule, and
LAMP shares it out. The pruned networks were trained longer than the dense one, by the epochs of the schedule.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from compedu import datasets
from compedu.methods import GradualPruning
from compedu.methods.method import Method
from compedu.metrics import Report, measure
from compedu.networks.shipped import trained
from compedu.replications.stored import baseline_accuracy, stored_reports
from compedu.reproducible import torch_threads
from compedu.shipped import shipped_sweep
from compedu.sweeps.keys import point_key
from compedu.sweeps.store import Store

DATA = "mnist"
SPLITS = ("validation", "test")
SEEDS = 3


class Replication(NamedTuple):
    """A network, how it is pruned here, and the paper's test errors in percent, dense and pruned."""

    network: str
    method: Method
    paper: tuple[float, float]

    @property
    def path(self) -> Path:
        """The file of the runs, such as data/sweeps/mnist/lenet5/replication.jsonl."""
        return shipped_sweep(DATA, self.network, "replication")

    def runs(self) -> list[Method]:
        """Return the method with each seed."""
        return [replace(self.method, seed=seed) for seed in range(SEEDS)]


REPLICATIONS = (  # Han, Pool, Tran, Dally 2015, arXiv:1506.02626, table 1
    Replication("lenet300", GradualPruning(sparsity=0.93, budget="lamp", epochs=15, batch=128, shift=1), (1.64, 1.59)),
    Replication("lenet5", GradualPruning(sparsity=0.93, budget="lamp", epochs=8, batch=128, shift=1), (0.80, 0.77)),
)


def remake() -> None:
    """Compute and store missing runs: each is trained once and measured on validation and test images."""
    data = datasets.load(DATA)
    for replication in REPLICATIONS:
        dense = trained(replication.network, DATA)
        store = Store(replication.path)
        for method in replication.runs():
            keys = {split: point_key(method, dense, data, split) for split in SPLITS}
            if all(key in store.stored.reports for key in keys.values()):
                continue
            with torch_threads(1):
                small = method(dense, data)
                for split, key in keys.items():
                    report = measure(small, data, baseline=dense, split=split, speed=False)
                    store.append({"key": key, "report": replace(report, newly_wrong=None, newly_right=None).as_dict()})


def stored_runs(replication: Replication, split: str) -> list[Report]:
    """Return the stored reports of a replication on one split, by seed."""
    return stored_reports(replication.path, replication.runs(), split)


def error(report: Report) -> float:
    """Return the error of the pruned network in percent."""
    return 100 * (1 - report.accuracy)


def dense_error(report: Report) -> float:
    """Return the error of the dense network on the same images in percent."""
    return 100 * (1 - baseline_accuracy(report))


def summary(replication: Replication) -> str:
    """Return the results of a replication next to the paper's figures."""
    lines = [f"{replication.network} on {DATA}: {replication.method!r}"]
    for split in SPLITS:
        lines += [_line(split, stored_runs(replication, split))]
    dense, pruned = replication.paper
    paper = f"  paper, test error: {dense:.2f} % dense, {pruned:.2f} % with 12 times fewer weights [Han 2015, table 1]"
    return "\n".join([*lines, paper])


def _line(split: str, reports: Sequence[Report]) -> str:
    errors = [error(report) for report in reports]
    rate = min(report.compression_rate for report in reports)
    each = ", ".join(f"{value:.2f}" for value in errors)
    return (
        f"  {split} error: {dense_error(reports[0]):.2f} % dense, {statistics.median(errors):.2f} % pruned "
        f"(seeds: {each}), {rate:.1f} times fewer parameters"
    )


if __name__ == "__main__":
    remake()
    print("\n".join(map(summary, REPLICATIONS)))
