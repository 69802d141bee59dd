"""A trained network and its data in one call: the first line of every notebook."""

from pathlib import Path

from torch import Tensor, nn

from compedu import datasets, files
from compedu.datasets.dataset import Dataset
from compedu.errors import MissingData
from compedu.files.limits import DEFAULT, Limits
from compedu.networks.own import own
from compedu.networks.shipped import checkpoint_path, trained


def load(network: str, data: str | Dataset, folder: str | Path | None = None) -> tuple[nn.Module, Dataset]:
    """Return `network` with weights trained on `data`, and the data: load("lenet5", "digits").

    The weights are the shipped ones for this data set, or else those that `compedu train` saved for exactly this
    network and these images, in `folder` or the user's own. A set that was cut or drawn with other settings falls back
    to the shipped weights. Raises `MissingData` if there are none.
    """
    chosen = data if isinstance(data, Dataset) else load_data(data)
    place = None if folder is None else Path(folder).expanduser()
    if place is None and chosen.origin == chosen.name and checkpoint_path(network, chosen.name).exists():
        return trained(network, chosen.name), chosen
    if (model := own(network, chosen, place)) is not None:
        return model, chosen
    if place is None and chosen.origin:
        return trained(network, chosen.origin), chosen
    where = "" if place is None else f" in {place}"
    raise MissingData(
        f"there are no weights of {network!r} trained on {chosen.name!r}{where}; "
        f'train them with: compedu train "{network}" --data "{chosen.name}"' + (f' --folder "{place}"' if where else "")
    )


def load_data(name: str, *, download: bool = False) -> Dataset:
    """Return a data set by name, by .npz file or by folder; see `compedu.datasets.load`."""
    return datasets.load(name, download=download)


def load_model(
    path: str | Path, into: nn.Module | None = None, *, example: Tensor | None = None, limits: Limits = DEFAULT
) -> nn.Module:
    """Return the model of a compedu model file; see `compedu.files.load`."""
    return files.load(path, into, example=example, limits=limits)
