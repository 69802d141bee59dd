"""A sweep as a file: one JSON line for each run that added points, and one for each point that is done.

A run's line holds for the points after it and says with which versions, on which machine and when they were computed.
Lines are only ever appended; of two with the same key the later one counts.
"""

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from compedu import __version__
from compedu.errors import CompressionError
from compedu.metrics import Report, machine

FORMAT = 1
PACKAGES = ("torch", "numpy", "joblib")


@dataclass(frozen=True)
class Failure:
    """A point that could not be computed: the error's class and message; `final` where trying again cannot help."""

    method: str
    kind: str
    message: str
    final: bool


def begins_run(record: dict[str, Any], runs: list[dict[str, Any]]) -> bool:
    """Add the line of a run to `runs` and tell whether `record` is one; any other line must stand behind one.

    Raises `ValueError` for another format, and where no line of a run came first.
    """
    if "run" in record:
        if record["run"]["format"] != FORMAT:
            raise ValueError(f"format {record['run']['format']}, this version reads {FORMAT}: update compedu")
        runs.append(record["run"])
        return True
    if not runs:
        raise ValueError("no line of versions and machine comes first")
    return False


@dataclass(frozen=True)
class StoredSweep:
    """What a sweep's file holds: its runs in order, and by key the reports and failures."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Take up one line; raise `ValueError` or `KeyError` for a record that is none."""
        if begins_run(record, self.runs):
            return
        key = record["key"]
        if "failure" in record:
            self.failures[key] = Failure(**record["failure"])
            return
        self.reports[key] = Report.from_dict(record["report"])
        self.failures.pop(key, None)


class Records(Protocol):
    """What a file of records holds: the runs that added to it, and whatever `add` makes of a line."""

    runs: list[dict[str, Any]]

    def add(self, record: dict[str, Any]) -> None:
        """Take up one line; raise `ValueError` or `KeyError` for a record that is none."""


Found = TypeVar("Found", bound=Records)


def read_sweep(path: str | os.PathLike) -> StoredSweep:
    """Return what the sweep's file `path` holds; errors are those of `read_records`."""
    return read_records(path, StoredSweep())


def read_records(path: str | os.PathLike, found: Found) -> Found:
    """Add to `found` what the file `path` holds; a last line without an end, cut by an interruption, does not count.

    Raises `CompressionError`, naming the line, for anything else that is not a whole record.
    """
    for number, line in enumerate(_whole_lines(Path(path)), start=1):
        try:
            found.add(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise CompressionError(
                f"{path}, line {number}, is no record ({type(error).__name__}: {error}); delete this line, "
                "its point is then computed again, or choose another file"
            ) from error
    return found


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is no whole line


class Store(Generic[Found]):
    """A file of records, open for more: `stored`, which begins as `empty`, is what it held, `append` adds to it."""

    def __init__(self, path: str | os.PathLike, empty: Found | None = None):
        self.path = Path(path)
        self.stored = StoredSweep() if empty is None else empty
        if self.path.exists():
            read_records(self.path, self.stored)
        self.started = False

    def append(self, record: dict[str, Any]) -> None:
        """Write one line in one piece, after the line of this run."""
        if not self.started:
            self._start()
        line = json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def _start(self) -> None:
        """Cut off what an interruption left of a line; write under which conditions the points to come are made."""
        self.started = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            os.truncate(self.path, sum(len(line) + 1 for line in _whole_lines(self.path)))
        self.append({"run": conditions()})


def conditions() -> dict[str, Any]:
    """Return the versions, the machine and the date that figures depend on."""
    return {
        "format": FORMAT, "python": platform.python_version(),
        "versions": {"compedu": __version__} | {name: version(name) for name in PACKAGES},
        "machine": machine(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }

