"""Figures as JSON has them, and the difference between two figures: what travels to a page at each move."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

TYPES = {"float64": "f8", "float32": "f4", "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "uint16": "u2",
         "uint32": "u4"}  # fmt: skip


def as_json(value: Any) -> Any:
    """Return a figure with its arrays in the form in which Plotly reads them (base64) and plain numbers elsewhere."""
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: as_json(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    return value


def _array(values: np.ndarray) -> Any:
    kind = TYPES.get(values.dtype.name)
    if kind is None:  # texts, and numbers that a browser has no arrays for
        return values.tolist()
    made = {"dtype": kind, "bdata": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()}
    return made if values.ndim == 1 else made | {"shape": ", ".join(map(str, values.shape))}


def changed(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return what differs: {"data": {index: properties}, "layout": properties}, or {"whole": new}; {} if nothing does.

    A property that `new` lacks is None: the page removes it.
    """
    if old is None or len(old["data"]) != len(new["data"]):
        return {"whole": new}
    data = {
        str(index): found
        for index, pair in enumerate(zip(old["data"], new["data"], strict=True))
        if (found := _properties(*pair))
    }
    layout = _properties(old["layout"], new["layout"])
    return {"data": data, "layout": layout} if data or layout else {}


def _properties(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    changes = {name: value for name, value in new.items() if name not in old or old[name] != value}
    return changes | {name: None for name in old if name not in new}
