"""The student of a distillation: a network in words, a given network, or what a method makes of the teacher."""

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from torch import nn

from compedu.compression import compression_of
from compedu.errors import CompressionError
from compedu.identity import identity
from compedu.knobs import Knob
from compedu.methods.method import Method
from compedu.methods.task import Task, copied
from compedu.networks import build
from compedu.networks.fitting import network_for


@dataclass(frozen=True)
class GivenNetwork:
    """A network that was given as a student, as it was then; its `digest` tells it from others."""

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
    """A knob that takes a network in words, a network, or a method."""

    def _kept_one(self, value: Any) -> Any:
        return GivenNetwork.of(value) if isinstance(value, nn.Module) else super()._kept_one(value)

    def _allows_one(self, value: Any) -> bool:
        return isinstance(value, (GivenNetwork, Method)) or super()._allows_one(value)

    def __str__(self) -> str:
        return "a network in words, a network, or a method that makes it of the teacher"


def student_knob(*, default: str, help: str) -> Any:
    """Declare a field of a method as a student."""
    return dataclasses.field(default=default, metadata={"knob": StudentKnob(default, help)})


@lru_cache
def check_student(spec: str, where: str) -> None:
    """Raise `ValueError` for words that name no network; `where` names the knob."""
    try:
        build(spec)
    except ValueError as error:
        raise ValueError(f"{where} must be a network in words: {error}") from error


def student_of(student: Student, task: Task, classes: int, seed: int, where: str) -> nn.Module:
    """Return the student as it begins: a new network by `seed`, a copy of a given one, or the compressed teacher.

    What a given network or a method left out or removed is noted in `task`, and what the result is later compared with
    is the given network. Raises `CompressionError` for words that cannot be built for the images of the task; `where`
    names the knob.
    """
    if isinstance(student, str):
        try:
            return network_for(student, task.data, classes=classes, seed=seed)
        except ValueError as error:
            raise CompressionError(
                f"{where} {student!r} cannot be built for images of {task.data.name!r}: {error}"
            ) from error
    if isinstance(student, Method):
        made = student(task.model, task.data)
        known = len(compression_of(task.model).skipped)
    else:
        made = copied(student.network)
        task.source = student.network
        known = 0
    before = compression_of(made)
    task.skipped.extend(before.skipped[known:])
    task.removed.extend(before.removed)
    return made
