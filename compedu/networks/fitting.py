"""A new network sized for a data set."""

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.networks import build


def network_for(spec: str, data: Dataset, *, classes: int | None = None, seed: int = 0) -> nn.Module:
    """Return a new network `spec` for images of `data`, which sets size, channels and outputs unless the spec does.

    Raises `CompressionError` for images that are not square, and `ValueError` as `build` does.
    """
    channels, height, width = data.shape
    if height != width:
        raise CompressionError(f"{spec!r} needs square images; those of {data.name!r} are {height} x {width}")
    return build(spec, seed=seed, size=height, channels=channels, classes=classes or data.outputs)
