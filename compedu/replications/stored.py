"""The stored reports of a replication, and what they say of the network that the runs began with."""

from collections.abc import Iterable
from pathlib import Path

from compedu.errors import CompressionError
from compedu.methods.method import Method
from compedu.metrics import Report
from compedu.sweeps.store import read_sweep


def stored_reports(path: Path, methods: Iterable[Method], split: str) -> list[Report]:
    """Return the reports in the file `path` of those of `methods` that are stored for `split`, in their order."""
    found = {report.method: report for report in read_sweep(path).reports.values() if report.split == split}
    wanted = [repr(method) for method in methods]
    return [found[text] for text in wanted if text in found]


def baseline_accuracy(report: Report) -> float:
    """Return the accuracy of the baseline on the same images, 0..1; `CompressionError` where it was not measured."""
    if report.change is None:
        raise incomplete(report)
    return report.accuracy - report.change.difference


def incomplete(report: Report) -> CompressionError:
    """Return the error for a stored report that lacks what is asked of it."""
    return CompressionError(f"the stored report of {report.method} is incomplete: remove it and compute it again")
