"""A learner's own data: an .npz file of arrays, or a folder of images."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compedu.datasets.dataset import Dataset, normalised
from compedu.datasets.splits import with_validation
from compedu.errors import CompressionError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def from_npz(path: Path) -> Dataset:
    """Return the data set of an .npz file with x_train, y_train, x_test, y_test (and x_validation, y_validation).

    Images are uint8 of shape (N, height, width), (N, height, width, 1 or 3) or (N, 1 or 3, height, width); labels are
    whole numbers from 0. Arrays of Python objects are refused: they would be pickles.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CompressionError(f"{path} is not an .npz file of plain arrays: {error}") from error
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise CompressionError(f"{path} lacks {', '.join(missing)}; it has {', '.join(arrays) or 'nothing'}")
    if ("x_validation" in arrays) != ("y_validation" in arrays):
        raise CompressionError(f"{path} has only one of x_validation and y_validation; give both or none")
    pairs = {split: _pair(arrays, split, path) for split in ("train", "test", "validation") if f"x_{split}" in arrays}
    classes = tuple(str(number) for number in range(1 + max(int(y.max()) for _, y in pairs.values())))
    mean, std = _statistics(pairs["train"][0])
    if "validation" not in pairs:
        return with_validation(str(path), pairs["train"], pairs["test"], classes=classes, mean=mean, std=std)
    arrays = {f"y_{split}": labels for split, (_, labels) in pairs.items()}
    arrays |= {f"x_{split}": normalised(images, mean, std) for split, (images, _) in pairs.items()}
    return Dataset(str(path), **arrays, classes=classes, mean=mean, std=std)


def from_folder(folder: Path, origin: str = "", mean: float | None = None, std: float | None = None) -> Dataset:
    """Return the data set of image files in `folder`/train/<class>/ and `folder`/test/<class>/, all of one size.

    Grey images give one channel, others three. `mean` and `std` default to those of the training images.
    """
    classes = tuple(sorted(path.name for path in (folder / "train").glob("*") if path.is_dir()))
    if not classes or not (folder / "test").is_dir():
        raise CompressionError(
            f"{folder} holds no images: needed are {folder}/train/<class>/ and {folder}/test/<class>/"
        )
    pairs = [_folder_split(folder / split, classes) for split in ("train", "test")]
    found = _statistics(pairs[0][0])
    jpeg = any(path.suffix.lower() in (".jpg", ".jpeg") for path in (folder / "train" / classes[0]).iterdir())
    return with_validation(
        origin or str(folder), *pairs, classes=classes, mean=found[0] if mean is None else mean,
        std=found[1] if std is None else std, version="JPEG" if jpeg else "", origin=origin,
    )  # fmt: skip


def _folder_split(folder: Path, classes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    from PIL import Image

    images, labels, first = [], [], None
    for label, name in enumerate(classes):
        for path in sorted((folder / name).glob("*")):
            if path.suffix.lower() not in IMAGES:
                continue
            with Image.open(path) as image:
                pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
            first = first or (path, pixels.shape)
            if pixels.shape != first[1]:
                raise CompressionError(
                    f"{path} is {pixels.shape}, but {first[0]} is {first[1]}: all must have one size"
                )
            images.append(pixels)
            labels.append(label)
    if not images:
        raise CompressionError(f"{folder} is empty: no image in {', '.join(classes)} ends in {', '.join(IMAGES)}")
    return _images(np.stack(images), str(folder)), torch.tensor(labels)


def _pair(arrays: dict[str, np.ndarray], split: str, path: Path) -> tuple[Tensor, Tensor]:
    x, y = (arrays[f"{kind}_{split}"] for kind in "xy")
    images, labels = _images(x, f"{path}: x_{split}"), _labels(y, f"{path}: y_{split}")
    if len(images) != len(labels):
        raise CompressionError(
            f"{path}: x_{split} has {len(images)} images, but y_{split} of shape {y.shape} has {len(labels)} labels; "
            "needed is one whole number for each image"
        )
    return images, labels


def _images(array: np.ndarray, where: str) -> Tensor:
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or len(array) == 0:
        raise CompressionError(
            f"{where} must hold uint8 images (N, height, width), (N, height, width, channels) or "
            f"(N, channels, height, width) with N at least 1, got {array.dtype} {array.shape}"
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(array: np.ndarray, where: str) -> Tensor:
    if not np.issubdtype(array.dtype, np.integer) or array.min(initial=0) < 0:
        raise CompressionError(f"{where} must hold whole numbers from 0, got {array.dtype} from {array.min(initial=0)}")
    return torch.from_numpy(array.astype(np.int64).reshape(-1))


def _statistics(images: Tensor) -> tuple[float, float]:
    grey = images.float() / 255
    return round(grey.mean().item(), 4), max(round(grey.std().item(), 4), 1e-4)
