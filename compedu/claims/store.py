"""Runs of an experiment as a file: like a sweep's, one line for each session on a machine, one for each run."""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from compedu.sweeps.store import Store, begins_run, read_records


@dataclass(frozen=True)
class Run:
    """What one seed gave at one setting: for each arm its measured `outcomes` by name, and what it did, as text."""

    setting: str
    seed: int
    outcomes: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, str] = field(default_factory=dict)

    def of(self, arm: str, measure: str) -> float:
        """Return one outcome; `KeyError` names what there is."""
        try:
            return self.outcomes[arm][measure]
        except KeyError as error:
            known = {name: sorted(values) for name, values in self.outcomes.items()}
            where = f"the run of {self.setting}, seed {self.seed}"
            raise KeyError(f"{where}, has no {arm}: {measure}; it has {known}") from error


def by_seed(
    runs: Sequence[Run], value: Callable[[Run], float], mean: Callable[[Iterable[float]], float] = statistics.fmean
) -> tuple[float, ...]:
    """Return one number for each seed, in order: the mean over settings of what `value` says of its runs."""
    return tuple(mean([value(run) for run in runs if run.seed == seed]) for seed in sorted({run.seed for run in runs}))


@dataclass(frozen=True)
class StoredRuns:
    """What an experiment's file holds: under which conditions it was added to, and its runs by key."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    by_key: dict[str, Run] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Take up one line; raise `ValueError` or `KeyError` for a record that is none."""
        if begins_run(record, self.runs):
            return
        self.by_key[record["key"]] = Run(**record["made"])


def read_runs(path: str | os.PathLike) -> StoredRuns:
    """Return what the file `path` holds; errors are those of `compedu.sweeps.store.read_records`."""
    return read_records(path, StoredRuns())


class RunStore(Store[StoredRuns]):
    """The file of an experiment, open for more runs."""

    def __init__(self, path: str | os.PathLike):
        super().__init__(path, StoredRuns())

    def keep(self, key: str, run: Run) -> None:
        """Write a run down."""
        self.append({"key": key, "made": asdict(run)})
        self.stored.by_key[key] = run
