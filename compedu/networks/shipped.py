"""Networks with trained weights: the ones that come with the package, by network and data set."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from compedu.errors import MissingData
from compedu.networks import build
from compedu.shipped import shipped
from compedu.specs import parse


def checkpoint_path(spec: str, data: str) -> Path:
    """Return where the weights of network `spec` for data set `data` are kept, such as "lenet5-glyphs.safetensors"."""
    name, given = parse(spec)
    knobs = "".join(f"-{knob}{value}" for knob, value in sorted(given.items()))
    return shipped("data", "checkpoints", f"{name}{knobs}-{data}.safetensors")


def available() -> list[tuple[str, str]]:
    """Return the pairs (network, data set) that have shipped weights."""
    folder = shipped("data", "checkpoints")
    return sorted(tuple(path.stem.rsplit("-", 1)) for path in folder.glob("*.safetensors"))


def record_of(spec: str, data: str) -> dict:
    """Return what is written beside the weights: recipe, seed, accuracy as measured, SHA-256 of the weights' file."""
    return json.loads(_existing(spec, data).with_suffix(".json").read_text(encoding="utf-8"))


def trained(spec: str, data: str) -> nn.Module:
    """Return network `spec` with its shipped weights for `data`; `MissingData` says which pairs there are."""
    path = _existing(spec, data)
    content, record = path.read_bytes(), record_of(spec, data)
    if sha256(content).hexdigest() != record["sha256"]:
        raise MissingData(f"{path.name} is not the file that its record describes; install compedu again")
    model = build(record["spec"])
    try:
        model.load_state_dict({name: _float32(tensor) for name, tensor in load_tensors(content).items()}, strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise MissingData(f"{path.name} does not hold the weights of {record['spec']}: {error}") from error
    return model.eval()


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _existing(spec: str, data: str) -> Path:
    path = checkpoint_path(spec, data)
    if not path.exists():
        known = ", ".join(f"{network} on {name}" for network, name in available()) or "none"
        raise MissingData(
            f"no trained weights of {spec!r} for {data!r} are shipped; there are: {known}. "
            f"Train them with: compedu train {spec} --data {data}"
        )
    return path
