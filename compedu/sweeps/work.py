"""One point of a sweep, in any process, and what all points share."""

import threading
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from compedu import files
from compedu.datasets.dataset import Dataset
from compedu.errors import Cancelled
from compedu.identity import identity
from compedu.methods.method import Method
from compedu.metrics import Baseline, Report, measure
from compedu.reproducible import torch_threads
from compedu.sweeps.store import Failure


class Point(NamedTuple):
    """A method to run, and the key of its result."""

    key: str
    method: Method


class Outcome(NamedTuple):
    """The outcome of a point: a report, and the model file if it is to be timed, or a failure."""

    key: str
    report: Report | None = None
    failure: Failure | None = None
    model: bytes | None = None


class Inputs:
    """What all points of a sweep share. A process that receives it many times builds it, and its baseline, once."""

    def __init__(self, model: nn.Module, data: Dataset, split: str):
        self.model = model
        self.data = data
        self.split = split
        self.origin = (identity(model), data.digest, split)

    @cached_property
    def baseline(self) -> Baseline:
        """The model as the baseline of all points."""
        with torch_threads(1):
            return Baseline.of(self.model, self.data, self.split)

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The data set's fields with NumPy arrays for tensors: joblib memory-maps those in its processes."""
        values = {field.name: getattr(self.data, field.name) for field in fields(self.data)}
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()}

    def __reduce__(self) -> tuple:
        return received, (self.origin, self.model, self.arrays)

    def __sizeof__(self) -> int:
        return sum(value.nbytes for value in self.arrays.values() if isinstance(value, np.ndarray))  # used by Dask


_received: dict[tuple, Inputs] = {}


def received(origin: tuple, model: nn.Module, arrays: dict[str, Any]) -> Inputs:
    """Return the inputs that another process sent, the same object until another one arrives."""
    if origin not in _received:
        tensors: dict[str, Any] = {
            name: torch.from_numpy(value) for name, value in arrays.items() if isinstance(value, np.ndarray)
        }
        _received.clear()
        _received[origin] = Inputs(model, Dataset(**arrays | tensors), origin[-1])
    return _received[origin]


_one_at_a_time = threading.Lock()  # torch's number of threads, and torch.fx while it traces, belong to the process


def compute(inputs: Inputs, point: Point, keep: bool) -> Outcome:
    """Compress and measure on one thread; return the model file too if `keep`. Errors become failures.

    Threads of one process wait for each other: only processes compute in parallel.
    """
    with _one_at_a_time:
        return _computed(inputs, point, keep)


def _computed(inputs: Inputs, point: Point, keep: bool) -> Outcome:
    baseline = inputs.baseline
    try:
        with torch_threads(1):
            model = point.method(inputs.model, inputs.data)
            report = measure(model, inputs.data, baseline=baseline, split=inputs.split, speed=False)
            written = files.model_bytes(model) if keep else None
    except Cancelled:
        raise
    except Exception as error:  # a method may raise anything; the other points are not lost
        # A refused value will be refused again; memory that ran out may be free the next time.
        final = isinstance(error, ValueError)
        return Outcome(point.key, failure=Failure(repr(point.method), type(error).__name__, str(error), final))
    return Outcome(point.key, replace(report, newly_wrong=None, newly_right=None), None, written)
