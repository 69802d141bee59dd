"""The state of a training in a file: all that is needed to resume it bit by bit."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as bytes_of_tensors
from torch import Tensor

from compedu.errors import CompressionError
from compedu.reading import refuse_unending
from compedu.writing import write_whole

CHECKSUM = 32  # bytes of SHA-256 over all that follows
IDENTITY = "identity"  # the tensor that holds the identity as JSON

Identity = Mapping[str, str]  # what identifies a training, by name


def save_training(path: Path, identity: Identity, tensors: dict[str, Tensor]) -> None:
    """Write `tensors`, the state of the training that `identity` identifies; the file is always complete."""
    state = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    state[IDENTITY] = torch.frombuffer(bytearray(json.dumps(dict(identity)).encode()), dtype=torch.uint8)
    content = bytes_of_tensors(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, sha256(content).digest() + content)


def saved_training(path: Path, identity: Identity) -> dict[str, Tensor]:
    """Return the tensors that `save_training` wrote.

    Raises `CompressionError` for any other file, for a damaged one, and for that of another training, naming what
    differs.
    """
    refuse_unending(path, "delete it to start again")
    written = path.read_bytes()
    content = written[CHECKSUM:]
    if sha256(content).digest() != written[:CHECKSUM]:
        raise CompressionError(
            f"{path} is not a saved training, or is damaged (its checksum is wrong); delete it to start again"
        )
    try:
        state = tensors_of_bytes(content)
        found = json.loads(bytes(state.pop(IDENTITY).tolist()))
    except (SafetensorError, KeyError, ValueError) as error:
        raise CompressionError(f"{path} is not a saved training: {error}; delete it to start again") from error
    if not isinstance(found, dict):
        raise CompressionError(f"{path} was saved by an older version of compedu; delete it to start again")
    if other := [name for name in {**identity, **found} if identity.get(name) != found.get(name)]:
        raise CompressionError(f"{path} is from a training with another {', '.join(other)}; delete it to start again")
    return state
