"""Trained weights as a file, and next to it the record of their network and data."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as safetensors_bytes
from torch import nn

from compedu.errors import MissingData
from compedu.networks import build
from compedu.reading import refuse_unending
from compedu.writing import write_whole


def write_checkpoint(model: nn.Module, record: dict, path: Path) -> dict:
    """Write the weights in half precision (`path`, safetensors) and their record (.json); return the record."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    content = safetensors_bytes(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return write_record(record | {"sha256": sha256(content).hexdigest(), "bytes": len(content)}, path)


def write_record(record: dict, path: Path) -> dict:
    """Write the record of the weights `path` next to them and return it."""
    write_whole(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    return record


def read_record(path: Path) -> dict:
    """Return the record of the weights `path`; `MissingData` if it cannot be read."""
    place = path.with_suffix(".json")
    refuse_unending(place, "move it away, and train the weights again")
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        if isinstance(record, dict) and isinstance(record.get("spec"), str):
            return record
        reason = "it does not name a network"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    raise MissingData(f"{place}, the record of the weights next to it, cannot be read ({reason}); train them again")


def read_checkpoint(path: Path) -> tuple[nn.Module, dict]:
    """Return the network with the weights of `path`, and their record; `MissingData` if they do not match."""
    refuse_unending(path, "move it away, and train the weights again")
    content = path.read_bytes()
    record = read_record(path)
    if sha256(content).hexdigest() != record.get("sha256"):
        raise MissingData(f"{path} does not match its record; install compedu or train it again")
    model = build(record["spec"])
    try:
        model.load_state_dict({name: _float32(tensor) for name, tensor in load_tensors(content).items()}, strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise MissingData(f"{path} does not hold the weights of {record['spec']}: {error}") from error
    return model.eval(), record


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
