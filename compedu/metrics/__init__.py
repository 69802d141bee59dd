"""Measured figures: accuracy with its interval, bytes of a file really written, time against the baseline."""

from compedu.metrics.accuracy import Change, mcnemar, paired_interval, wilson
from compedu.metrics.latency import Latency, Timing
from compedu.metrics.machine import machine
from compedu.metrics.measurement import Baseline, measure, measuring
from compedu.metrics.report import Flip, LayerRow, Report

__all__ = [
    "Baseline",
    "Change",
    "Flip",
    "Latency",
    "LayerRow",
    "Report",
    "Timing",
    "machine",
    "mcnemar",
    "measure",
    "measuring",
    "paired_interval",
    "wilson",
]
