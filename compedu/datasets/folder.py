"""A user's own data as a folder of images: one folder per class, below train/ and test/."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from compedu.datasets.dataset import Dataset
from compedu.datasets.own import refuse_too_large, statistics
from compedu.datasets.splits import with_validation
from compedu.errors import CompressionError, first_line
from compedu.reading import refuse_unending

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
GRAY = ("1", "L", "LA")
COLOR = ("P", "PA", "RGB", "RGBA")  # a palette holds colors
PNG_DEPTH = 24  # offset of the bit depth in a PNG file, in its first chunk
MOST_PIXELS = 1 << 24  # of one image; its size is read before it is decoded


def from_folder(folder: Path, origin: str = "", mean: float | None = None, std: float | None = None) -> Dataset:
    """Return the data set of image files in `folder`/train/<class>/ and `folder`/test/<class>/, all of one size.

    Gray images have one channel, others three; images are rotated upright by their EXIF orientation. Hidden files and
    folders, whose names begin with a dot, are ignored. `mean` and `std` default to those of the training images;
    `origin` is the set of `DATASETS` that the images come from. `CompressionError` names the first unusable file.
    """
    classes = _classes(folder)
    paths = {split: _paths(folder / split, classes) for split in ("train", "test")}
    for name, found in zip(classes, paths["train"], strict=True):
        if not found:
            raise CompressionError(f"{folder / 'train' / name} holds no image: fill this class, or remove its folder")
    pairs = [_read(found, folder / split) for split, found in paths.items()]
    found = statistics(pairs[0][0])
    jpeg = any(path.suffix.lower() in (".jpg", ".jpeg") for same in paths["train"] for path in same)
    return with_validation(
        origin or str(folder), *pairs, classes=classes, mean=found[0] if mean is None else mean,
        std=found[1] if std is None else std, version="JPEG" if jpeg else "", origin=origin,
    )  # fmt: skip


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes; those of test/ must be among those of train/."""
    known, tested = (
        sorted(path.name for path in (folder / split).glob("*") if path.is_dir() and not path.name.startswith("."))
        for split in ("train", "test")
    )
    if not known or not tested:
        raise CompressionError(
            f"{folder} holds no images: it must have {folder}/train/<class>/ and {folder}/test/<class>/"
        )
    for name in tested:
        if name not in known:
            raise CompressionError(
                f"{folder / 'test' / name} is a class without training images: the folders of train/ are "
                f"{', '.join(known)}; rename it, or remove it"
            )
    return tuple(known)


def _paths(folder: Path, classes: tuple[str, ...]) -> list[list[Path]]:
    """Return the image files of each class."""
    found = [[path for path in sorted((folder / name).glob("*")) if not path.name.startswith(".")] for name in classes]
    for path in (path for same in found for path in same):
        refuse_unending(path, "the folder of a class must hold image files; move it away")
        if path.suffix.lower() not in ENDINGS or path.is_dir():
            what = "is a folder" if path.is_dir() else "is not an image by its name"
            raise CompressionError(
                f"{path} {what}: the folder of a class must hold files that end in {', '.join(ENDINGS)}; move it away"
            )
    if not any(found):
        raise CompressionError(f"{folder} is empty: no image in {', '.join(classes)} ends in {', '.join(ENDINGS)}")
    return found


def _read(paths: list[list[Path]], folder: Path) -> tuple[Tensor, Tensor]:
    """Return the images (N, channels, height, width) and labels (N,) of a split."""
    files = [path for same in paths for path in same]
    first = _pixels(files[0])
    refuse_too_large(len(files) * first.nbytes, str(folder))
    images = np.empty((len(files), *first.shape), np.uint8)
    for place, path in enumerate(files):
        pixels = _pixels(path)
        if pixels.shape != first.shape:
            raise CompressionError(
                f"{path} is {pixels.shape}, but {files[0]} is {first.shape}: all must have one size, and all be gray "
                "or all be in color"
            )
        images[place] = pixels
    labels = torch.tensor([label for label, same in enumerate(paths) for _ in same])
    return torch.from_numpy(images), labels


def _pixels(path: Path) -> np.ndarray:
    """Return an image as uint8 (1 or 3, height, width); any error becomes a `CompressionError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of damaged metadata
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a limit of ours is checked below
            with Image.open(path) as image:
                if image.format == "PNG":
                    _refuse_depth(path)
                pixels = np.asarray(_upright(image))
    except Exception as error:  # Pillow raises many kinds for damaged or misnamed files
        raise CompressionError(f"{path} cannot be read as an image: {first_line(error)}") from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def _refuse_depth(path: Path) -> None:
    """Raise `ValueError` for a PNG file with more than 8 bits per channel, which Pillow would truncate silently."""
    with path.open("rb") as file:
        depth = file.read(PNG_DEPTH + 1)[PNG_DEPTH]
    if depth > 8:
        raise ValueError(f"it has {depth} bits per channel, and 8 are read: convert it to 8 bits as you see fit")


def _upright(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits of gray, or of red, green and blue; `ValueError` if that would change it."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, and at most {MOST_PIXELS:,} are read")
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"it has {image.n_frames} frames: save one of them as an image of its own")
    if image.mode not in GRAY + COLOR:
        raise ValueError(
            f"its mode is {image.mode}, and not gray or red, green, blue with 8 bits each: convert it as you see fit"
        )
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise ValueError("parts of it are transparent: put it on a background")
    ImageOps.exif_transpose(image, in_place=True)
    return image.convert("L" if image.mode in GRAY else "RGB")
