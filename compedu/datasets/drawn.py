"""The drawn characters as a data set: 8,000 training, 4,000 validation and 4,000 test images, kept in the cache."""

import contextlib
import io
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compedu.datasets.dataset import Dataset, cache_folder, normalized
from compedu.datasets.glyphs import GlyphDials, draw_glyphs, draw_morphs
from compedu.datasets.glyphs.factors import SIDE, Draws, draw_factors
from compedu.datasets.objectives import CLASSES, Embedding, Objective, Regression
from compedu.errors import CompressionError
from compedu.specs import parse, text
from compedu.writing import write_whole

SIZES = {"train": 8000, "validation": 4000, "test": 4000}
MEAN = 0.129  # of gray 0..1 over the training images, rounded
STD = 0.237
LARGEST = 3 * SIDE * SIDE + 8  # bytes of an image in colors with its label
ROOM = 100_000  # bytes for names and headers
# Pixels for x and y. Of angles near 0, as most are by default, 0.1 of the sine is 6 degrees, and any cosine is right.
TOLERANCES = {"sine": 0.1, "cosine": 0.1, "x": 1.0, "y": 1.0}
TARGETS: dict[str, Objective] = {
    "class": CLASSES,
    "pairs": Embedding(),
    **{
        name: Regression(quantities, tuple(TOLERANCES[one] for one in quantities), unchanged_by=unchanged_by)
        for name, quantities, unchanged_by in (
            ("angle", ("sine", "cosine"), ("shift",)),  # the angle itself jumps after a full turn
            ("position", ("x", "y"), ()),
            ("pose", ("sine", "cosine", "x", "y"), ()),
        )
    },
}
VERSION = 3  # raised when the generator changes, to invalidate cached sets


def glyphs(seed: int = 0, sizes: dict[str, int] | None = None, targets: str = "class", **dials: Any) -> Dataset:
    """Return drawn characters of 32 x 32 pixels; `sizes` per split, `dials` are the fields of `GlyphDials`.

    `targets` is what a network tells of them: the class; the angle, as sine and cosine, the position, in pixels, or
    both (pose), as a regression; or which pairs are of one class, as an embedding. The images are the same. The first
    call draws them (seconds) and keeps them in the cache folder; later calls read them.
    """
    if targets not in TARGETS:
        raise ValueError(f"glyphs: targets={targets!r}: must be one of {', '.join(map(repr, TARGETS))}")
    objective = TARGETS[targets]
    chosen = GlyphDials(**dials)
    arrays = {}
    for split, count in (SIZES | (sizes or {})).items():
        images, labels, classes = _drawn(split, count, seed, chosen)
        if isinstance(objective, Regression):
            factors = draw_factors(Draws(count, seed, split), chosen)
            columns = [torch.from_numpy(factors[quantity]) for quantity in objective.quantities]
            labels = torch.stack(columns, 1).float()
        arrays |= {f"x_{split}": normalized(images, MEAN, STD), f"y_{split}": labels}
    changed = dials | ({"seed": seed} if seed else {}) | ({"sizes": sizes} if sizes else {})
    changed |= {"targets": targets} if targets != "class" else {}
    name = text("glyphs", changed) if changed else "glyphs"
    # Weights that were shipped for the classes are none for other targets: these have no origin to fall back to.
    origin = "glyphs" if targets == "class" else ""
    return Dataset(name, **arrays, classes=classes, mean=MEAN, std=STD, origin=origin, objective=objective)


def morphs(first: str, second: str, stages: int = 9, count: int = 32) -> tuple[Tensor, Tensor]:
    """Return images (stages * count, 1, 32, 32) as those of `glyphs`, and the true probabilities of their classes.

    They go from one look-alike to another, place by place; errors are those of `draw_morphs`.
    """
    made = draw_morphs(first, second, stages, count)
    return normalized(torch.from_numpy(made.images), MEAN, STD), torch.from_numpy(made.probabilities).float()


def further_images(data: Dataset, count: int) -> Tensor:
    """Return `count` more images (count, C, 32, 32) as those of `data`, by writers of none of its splits; no labels.

    They are the split "transfer" of the same dials and seed. Raises `CompressionError` for data not made by `glyphs`.
    """
    if data.origin != "glyphs":
        raise CompressionError(
            f"further images can be drawn for sets that glyphs made as they are, not for {data.name!r}"
        )
    dials = dict(parse(data.whole_name)[1]) if "(" in data.whole_name else {}
    seed = dials.pop("seed", 0)
    dials.pop("sizes", None)
    return normalized(_drawn("transfer", count, seed, GlyphDials(**dials))[0], MEAN, STD)


def _drawn(split: str, count: int, seed: int, dials: GlyphDials) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    identity = f"{VERSION}|{split}|{count}|{seed}|{sorted(asdict(dials).items())}"
    path = cache_folder() / "glyphs" / f"{sha256(identity.encode()).hexdigest()[:20]}.npz"
    images, labels, classes = _kept(path, count) or (None, None, ())
    if images is None:
        made = draw_glyphs(count, seed=seed, split=split, dials=dials)
        images = made.images
        labels = made.labels
        classes = made.classes
        _keep(path, images=images, labels=labels, classes=np.array(classes))
    return torch.from_numpy(images), torch.from_numpy(labels), classes


def _kept(path: Path, count: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]] | None:
    """Return images, labels and classes from the cache, or None if its file is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if sum(part.file_size for part in kept.zip.infolist()) > LARGEST * count + ROOM:
                return None
            images = kept["images"]
            labels = kept["labels"]
            classes = tuple(kept["classes"].tolist())
    except Exception:  # zipfile, zlib and numpy raise many kinds for a damaged archive
        return None
    whole = (
        (images.dtype, images.shape[:1], images.shape[2:]) == (np.uint8, (count,), (SIDE, SIDE))
        and (labels.dtype, labels.shape) == (np.int64, (count,))
        and labels.min() >= 0
        and labels.max() < len(classes)
        and all(isinstance(name, str) for name in classes)
    )
    return (images, labels, classes) if whole else None


def _keep(path: Path, **arrays: np.ndarray) -> None:
    """Write the arrays into the cache; a cache that cannot be written is not an error."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
