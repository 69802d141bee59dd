"""Points that were computed before: what an explorer draws before it has measured anything."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.knobs import knobs
from compedu.methods import METHODS, SmallDense
from compedu.methods.method import Method
from compedu.metrics import Report
from compedu.shipped import shipped
from compedu.sweeps.keys import point_keys
from compedu.sweeps.points import method_of
from compedu.sweeps.store import read_sweep


class StoredPoints(NamedTuple):
    """Reports of one method in the order of its knobs, and of its controls: small networks, random criterion."""

    points: tuple[Report, ...]
    controls: tuple[Report, ...]
    random_baseline: tuple[Report, ...]


def stored_points(
    method: type[Method],
    model: nn.Module,
    data: Dataset,
    split: str = "validation",
    paths: Iterable[Path] | None = None,
) -> StoredPoints:
    """Return what the files `paths`, by default the shipped sweeps, hold of `method` on these very weights and images.

    Points of an earlier version of the method or of the measurement do not count. Raises `CompressionError` for a file
    that is no sweep.
    """
    random_baseline = next((cls for cls in METHODS if cls.__name__ == method.random_baseline), None)
    return StoredPoints(
        *(
            () if cls is None else _of(cls, _found(cls, data, paths), model, data, split)
            for cls in (method, SmallDense, random_baseline)
        )
    )


def _found(cls: type[Method], data: Dataset, paths: Iterable[Path] | None) -> dict[str, Report]:
    """Return the reports by key of `paths`, by default of the shipped sweeps of `cls` on that data."""
    if paths is None:
        paths = sorted(shipped("data", "sweeps", data.name).glob(f"*/{cls.__name__}.jsonl"))
    return {key: report for path in paths for key, report in _reports(path, *_written(path)).items()}


def _written(path: Path) -> tuple[int, ...]:
    """Return what tells that another file stands there, or that it was written since."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=100)
def _reports(path: Path, *written: int) -> Mapping[str, Report]:
    """Return the reports of a file by their keys, read once while it stays as it is: every explorer asks for all."""
    return MappingProxyType(read_sweep(path).reports)


def _of(cls: type[Method], found: dict[str, Report], model: nn.Module, data: Dataset, split: str) -> tuple[Report, ...]:
    """Return copies of the reports of `cls` whose key is still that of their method: whose reader may change them."""
    methods = {}
    for key, report in found.items():
        if report.method.startswith(f"{cls.__name__}(") and (report.data, report.split) == (data.name, split):
            with suppress(ValueError):  # a pipeline, or knobs of an earlier version
                methods[key] = method_of(report.method, (cls,))
    current = point_keys(methods.values(), model, data, split)
    kept = sorted((key for key in methods if key in current), key=lambda key: _order(methods[key]))
    return tuple(deepcopy(found[key]) for key in kept)


def _order(method: Method) -> tuple[tuple[bool, float, str], ...]:
    """Return what sorts methods by their knobs: numbers by value, the others after them by their text."""
    values = (getattr(method, name) for name in knobs(method))
    return tuple((False, v, "") if isinstance(v, (int, float)) else (True, 0.0, repr(v)) for v in values)
