"""The student of a distillation: the spec of a network, a given network, or a method applied to the teacher."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from torch import nn

from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.identity import identity
from compedu.knobs import Knob, field_of
from compedu.methods.method import Method
from compedu.methods.task import Task, copied
from compedu.networks import build
from compedu.networks.fitting import network_for


@dataclass(frozen=True)
class GivenNetwork:
    """A copy of a network that was given as a student; its `digest` identifies it."""

    kind: str
    digest: str
    network: nn.Module = field(compare=False)

    @classmethod
    def of(cls, network: nn.Module) -> "GivenNetwork":
        """Keep a copy of `network`."""
        return cls(type(network).__name__, identity(network), copied(network).eval())

    def __repr__(self) -> str:
        return f"<{self.kind} {self.digest}>"


Student = str | Method | nn.Module | GivenNetwork


@dataclass(frozen=True)
class StudentKnob(Knob):
    """A knob that takes the spec of a network, a network, or a method."""

    def _kept_one(self, value: Any) -> Any:
        return GivenNetwork.of(value) if isinstance(value, nn.Module) else super()._kept_one(value)

    def _allows_one(self, value: Any) -> bool:
        return isinstance(value, (GivenNetwork, Method)) or super()._allows_one(value)

    def _parse_one(self, text: str) -> Any:
        from compedu.methods.parsing import (  # which lists all methods, those with students among them
            METHODS,
            method_of,
        )

        known = {cls.__name__ for cls in METHODS}
        return method_of(text) if text.partition("(")[0].strip() in known else super()._parse_one(text)

    def __str__(self) -> str:
        return "the spec of a network, a network, or a method that makes it from the teacher"


def student_knob(*, default: str, help: str) -> Any:
    """Declare a field of a method as a student."""
    return field_of(StudentKnob(default, help))


@lru_cache
def check_student(spec: str, where: str) -> None:
    """Raise `ValueError` for a spec that names no network; `where` names the knob."""
    try:
        build(spec)
    except ValueError as error:
        raise ValueError(f"{where} must be the spec of a network: {error}") from error


def network_of(spec: str, data: Dataset, classes: int, seed: int, where: str) -> nn.Module:
    """Return a new network for the images of `data`, drawn by `seed`.

    Raises `CompressionError` for a spec that cannot be built for them; `where` names the knob.
    """
    try:
        return network_for(spec, data, classes=classes, seed=seed)
    except ValueError as error:
        raise CompressionError(f"{where} {spec!r} cannot be built for images of {data.name!r}: {error}") from error


def student_of(student: Student, task: Task, classes: int, seed: int, where: str) -> nn.Module:
    """Return the untrained student: a new network by `seed`, a copy of a given one, or a copy of the compressed
    teacher.

    Layers that a given network or a method skipped, and channels that it removed, are recorded in `task`; a given
    network also becomes the one that the result is verified against. Raises `CompressionError` for a spec that cannot
    be built for the images of the task; `where` names the knob.
    """
    if isinstance(student, str):
        return network_of(student, task.data, classes, seed, where)
    if isinstance(student, Method):
        # A method of the user's may return the network that it was given, or one that it keeps.
        made = copied(student(task.model, task.data))
        known = len(compression_of(task.model).skipped)
    else:
        made = copied(student.network)
        task.source = student.network
        known = 0
    before = compression_of(made)
    task.skipped.extend(before.skipped[known:])
    task.removed.extend(before.removed)
    return made
