"""Runs of an experiment as a file: as for sweeps, one line for each session on a machine, one for each run."""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from compedu.sweeps.store import Store, begins_run, read_records


@dataclass(frozen=True)
class Run:
    """The results of one seed at one setting: for each arm its `outcomes` by name, and its `settings` as a string."""

    setting: str
    seed: int
    outcomes: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, str] = field(default_factory=dict)

    def of(self, arm: str, measure: str) -> float:
        """Return one outcome; `KeyError` lists those there are."""
        try:
            return self.outcomes[arm][measure]
        except KeyError as error:
            known = {name: sorted(values) for name, values in self.outcomes.items()}
            where = f"the run of {self.setting}, seed {self.seed}"
            raise KeyError(f"{where}, has no {arm}: {measure}; it has {known}") from error


def by_seed(
    runs: Sequence[Run], value: Callable[[Run], float], mean: Callable[[Iterable[float]], float] = statistics.fmean
) -> tuple[float, ...]:
    """Return the mean of `value` over the settings, for each seed in order."""
    return tuple(mean([value(run) for run in runs if run.seed == seed]) for seed in sorted({run.seed for run in runs}))


def by_setting(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by the name of their setting, both in the order in which they come."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.setting, []).append(run)
    return found


@dataclass(frozen=True)
class StoredRuns:
    """The content of an experiment's file: its sessions with their conditions, and its runs by key."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    by_key: dict[str, Run] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Add one line; raise `ValueError` or `KeyError` for anything but a record."""
        if begins_run(record, self.runs):
            return
        self.by_key[record["key"]] = Run(**record["made"])


def read_runs(path: str | os.PathLike) -> StoredRuns:
    """Return the content of the file `path`; errors are those of `compedu.sweeps.store.read_records`."""
    return read_records(path, StoredRuns())


class RunStore(Store[StoredRuns]):
    """The file of an experiment, open for more runs."""

    def __init__(self, path: str | os.PathLike):
        super().__init__(path, StoredRuns())

    def keep(self, key: str, run: Run) -> None:
        """Store a run."""
        self.append({"key": key, "made": asdict(run)})
        self.stored.by_key[key] = run
