"""The trained weights that come with the package, by network and data set."""

from pathlib import Path

from torch import nn

from compedu.errors import MissingData
from compedu.networks.checkpoints import read_checkpoint, read_record
from compedu.shipped import shipped
from compedu.specs import parse


def checkpoint_path(spec: str, data: str) -> Path:
    """Return where the weights of network `spec` for data set `data` are kept, such as "lenet5-glyphs.safetensors"."""
    name, given = parse(spec)
    knobs = "".join(f"-{knob}{value}" for knob, value in sorted(given.items()))
    return shipped("data", "checkpoints", f"{name}{knobs}-{data}.safetensors")


def available() -> list[tuple[str, str]]:
    """Return the pairs (network, data set) that have shipped weights."""
    names = {path.stem: read_record(path)["data"] for path in shipped("data", "checkpoints").glob("*.safetensors")}
    return sorted((stem.removesuffix(f"-{data}"), data) for stem, data in names.items())


def record_of(spec: str, data: str) -> dict:
    """Return the record of the weights: recipe, seed, measured accuracy, SHA-256 of the file."""
    return read_record(_existing(spec, data))


def trained(spec: str, data: str) -> nn.Module:
    """Return network `spec` with its shipped weights for `data`; `MissingData` lists the pairs there are."""
    return read_checkpoint(_existing(spec, data))[0]


def _existing(spec: str, data: str) -> Path:
    path = checkpoint_path(spec, data)
    if not path.exists():
        known = ", ".join(f"{network} on {name}" for network, name in available()) or "none"
        raise MissingData(
            f"no trained weights of {spec!r} for {data!r} are shipped; there are: {known}. "
            f"Train them with: compedu train {_word(spec)} --data {_word(data)}"
        )
    return path


def _word(text: str) -> str:
    return text if text.isidentifier() else f'"{text}"'  # parentheses are special in a shell
