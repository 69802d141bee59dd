"""The drawn characters as a data set: 8,000 training, 4,000 validation and 4,000 test images, kept in the cache."""

import contextlib
import io
import zipfile
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compedu.datasets.dataset import Dataset, cache_folder, normalised
from compedu.datasets.glyphs import GlyphDials, draw_glyphs
from compedu.writing import write_whole

SIZES = {"train": 8000, "validation": 4000, "test": 4000}
MEAN, STD = 0.129, 0.237  # of grey 0..1 over the training images, rounded
VERSION = 3  # raised when the generator draws other images, so that no cached set of the old ones is used


def glyphs(seed: int = 0, sizes: dict[str, int] | None = None, **dials: object) -> Dataset:
    """Return drawn characters of 32 x 32 pixels; `sizes` per split, `dials` are the fields of `GlyphDials`.

    The first call draws the images (seconds) and keeps them in the cache folder; later calls read them.
    """
    chosen = GlyphDials(**dials)
    arrays = {}
    for split, count in (SIZES | (sizes or {})).items():
        images, labels, classes = _drawn(split, count, seed, chosen)
        arrays |= {f"x_{split}": normalised(images, MEAN, STD), f"y_{split}": labels}
    changed = [f"{name}={value!r}" for name, value in dials.items()] + ([f"seed={seed}"] if seed else [])
    return Dataset(
        "glyphs" + (f"({', '.join(changed)})" if changed else ""), **arrays, classes=classes, mean=MEAN, std=STD
    )


def _drawn(split: str, count: int, seed: int, dials: GlyphDials) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    identity = f"{VERSION}|{split}|{count}|{seed}|{sorted(asdict(dials).items())}"
    path = cache_folder() / "glyphs" / f"{sha256(identity.encode()).hexdigest()[:20]}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            images, labels, classes = kept["images"], kept["labels"], tuple(kept["classes"].tolist())
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # none kept, or not whole: draw it
        made = draw_glyphs(count, seed=seed, split=split, dials=dials)
        images, labels, classes = made.images, made.labels, made.classes
        _keep(path, images=images, labels=labels, classes=np.array(classes))
    return torch.from_numpy(images), torch.from_numpy(labels), classes


def _keep(path: Path, **arrays: np.ndarray) -> None:
    """Write the arrays into the cache; one that cannot be written is no error."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
