"""Weights that a user trained: a file for each pair of network and data, found again by both."""

import inspect
import os
from hashlib import sha256
from pathlib import Path

import platformdirs
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.errors import MissingData
from compedu.networks import NETWORKS
from compedu.networks.checkpoints import read_checkpoint
from compedu.networks.fitting import network_for
from compedu.specs import parse
from compedu.writing import safe_name


def own_folder() -> Path:
    """Return the user's folder for trained weights; the environment variable COMPEDU_WEIGHTS overrides it."""
    given = os.environ.get("COMPEDU_WEIGHTS")
    return Path(given) if given else platformdirs.user_data_path("compedu", appauthor=False) / "checkpoints"


def own_path(spec: str, data: Dataset, folder: Path | None = None) -> Path:
    """Return where weights of network `spec` trained on `data` are kept: "lenet5-width0.5-mine-3fa9c1d2e0.safetensors".

    The words are for the reader. The digest of the complete spec and of all images and labels identifies the file, so
    weights are found again after the data were moved or renamed.
    """
    place = folder or own_folder()
    complete = network_for(spec, data).spec
    digest = sha256(f"{complete}|{data.digest}".encode()).hexdigest()[:10]
    source = data.name if data.origin else Path(data.name).stem
    new = place / f"{_words(complete)}-{safe_name(source) or 'data'}-{digest}.safetensors"
    return next(iter(sorted(place.glob(f"*-{digest}.safetensors"))), new)


def _words(spec: str) -> str:
    """Return a network's name and the knobs that differ from its defaults."""
    name, values = parse(spec)
    defaults = inspect.signature(NETWORKS[name]).parameters
    return "-".join([name, *(f"{knob}{value}" for knob, value in values.items() if value != defaults[knob].default)])


def own(spec: str, data: Dataset, folder: Path | None = None) -> nn.Module | None:
    """Return network `spec` with weights trained on `data` and kept in `folder`, or None if there are none.

    Raises `MissingData` for a file that does not match its name, and `ValueError` as `network_for` does.
    """
    path = own_path(spec, data, folder)
    if not path.exists():
        return None
    model, record = read_checkpoint(path)
    if (record["spec"], record.get("data_digest")) != (network_for(spec, data).spec, data.digest):
        raise MissingData(f"{path} holds {record['spec']} for other data than its name says; train it again")
    return model
