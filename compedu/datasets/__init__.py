"""Data sets by name, file or folder."""

from collections.abc import Callable
from pathlib import Path

from compedu.datasets.dataset import SPLITS, Dataset
from compedu.datasets.digits import digits
from compedu.datasets.drawn import glyphs
from compedu.datasets.folder import from_folder
from compedu.datasets.npz import from_npz
from compedu.datasets.real import cifar10, fashion_mnist, mnist
from compedu.errors import MissingData
from compedu.reading import refuse_unending
from compedu.specs import parse

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits, "glyphs": glyphs, "mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10,
}  # fmt: skip
MADE_HERE = ("digits", "glyphs")  # come with compedu; all others are searched for on this machine or downloaded


def load(name: str, *, download: bool = False) -> Dataset:
    """Return the data set called `name`: one of `DATASETS` ("glyphs(rotation=0)" sets knobs), an .npz file, a folder.

    Real sets that are not on this machine are downloaded when `download` is true; otherwise `MissingData` says how to
    get them. Any other name raises a `ValueError` that lists the known names.
    """
    if name in DATASETS:
        return DATASETS[name](download=True) if download and name not in MADE_HERE else DATASETS[name]()
    path = Path(name).expanduser()
    refuse_unending(path, "name an .npz file, or a folder of images")
    if path.suffix.lower() == ".npz" and path.is_file():
        return from_npz(path)
    if path.is_dir():
        return from_folder(path)
    kind, knobs = parse(name) if "(" in name else (name, {})
    if kind not in MADE_HERE:
        raise ValueError(f"no data set is called {name!r}; there are: {', '.join(DATASETS)}, an .npz file, or a folder")
    try:
        return DATASETS[kind](**knobs)
    except TypeError as error:
        raise ValueError(f"{name!r}: {error}") from error


__all__ = ["DATASETS", "MADE_HERE", "SPLITS", "Dataset", "MissingData", "load"]
