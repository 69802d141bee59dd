"""A trained network and its data in one call: the first line of every notebook."""

from pathlib import Path

from torch import nn

from compedu import datasets, files
from compedu.datasets.dataset import Dataset
from compedu.networks.shipped import trained


def load(network: str, data: str | Dataset) -> tuple[nn.Module, Dataset]:
    """Return network `network` with shipped weights for `data`, and the data: load("lenet5", "digits")."""
    chosen = data if isinstance(data, Dataset) else load_data(data)
    return trained(network, chosen.name.split("[")[0].split("(")[0]), chosen


def load_data(name: str, *, download: bool = False) -> Dataset:
    """Return a data set by name, by .npz file or by folder; see `compedu.datasets.load`."""
    return datasets.load(name, download=download)


def load_model(path: str | Path, into: nn.Module | None = None) -> nn.Module:
    """Return the model of a compedu model file; see `compedu.files.load`."""
    return files.load(path, into=into)
