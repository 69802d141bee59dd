"""A data set in memory: three fixed splits of images and labels."""

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from compedu import hashing
from compedu.datasets.objectives import CLASSES, CLASSIFICATION, Objective
from compedu.errors import CompressionError
from compedu.given import advice, got

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as float32 (N, channels, height, width), normalized, and labels as int64 (N,) for each split.

    With another `objective` than classification, what it calls targets stands in place of labels.

    Methods learn from `train`, explorers and choices use `validation`, and `test` is used once, for a claim.
    `mean` and the standard deviation `std` undo the normalization: gray value in 0..1 = image * std + mean.
    `version` says how the images were made if that matters, such as "JPEG". `origin` is the set of `DATASETS` that the
    images come from, complete, shortened or changed by knobs; it is empty for a user's own images, whatever their name.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    mean: float = 0.0
    std: float = 1.0
    version: str = ""
    origin: str = ""
    objective: Objective = CLASSES

    def __post_init__(self):
        for split in SPLITS:
            x, y = self.split(split)
            where = f"data set {self.name!r}, split {split!r}"
            _check_split(where, x, y)
            self.objective.refuse_targets(y, len(self.classes), where)
            if x.shape[1:] != self.x_train.shape[1:]:
                raise CompressionError(
                    f"{where} has images {tuple(x.shape[1:])}, the training images are {self.shape}: "
                    "all must have one size"
                )

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Return images and labels of "train", "validation" or "test"."""
        if name not in SPLITS:
            raise CompressionError(f"data set {self.name!r} has no split {name!r}; there are: {', '.join(SPLITS)}")
        return getattr(self, f"x_{name}"), getattr(self, f"y_{name}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.x_train.shape[1:])

    @property
    def outputs(self) -> int:
        """The number of outputs that a network needs: one for each class, or as the objective says."""
        return self.objective.outputs or len(self.classes)

    @property
    def example(self) -> Tensor:
        """One image as a batch, for tracing a network."""
        return self.x_train[:1]

    @cached_property
    def digest(self) -> str:
        """The identity of the data: a digest of all images and labels, and of an objective beyond classes."""
        tensors = {f"{kind}_{split}": getattr(self, f"{kind}_{split}") for split in SPLITS for kind in "xy"}
        digest = hashing.tensors_digest(tensors)
        return digest if self.objective == CLASSES else f"{digest}|{self.objective!r}"

    def shortened(self, train: int | None = None, validation: int | None = None, test: int | None = None) -> "Dataset":
        """Return the set with only the first images of each split, for quick runs; its name says so.

        A split that has no more images than that stays as it is; if nothing is cut, the same object is returned.
        """
        sizes = {"train": train, "validation": validation, "test": test}
        if any(size is not None and size < 0 for size in sizes.values()):
            raise CompressionError(f"data set {self.name!r} cannot be cut to {sizes}: sizes are whole numbers from 0")
        if all(size is None or size >= len(self.split(s)[0]) for s, size in sizes.items()):
            return self
        parts = {f"{kind}_{s}": getattr(self, f"{kind}_{s}")[:n] for s, n in sizes.items() for kind in "xy"}
        kept = [str(len(parts[f"x_{s}"])) for s in SPLITS]
        return replace(self, name=f"{self.whole_name}[{'/'.join(kept)}]", **parts)

    @property
    def whole_name(self) -> str:
        """The name without the sizes that `shortened` appends."""
        return re.sub(r"\[\d+/\d+/\d+\]$", "", self.name)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(self.split(s)[0])} {s}" for s in SPLITS)
        known = f"{len(self.classes)} classes" if self.objective.kind == CLASSIFICATION else repr(self.objective)
        return f"Dataset({self.name!r}: {sizes}; images {self.shape}, {known})"


def _check_split(where: str, x: Tensor, y: Tensor) -> None:
    if len(x) == 0:
        raise CompressionError(f"{where} is empty: at least one image is needed")
    if x.ndim != 4 or len(y) != len(x):
        raise CompressionError(
            f"{where} has images {tuple(x.shape)} and labels {tuple(y.shape)}; "
            "they must be (N, channels, height, width) and (N,)"
        )
    if not x.is_floating_point():
        raise CompressionError(f"{where} has images of {x.dtype}; they must be floats")
    if not bool(torch.isfinite(x).all()):
        raise CompressionError(f"{where} holds values that are not finite")


def cache_folder() -> Path:
    """Return the user's folder for drawn and downloaded data; the environment variable COMPEDU_CACHE overrides it."""
    return Path(os.environ.get("COMPEDU_CACHE") or platformdirs.user_cache_dir("compedu", appauthor=False))


def data_folders() -> list[Path]:
    """Return the folders searched for real data sets: COMPEDU_DATA, if set, then "data" in the cache folder."""
    given = os.environ.get("COMPEDU_DATA")
    return ([Path(given)] if given else []) + [cache_folder() / "data"]


def normalized(images: Tensor, mean: float, std: float) -> Tensor:
    """Return uint8 images (N, channels, height, width) as float32: gray 0..1 shifted by `mean`, divided by `std`."""
    return (images.float() / 255 - mean) / std


def fixed_order(count: int, seed: int) -> Tensor:
    """Return a permutation of 0..count-1 that depends on `seed` alone, on every machine and library version."""
    return torch.argsort(hashing.mix(torch.arange(count) * 2654435761 + seed), stable=True)


def refuse_no_data(given: object) -> None:
    """Raise `TypeError` where `given` is not a data set, with what was probably meant."""
    if not isinstance(given, Dataset):
        needed = "a compedu data set is needed, such as compedu.load_data('digits')"
        raise TypeError(f"{needed}, {got(given)}{advice(given)}")
