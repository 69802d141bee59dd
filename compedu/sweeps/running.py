"""Running a sweep: every point once, on one torch thread, in parallel processes; timing afterwards, one by one."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import joblib
from torch import nn
from tqdm.std import tqdm

from compedu.datasets.dataset import Dataset
from compedu.deployment import deploy
from compedu.errors import CompressionError
from compedu.methods.method import Method
from compedu.metrics import Report, Timing, machine
from compedu.metrics.latency import time_networks
from compedu.processes import KILLED, end_with_parent
from compedu.reproducible import torch_threads
from compedu.sweeps.keys import point_keys
from compedu.sweeps.models import KeptModels
from compedu.sweeps.store import Failure, Store
from compedu.sweeps.work import Inputs, Outcome, Point, compute


def sweep(
    methods: Iterable[Method],
    model: nn.Module,
    data: Dataset,
    *,
    split: str = "validation",
    workers: int | None = None,
    speed: bool | Timing = False,
    store: str | Path | None = None,
) -> "Sweep":
    """Return an iterator over the reports of all `methods` on `model`, which is also the baseline of each.

    Points in the file `store` come first and are not computed again; the others come as they are done, and are in the
    file before they are yielded. Without `store` nothing is saved. `workers` are processes on this machine, at most one
    per core; None means one, or the setting of `joblib.parallel_config` around the loop, a Dask cluster included. The
    results do not depend on it, because every point runs on one thread. With `speed` the points are timed one by one
    after all are computed, and yielded then. A point that raises is recorded in `failures` and in the file, and the
    sweep continues. The reports hold no lists of images. Raises `ValueError` for more workers than this machine has
    cores, and `CompressionError` if one of them was killed.
    """
    _refuse_crowd(workers)
    timing = (speed if isinstance(speed, Timing) else Timing()) if speed else None
    points = point_keys(methods, model, data, split)
    return Sweep(_Run(points, Inputs(model, data, split), workers, timing, None if store is None else Store(store)))


def _refuse_crowd(workers: int | None) -> None:
    most = max(2, joblib.cpu_count())  # always two, so that parallel sweeps can be tried anywhere
    if workers is not None and (type(workers) is not int or not 1 <= workers <= most):
        raise ValueError(
            f"workers must be a whole number from 1 to {most}, one process for each core of this machine, or None, "
            f"got {workers!r}"
        )


class Sweep(Iterator[Report]):
    """A running sweep: iterate over it; `failures` collects points that fail, now or in earlier runs."""

    def __init__(self, run: "_Run"):
        self.failures = run.failures
        self._reports = run.reports()

    def __next__(self) -> Report:
        return next(self._reports)


class _Run:
    """The work of a sweep. It holds no reference to the `Sweep` of the caller: dropping that one ends the work."""

    def __init__(
        self, points: dict[str, Method], inputs: Inputs, workers: int | None, timing: Timing | None, store: Store | None
    ):
        self.points = points
        self.inputs = inputs
        self.workers = workers
        self.timing = timing
        self.store = store
        self.failures: list[Failure] = []

    def reports(self) -> Iterator[Report]:
        """Yield the report of each point as soon as it is complete."""
        reports = {} if self.store is None else dict(self.store.stored.reports)
        complete = [key for key in self.points if key in reports and self._is_complete(reports[key])]
        yield from (reports[key] for key in complete)
        with _models_folder(self.store) as folder:
            models = KeptModels(folder)
            todo = self._todo(reports)
            for outcome in _shown(self._outcomes(todo), "accuracy and size", len(todo)):
                if self._record(outcome, models):
                    reports[outcome.key] = outcome.report
                    if self.timing is None:
                        yield outcome.report
            untimed = [key for key in self.points if key in reports and not self._is_complete(reports[key])]
            yield from (self._with_time(key, reports[key], models) for key in _shown(untimed, "speed", len(untimed)))

    def _is_complete(self, report: Report) -> bool:
        """Tell whether nothing is left to measure; `speed` asks for the time, with its settings and on this machine."""
        wanted = self.timing
        latency = report.latency
        return wanted is None or (
            latency is not None
            and (latency.batch_size, latency.threads) == (wanted.batch_size, wanted.threads)
            and report.machine["cpu"] == machine()["cpu"]
        )

    def _todo(self, reports: dict[str, Report]) -> list[Point]:
        """Return the points without a report; a final failure is not tried again."""
        failed = {} if self.store is None else self.store.stored.failures
        final = {key: failure for key, failure in failed.items() if key in self.points and failure.final}
        self.failures.extend(final.values())
        return [Point(key, method) for key, method in self.points.items() if key not in reports and key not in final]

    def _outcomes(self, points: list[Point]) -> Iterator[Outcome]:
        """Compute `points`, each as soon as a process is free."""
        if not points:
            return
        parallel = joblib.Parallel(
            n_jobs=self.workers, return_as="generator_unordered", mmap_mode="c", initializer=end_with_parent
        )
        wanted = self.timing is not None
        outcomes = parallel(joblib.delayed(compute)(self.inputs, point, wanted) for point in points)
        try:
            # Not `yield from`: a caller that stops early would close the outcomes outside of `finally`.
            for outcome in outcomes:  # noqa: UP028
                yield outcome
        except BrokenExecutor as error:
            raise CompressionError(f"{KILLED}; {self._kept()}") from error
        finally:
            with warnings.catch_warnings():  # a caller that stops early knows that results are discarded
                warnings.filterwarnings("ignore", message=".*adjusting the input task iterator", category=UserWarning)
                outcomes.close()

    def _kept(self) -> str:
        """Say what is saved of a sweep that ends early, and how to resume it."""
        if self.store is None:
            return (
                "nothing was saved, because no store was named: name one, and the same sweep resumes where it stopped"
            )
        return f"all finished points are in {self.store.path}, and the same sweep resumes with the others"

    def _record(self, outcome: Outcome, models: KeptModels) -> bool:
        """Record the outcome of a point; tell whether it has a report."""
        if outcome.model is not None:
            models.keep(outcome.key, outcome.model)
        if outcome.failure is not None:
            self.failures.append(outcome.failure)
        self._append(outcome.key, outcome.report or outcome.failure)
        return outcome.report is not None

    def _with_time(self, key: str, report: Report, models: KeptModels) -> Report:
        """Return the report with the time of its model, measured while no other process runs."""
        inputs = self.inputs
        with torch_threads(1):
            model = models.load(key, inputs.model) or self.points[key](inputs.model, inputs.data)
            pair = inputs.baseline.deployed, inputs.baseline.again
            deployed = deploy(model, inputs.data.example)
            latency = time_networks(deployed, inputs.data.split(inputs.split)[0], pair, self.timing)
            report = replace(report, latency=latency, machine=machine())
        self._append(key, report)
        models.drop(key)
        return report

    def _append(self, key: str, result: Report | Failure) -> None:
        if self.store is not None:
            made = {"failure": asdict(result)} if isinstance(result, Failure) else {"report": result.as_dict()}
            self.store.append({"key": key} | made)


def _shown(items: Iterable[Any], what: str, count: int) -> Iterator[Any]:
    """Yield `items` under a progress bar on a terminal."""
    yield from tqdm(items, desc=what, total=count, unit="point", disable=None, leave=False)


@contextlib.contextmanager
def _models_folder(store: Store | None) -> Iterator[Path]:
    """Yield a folder for models that are still to be timed: next to the store, which keeps them, or a temporary one."""
    if store is not None:
        yield store.path.with_name(f"{store.path.name}.models")
        return
    with tempfile.TemporaryDirectory(prefix="compedu-sweep-") as folder:
        yield Path(folder)
