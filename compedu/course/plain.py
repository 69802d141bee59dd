"""Answers as plain data: a learner's objects are not trusted; their values are copied.

A number of a class that compares equal to everything becomes an ordinary float here. A string carries answers from
the process that runs a submission to the one that judges it; nothing in it is executed.
"""

import base64
import json
import os
from collections.abc import Iterable
from itertools import islice
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compedu.methods.method import Method
from compedu.sweeps.points import method_of

MOST = 1000  # elements of a list; an answer has a handful
LONGEST = 64 * 2**20  # characters of a string that is decoded


class Other(NamedTuple):
    """An object that no exercise asks for: the name of its class, and its `repr`."""

    kind: str
    shown: str

    def __repr__(self) -> str:
        return self.shown


def encode(value: Any) -> str:
    """Return `value` as JSON: numbers, strings, lists, dictionaries, tensors, methods; of anything else, its class."""
    return json.dumps(_record(value))


def decode(text: str) -> Any:
    """Return the value that `encode` wrote; raises `ValueError` for any other string."""
    if len(text) > LONGEST:
        raise ValueError(f"an answer of {len(text):,} characters; at most {LONGEST:,} are read")
    try:
        return _value(json.loads(text))
    except (KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"an answer that cannot be read: {type(error).__name__}") from error


def _record(value: Any) -> Any:
    if value is None or value is ... or isinstance(value, bool):
        return {"kind": "ellipsis"} if value is ... else value
    if isinstance(value, int):
        return int.__int__(value)  # of the built-in class: a subclass may return anything
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, (str, os.PathLike)):
        return str.__str__(os.fspath(value))
    if isinstance(value, Tensor) and value.ndim:
        return _tensor_record(value.detach().cpu().contiguous())
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return _record(value.tolist())
    if isinstance(value, Number) and not isinstance(value, complex):
        return float(value)
    if isinstance(value, Method):
        return {"kind": "method", "value": repr(value)}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"kind": "dict", "value": {str.__str__(name): _record(part) for name, part in value.items()}}
    if isinstance(value, Iterable) and not isinstance(value, (set, frozenset, dict, bytes)):
        return [_record(part) for part in islice(value, MOST + 1)]
    return {"kind": "other", "value": [type(value).__name__, f"{value!r:.80}"]}


def _tensor_record(tensor: Tensor) -> dict[str, Any]:
    content = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"kind": "tensor", "value": [dtype, list(tensor.shape), base64.b64encode(content).decode()]}


def _value(record: Any) -> Any:
    if isinstance(record, list):
        return [_value(part) for part in record]
    if not isinstance(record, dict):
        return record
    kind = record["kind"]
    if kind == "ellipsis":
        return ...
    if kind == "dict":
        return {name: _value(part) for name, part in record["value"].items()}
    if kind == "tensor":
        return _tensor(*record["value"])
    if kind == "method":
        return method_of(record["value"])
    name, shown = map(str, record["value"])
    return Other(name, shown)


def _tensor(name: str, shape: list[int], content: str) -> Tensor:
    dtype = getattr(torch, name)
    data = base64.b64decode(content, validate=True)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is not a dtype")
    if not data:
        return torch.empty(shape, dtype=dtype) if 0 in shape else _refused(shape)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)


def _refused(shape: list[int]) -> Tensor:
    raise ValueError(f"a tensor of shape {shape} without its values")
