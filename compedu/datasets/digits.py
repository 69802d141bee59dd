"""Real handwriting that comes with scikit-learn: 1,797 digits of 8x8 pixels, the default data set."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compedu.datasets.dataset import Dataset, fixed_order

TRAIN = 1000
VALIDATION = 397  # the remaining 400 are the test split
MEAN = 0.3  # of gray 0..1, roughly
STD = 0.35


def digits(size: int = 28) -> Dataset:
    """Return the digits (Alpaydin and Kaynak 1998, UCI) enlarged bilinearly to `size` x `size` pixels, 10 classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = fixed_order(len(bunch.target), seed=0)
    images = torch.from_numpy(bunch.images).float()[order].unsqueeze(1) / 16
    images = (enlarged(images, size) - MEAN) / STD
    labels = torch.from_numpy(bunch.target).long()[order]
    parts = {}
    start = 0
    for split, end in (("train", TRAIN), ("validation", TRAIN + VALIDATION), ("test", len(labels))):
        parts |= {f"x_{split}": images[start:end], f"y_{split}": labels[start:end]}
        start = end
    name = "digits" if size == 28 else f"digits(size={size})"
    return Dataset(name, **parts, classes=tuple("0123456789"), mean=MEAN, std=STD, origin="digits")


def enlarged(images: Tensor, size: int) -> Tensor:
    """Return images (N, 1, 8, 8) as (N, 1, size, size) by bilinear interpolation."""
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
