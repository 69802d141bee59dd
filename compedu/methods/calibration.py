"""Calibration images: the few training images that a method uses."""

from typing import Any

import torch
from torch import Tensor

from compedu.datasets.dataset import Dataset
from compedu.knobs import knob


def calibration_knob(help: str, default: int = 128, low: int = 1) -> Any:
    """Declare a field of a method as its number of calibration images, `help` saying what they are for."""
    return knob(default=default, help=help, low=low, slider_range=(16, 1024), log=True, unit="images")


def calibration_set(data: Dataset, images: int, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Return at most `images` training images and their labels, drawn by `seed` without replacement.

    Without a seed they are evenly spaced, because the images may be sorted by class.
    """
    size = len(data.x_train)
    if seed is None:
        chosen = torch.linspace(0, size - 1, min(images, size)).round().long()
    else:
        chosen = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:images]
    return data.x_train[chosen], data.y_train[chosen]
