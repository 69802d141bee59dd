"""A user's own images and labels, checked before they become a data set: nothing about them is guessed."""

import numpy as np
import torch
from torch import Tensor

from compedu.errors import CompressionError

MOST_BYTES = 4 << 30  # of pixels in one set: as float32 they take four times as much memory


def refuse_too_large(count: int, where: str) -> None:
    """Raise `CompressionError` for too many bytes of pixels, `count`, before they are read."""
    if count > MOST_BYTES:
        raise CompressionError(
            f"{where} holds {count / 2**30:.1f} GiB of pixels, which stay in memory; at most {MOST_BYTES >> 30} GiB "
            "are read: take fewer or smaller images"
        )


def labels_of(array: np.ndarray, where: str) -> Tensor:
    """Return labels as int64 (N,); `CompressionError` for anything but integers from 0."""
    if not np.issubdtype(array.dtype, np.integer):
        raise CompressionError(
            f"{where} must hold whole numbers from 0, got {array.dtype}; convert names by "
            "np.unique(names, return_inverse=True)[1]"
        )
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise CompressionError(f"{where} must hold whole numbers from 0, got {array.min()} to {array.max()}")
    return torch.from_numpy(array.astype(np.int64).reshape(-1))


def count_classes(labels: dict[str, Tensor], where: str) -> int:
    """Return the number of classes: the labels of "train" are all integers below it, and no split has others.

    Raises `CompressionError` for labels with gaps, such as those that count from 1: a class without a training image
    cannot be learned.
    """
    known = labels["train"].unique()
    if int(known[-1]) != len(known) - 1:
        lacking = next(number for number, label in enumerate(known.tolist()) if number != label)
        raise CompressionError(
            f"{where}: y_train has {len(known)} different labels from {int(known[0])} to {int(known[-1])}, and none is "
            f"{lacking}; labels count from 0 and leave no number out, as np.unique(labels, return_inverse=True)[1] "
            "makes them, of all splits together"
        )
    for split, found in labels.items():
        if int(found.max()) >= len(known):
            raise CompressionError(
                f"{where}: y_{split} has the label {int(found.max())}, which no training image has; the labels of "
                f"y_train are 0 to {len(known) - 1}"
            )
    return len(known)


def statistics(images: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of uint8 `images` as gray values in 0..1; the latter is never 0."""
    gray = images.float() / 255
    return round(gray.mean().item(), 4), max(round(gray.std().item(), 4), 1e-4)
