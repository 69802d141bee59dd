"""Sliders and live figures: the only part of compedu that needs Jupyter."""

from typing import Any

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.explorers.explorer import Explorer
from compedu.explorers.pages.comparison import trade_off
from compedu.explorers.pages.measured import file_bar, timing_dots
from compedu.explorers.pages.noise import criteria, gallery, noise_dots
from compedu.explorers.pages.paired import paired_grid
from compedu.explorers.pages.plain import curves, matrices
from compedu.explorers.pages.verdicts import forest
from compedu.methods import Method


def explore(method: Method | type[Method], model: nn.Module, data: Dataset, **options: Any) -> Explorer:
    """Return the explorer of `method` on a trained `model` and `data`, to be shown as the last line of a cell.

    `options` are those of `Explorer`: `split` ("validation"), `predict` (True, or the name of a knob), `book`, `race`.
    """
    return Explorer(method, model, data, **options)


__all__ = [
    "Explorer",
    "criteria",
    "curves",
    "explore",
    "file_bar",
    "forest",
    "gallery",
    "matrices",
    "noise_dots",
    "paired_grid",
    "timing_dots",
    "trade_off",
]
