"""A sweep as a file: one JSON line for each run that added points, and one for each finished point.

A run's line applies to the points after it and records their versions, machine and date.
Lines are appended, by one process at a time; of two with the same key the later one wins. `compact` drops the other.
"""

import contextlib
import itertools
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
from compedu.reading import refuse_unending
from compedu.writing import alone, append_lines, write_whole

FORMAT = 2  # raised with the names of entries: a report of format 1 has `coded_bytes`, forms of other names
RECORD = b'{"'  # start of every line
FIRST = RECORD + b'run"'  # start of the first one
PACKAGES = ("torch", "numpy", "joblib")


@dataclass(frozen=True)
class Failure:
    """A point that could not be computed: the error's class and message; `final` if trying again cannot help."""

    method: str
    kind: str
    message: str
    final: bool


def begins_run(record: dict[str, Any], runs: list[dict[str, Any]]) -> bool:
    """Add the line of a run to `runs` and tell whether `record` is one; any other line must follow one.

    Raises `ValueError` for another format, and if no line of a run came first.
    """
    if "run" in record:
        found = record["run"]["format"]
        if found != FORMAT:
            cure = "an older version wrote it, compute it again" if found < FORMAT else "update compedu"
            raise ValueError(f"format {found}, this version reads {FORMAT}: {cure}")
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
        """Add one line; raise `ValueError` or `KeyError` for anything but a record."""
        if begins_run(record, self.runs):
            return
        key = record["key"]
        if "failure" in record:
            self.failures[key] = Failure(**record["failure"])
            return
        self.reports[key] = Report.from_dict(record["report"])
        self.failures.pop(key, None)


class Records(Protocol):
    """The content of a file of records: the runs that added to it, and the records that `add` collects."""

    runs: list[dict[str, Any]]

    def add(self, record: dict[str, Any]) -> None:
        """Add one line; raise `ValueError` or `KeyError` for anything but a record."""


Found = TypeVar("Found", bound=Records)


def read_sweep(path: str | os.PathLike) -> StoredSweep:
    """Return the content of the sweep file `path`; errors are those of `read_records`."""
    return read_records(path, StoredSweep())


def read_records(path: str | os.PathLike, found: Found) -> Found:
    """Add the records of the file `path` to `found`; a last record that an interruption cut off does not count.

    Raises `CompressionError` for a file that no `Store` wrote and, naming the line, for anything in it that is not a
    record.
    """
    for number, line in enumerate(_lines(Path(path))[0], start=1):
        try:
            found.add(json.loads(line))
        except Exception as error:  # a foreign line may make the classes that read it raise anything
            cure = "delete this line, its point is then computed again, or " if number > 1 else ""
            raise CompressionError(
                f"{path}, line {number}, is not a record ({type(error).__name__}: {error}); {cure}choose another file"
            ) from error
    return found


def _lines(path: Path) -> tuple[list[bytes], bytes]:
    """Return the records of a file, each as a line, and the rest of one that an interruption cut off.

    A record without its line end is complete: no proper prefix of a JSON object is valid.
    """
    _refuse_foreign(path)
    *whole, last = path.read_bytes().split(b"\n")
    if not last:
        return whole, b""
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(last)
        return [*whole, last], b""
    if not last.startswith(RECORD[: len(last)]):
        raise CompressionError(f"{path}, line {len(whole) + 1}, is not a record; choose another file")
    return whole, last


def _refuse_foreign(path: Path) -> None:
    """Raise `CompressionError` for anything but an ordinary file that begins as a store does."""
    refuse_unending(path, "name another one for the records")
    with path.open("rb") as file:
        start = file.read(len(FIRST))
    if start != FIRST[: len(start)]:
        raise CompressionError(
            f"{path} is not a file of records, and stays as it is: no line of versions and machine comes first, but "
            f"line 1 begins with {start!r}; choose another file"
        )


class Store(Generic[Found]):
    """A file of records to append to: `stored`, initially `empty`, collects what it held, `append` adds to the file.

    Several processes may add to one file.
    """

    def __init__(self, path: str | os.PathLike, empty: Found | None = None):
        self.path = Path(path)
        self.stored = StoredSweep() if empty is None else empty
        if self.path.exists():
            read_records(self.path, self.stored)
        self._end: int | None = None  # of the file, when this store added to it last

    def append(self, record: dict[str, Any]) -> None:
        """Write one line at once, preceded by the line of this run if the last line is not from this run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.path):
            records = [record] if self._repair() == self._end else [{"run": conditions()}, record]
            texts = (json.dumps(one, allow_nan=False, ensure_ascii=False) + "\n" for one in records)
            self._end = append_lines(self.path, "".join(texts).encode())

    def _repair(self) -> int:
        """Truncate a record that an interruption cut off, end a last line without end, and return the file size."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            ended = file.read() in (b"", b"\n")
        if ended:
            _refuse_foreign(self.path)
            return size
        _whole, torn = _lines(self.path)
        if not torn:
            return append_lines(self.path, b"\n")
        os.truncate(self.path, size - len(torn))
        return size - len(torn)


def compact(path: Path) -> None:
    """Rewrite the file of a sweep so that it holds each point once, the newest, below the line of its run."""
    with alone(path):
        lines = _lines(path)[0]
        records = [json.loads(line) for line in lines]
        newest = {record.get("key"): index for index, record in enumerate(records)}
        kept = [index for index, record in enumerate(records) if "run" in record or newest[record["key"]] == index]
        # A run none of whose points are left says nothing.
        empty = {one for one, after in itertools.pairwise(kept) if "run" in records[one] and "run" in records[after]}
        write_whole(path, b"".join(lines[index] + b"\n" for index in kept if index not in empty))


def conditions() -> dict[str, Any]:
    """Return the versions, the machine and the date that results depend on."""
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "versions": {"compedu": __version__} | {name: version(name) for name in PACKAGES},
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
