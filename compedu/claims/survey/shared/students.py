"""Students that claims on distillation compare with a taught one."""

from compedu.methods.distillation.controls import controls
from compedu.methods.distillation.shared.distillation import Distillation
from compedu.methods.method import Method


def alone(taught: Distillation) -> Method:
    """Return the training of the same student on labels as they are: bit by bit that of `taught` with weight=0.

    That one would run the teacher in each step, without need.
    """
    return controls(taught, smoothing=0.0)["label smoothing"]
