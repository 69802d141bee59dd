"""Data sets by name, by file, by folder."""

from collections.abc import Callable

from compedu.datasets.dataset import SPLITS, Dataset
from compedu.datasets.digits import digits
from compedu.datasets.drawn import glyphs

DATASETS: dict[str, Callable[..., Dataset]] = {"digits": digits, "glyphs": glyphs}

__all__ = ["DATASETS", "SPLITS", "Dataset"]
