"""Grading of submissions: their code runs confined in a process of its own, and is judged in another one."""

from compedu.grading.confinement import Confinement, ProcessLimits
from compedu.grading.execute import ExecuteApart

__all__ = ["Confinement", "ExecuteApart", "ProcessLimits"]
