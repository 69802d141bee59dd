"""A user's own data as an .npz file of arrays."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compedu.datasets.dataset import Dataset, normalized
from compedu.datasets.own import count_classes, labels_of, refuse_too_large, statistics
from compedu.datasets.splits import with_validation
from compedu.errors import CompressionError, first_line

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
LAYOUTS = {"NHW": (0, 1, 2), "NHWC": (0, 3, 1, 2), "NCHW": (0, 1, 2, 3)}  # the axes in the order that a network expects
CHANNELS = (1, 3)  # gray and color


def from_npz(path: Path) -> Dataset:
    """Return the data set of an .npz file with x_train, y_train, x_test, y_test (and x_validation, y_validation).

    Images are uint8 of shape (N, height, width), (N, height, width, 1 or 3) or (N, 1 or 3, height, width); for any
    other number of channels an entry `layout`, "NHWC" or "NCHW", says which axis they are. Labels are integers from 0
    without gaps. Arrays of Python objects are refused: they would be pickles.
    """
    arrays = _arrays(path)
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise CompressionError(f"{path} lacks {', '.join(missing)}; it has {', '.join(arrays) or 'nothing'}")
    if ("x_validation" in arrays) != ("y_validation" in arrays):
        raise CompressionError(f"{path} has only one of x_validation and y_validation; give both or none")
    pairs = {split: _pair(arrays, split, path) for split in ("train", "test", "validation") if f"x_{split}" in arrays}
    count = count_classes({split: labels for split, (_, labels) in pairs.items()}, str(path))
    classes = tuple(map(str, range(count)))
    mean, std = statistics(pairs["train"][0])
    if "validation" not in pairs:
        return with_validation(str(path), pairs["train"], pairs["test"], classes=classes, mean=mean, std=std)
    splits: dict[str, Any] = {f"y_{split}": labels for split, (_, labels) in pairs.items()}
    splits |= {f"x_{split}": normalized(images, mean, std) for split, (images, _) in pairs.items()}
    return Dataset(str(path), **splits, classes=classes, mean=mean, std=std)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name; any error becomes a `CompressionError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_too_large(sum(entry.file_size for entry in archive.infolist()), str(path))
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except CompressionError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for other files
        raise CompressionError(f"{path} is not an .npz file of plain arrays: {first_line(error)}") from error


def _pair(arrays: dict[str, np.ndarray], split: str, path: Path) -> tuple[Tensor, Tensor]:
    x, y = (arrays[f"{kind}_{split}"] for kind in "xy")
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
        raise CompressionError(f"{path}: x_{split} and y_{split} must be arrays, as np.savez writes them")
    images = _images(x, arrays.get("layout"), f"{path}: x_{split}")
    labels = labels_of(y, f"{path}: y_{split}")
    if len(images) != len(labels):
        raise CompressionError(
            f"{path}: x_{split} has {len(images)} images, but y_{split} of shape {y.shape} has {len(labels)} labels; "
            "there must be one whole number for each image"
        )
    return images, labels


def _images(array: np.ndarray, layout: np.ndarray | None, where: str) -> Tensor:
    """Return images as uint8 (N, channels, height, width)."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or 0 in array.shape:
        raise CompressionError(
            f"{where} must hold uint8 images (N, height, width), (N, height, width, channels) or "
            f"(N, channels, height, width), each size at least 1, got {array.dtype} {array.shape}"
        )
    known = "NHW" if array.ndim == 3 else _evident(array.shape)
    chosen = known if layout is None else str(layout)
    if len(LAYOUTS.get(chosen, ())) != array.ndim:
        raise CompressionError(
            f"{where} of shape {array.shape} can be read in two ways: say which axis the channels are by an entry "
            "layout in the file, as in np.savez(..., layout='NHWC') or layout='NCHW'"
            + ("" if layout is None else f", got {str(layout)[:20]!r}")
        )
    array = array.transpose(LAYOUTS[chosen])
    return torch.from_numpy(np.ascontiguousarray(array if array.ndim == 4 else array[:, None]))


def _evident(shape: tuple[int, ...]) -> str:
    """Return the layout of four axes where only one of them can be the channels of gray or color images, or ""."""
    first, last = (shape[axis] in CHANNELS for axis in (1, 3))
    return "" if first == last else "NCHW" if first else "NHWC"
