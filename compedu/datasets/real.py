"""Real data sets by name: read from COMPEDU_DATA or the cache, downloaded only on request."""

from pathlib import Path

import numpy as np
import torch

from compedu.datasets.dataset import Dataset, cache_folder, data_folders
from compedu.datasets.folder import from_folder
from compedu.datasets.splits import with_validation
from compedu.errors import MissingData
from compedu.reading import refuse_unending
from compedu.torchvision_import import import_torchvision

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as published beside the file
# over pixels and colors of the training images
CIFAR10_MEAN = 0.4734
CIFAR10_STD = 0.2516
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def mnist(download: bool = False) -> Dataset:
    """Return MNIST (LeCun et al. 1998): 55,000 training, 5,000 validation and 10,000 test images of 28 x 28 pixels."""
    return _idx("MNIST", "mnist", tuple("0123456789"), 0.1307, 0.3081, download)


def fashion_mnist(download: bool = False) -> Dataset:
    """Return Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747), sized and split like MNIST."""
    return _idx("FashionMNIST", "fashion-mnist", FASHION_CLASSES, 0.2860, 0.3530, download)


def cifar10(download: bool = False) -> Dataset:
    """Return CIFAR-10 (Krizhevsky 2009): 45,000 training, 5,000 validation, 10,000 test color images of 32 x 32.

    Read from the binary version, or from a folder cifar10/train/<class>, cifar10/test/<class> of image files; the
    data set's `version` is "JPEG" for JPEG files, whose pixels differ slightly from the original's.
    """
    for folder in data_folders():
        if (folder / "cifar-10-batches-bin").is_dir():
            return _cifar10_binary(folder / "cifar-10-batches-bin")
        if (folder / "cifar10" / "train").is_dir():
            return from_folder(folder / "cifar10", origin="cifar10", mean=CIFAR10_MEAN, std=CIFAR10_STD)
    if not download:
        raise _missing("cifar10", "cifar-10-batches-bin, or cifar10/train/<class> and cifar10/test/<class>")
    target = cache_folder() / "data"
    import_torchvision().datasets.utils.download_and_extract_archive(CIFAR10_URL, str(target), md5=CIFAR10_MD5)
    return _cifar10_binary(target / "cifar-10-batches-bin")


def _missing(name: str, layout: str) -> MissingData:
    places = ", ".join(map(str, data_folders()))
    return MissingData(
        f"data set {name!r} is not on this machine. Looked for {layout} in {places}. "
        f"Download it with: compedu data {name} --download, or set COMPEDU_DATA to the folder that holds it"
    )


def _idx(kind: str, name: str, classes: tuple[str, ...], mean: float, std: float, download: bool) -> Dataset:
    folder = next((f for f in data_folders() if (f / kind / "raw").is_dir()), None)
    if folder is None:
        if not download:
            raise _missing(name, f"{kind}/raw/*-ubyte")
        folder = cache_folder() / "data"
    read = getattr(import_torchvision().datasets, kind)
    try:
        if download:
            read(
                str(folder), download=True
            )  # does nothing if the files are there; checked by hash, with a progress bar
        train = read(str(folder), train=True)
        test = read(str(folder), train=False)
    except Exception as error:  # torchvision and numpy raise many kinds for incomplete files
        raise MissingData(f"{folder / kind} is not complete: {error}") from error
    pairs = [(split.data.unsqueeze(1), split.targets) for split in (train, test)]
    return with_validation(name, *pairs, classes=classes, mean=mean, std=std, origin=name)


def _cifar10_binary(folder: Path) -> Dataset:
    """Read the binary version: each image is one byte of label and 3,072 bytes of pixels, red, green, blue planes."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)], ["test_batch.bin"]
    splits = []
    for files in names:
        rows = np.concatenate([_rows(folder / file) for file in files])
        splits.append((
            torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(rows[:, 0]).long(),
        ))  # fmt: skip
    return with_validation(
        "cifar10", *splits, classes=CIFAR10_CLASSES, mean=CIFAR10_MEAN, std=CIFAR10_STD, origin="cifar10"
    )


def _rows(path: Path) -> np.ndarray:
    """Return one file of the binary version as uint8 (images, 3073); `MissingData` for an incomplete one."""
    refuse_unending(path, "put the file of the data set in its place, or download it again")
    try:
        rows = np.fromfile(path, dtype=np.uint8).reshape(-1, 3073)
    except (OSError, ValueError) as error:
        raise MissingData(f"{path} is not complete: {error}; download it again") from error
    if len(rows) == 0 or rows[:, 0].max() >= len(CIFAR10_CLASSES):
        raise MissingData(f"{path} holds no images of {len(CIFAR10_CLASSES)} classes; download it again")
    return rows
