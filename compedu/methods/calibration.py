"""Calibration images: the few training images that a method looks at."""

import torch
from torch import Tensor

from compedu.datasets.dataset import Dataset


def calibration_set(data: Dataset, images: int) -> tuple[Tensor, Tensor]:
    """Return at most `images` training images and their labels, evenly spaced, as classes may stand one after another."""
    chosen = torch.linspace(0, len(data.x_train) - 1, min(images, len(data.x_train))).round().long()
    return data.x_train[chosen], data.y_train[chosen]
