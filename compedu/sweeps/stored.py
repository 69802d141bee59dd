"""Stored points: what an explorer draws before it has measured anything."""

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
from compedu.methods.method import Method, inputs_key
from compedu.metrics import Report
from compedu.shipped import shipped
from compedu.sweeps.keys import point_keys_on
from compedu.sweeps.points import method_of
from compedu.sweeps.store import read_sweep


class StoredPoints(NamedTuple):
    """Reports of one method in the order of its knobs, and of its controls: small dense networks, random baseline."""

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
    """Return the points of `method` on exactly these weights and images in `paths`, by default the shipped sweeps.

    Points of an earlier version of the method or of the measurement do not count. Raises `CompressionError` for a file
    that is not a sweep.
    """
    random_baseline = next((cls for cls in METHODS if cls.__name__ == method.random_baseline), None)
    classes = (method, SmallDense, random_baseline)
    found = [{} if cls is None else _found(cls, data, paths) for cls in classes]
    inputs = inputs_key(model, data) if any(found) else ""  # hashed once, and only where there are points to find
    return StoredPoints(
        *(
            () if cls is None else _of(cls, reports, inputs, data.name, split)
            for cls, reports in zip(classes, found, strict=True)
        )
    )


def _found(cls: type[Method], data: Dataset, paths: Iterable[Path] | None) -> dict[str, Report]:
    """Return the reports by key of `paths`, by default of the shipped sweeps of `cls` on `data`."""
    if paths is None:
        paths = sorted(shipped("data", "sweeps", data.name).glob(f"*/{cls.__name__}.jsonl"))
    return {key: report for path in paths for key, report in _reports(path, *_written(path)).items()}


def _written(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=100)
def _reports(path: Path, *written: int) -> Mapping[str, Report]:
    """Return the reports of a file by their keys, cached while it stays unchanged: every explorer needs all."""
    return MappingProxyType(read_sweep(path).reports)


def _of(cls: type[Method], found: dict[str, Report], inputs: str, data: str, split: str) -> tuple[Report, ...]:
    """Return copies, which a caller may change, of the reports of `cls` whose key is still that of their method."""
    methods = {}
    for key, report in found.items():
        if report.method.startswith(f"{cls.__name__}(") and (report.data, report.split) == (data, split):
            with suppress(ValueError):  # a pipeline, or knobs of an earlier version
                methods[key] = method_of(report.method, (cls,))
    current = point_keys_on(methods.values(), inputs, split)
    kept = sorted((key for key in methods if key in current), key=lambda key: _order(methods[key]))
    return tuple(deepcopy(found[key]) for key in kept)


def _order(method: Method) -> tuple[tuple[bool, float, str], ...]:
    """Return the sort key of a method by its knobs: numbers by value, then others by their repr."""
    values = (getattr(method, name) for name in knobs(method))
    return tuple((False, v, "") if isinstance(v, (int, float)) else (True, 0.0, repr(v)) for v in values)
