"""Sweeps: reports over the range of a knob, computed once, stored, resumed."""

from compedu.sweeps.points import grid, method_of, nearest
from compedu.sweeps.running import Sweep, sweep
from compedu.sweeps.store import Failure, StoredSweep, read_sweep
from compedu.sweeps.stored import StoredPoints, stored_points

__all__ = [
    "Failure",
    "StoredPoints",
    "StoredSweep",
    "Sweep",
    "grid",
    "method_of",
    "nearest",
    "read_sweep",
    "stored_points",
    "sweep",
]
