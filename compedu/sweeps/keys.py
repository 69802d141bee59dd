"""The identity of a point of a sweep."""

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.methods.method import Method
from compedu.metrics.measurement import VERSION


def point_key(method: Method, model: nn.Module, data: Dataset, split: str) -> str:
    """Return all knobs, the versions of method and measurement, the hashes of weights and data, the split."""
    return f"{method.key(model, data)}|{split}|{VERSION}"
