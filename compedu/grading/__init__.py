"""Grading of submissions: their code runs confined in its own process, and another process judges it."""

from compedu.grading.confinement import Confinement, ProcessLimits
from compedu.grading.execute import ExecuteApart

__all__ = ["Confinement", "ExecuteApart", "ProcessLimits"]
