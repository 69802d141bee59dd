"""The identity of a point of a sweep."""

from collections.abc import Iterable

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.methods.method import Method, inputs_key, refuse_no_method
from compedu.metrics.measurement import VERSION


def point_key(method: Method, model: nn.Module, data: Dataset, split: str) -> str:
    """Return the key of a point: all knobs, versions of method and measurement, hashes of weights and data, split."""
    (key,) = point_keys([method], model, data, split)
    return key


def point_keys(methods: Iterable[Method], model: nn.Module, data: Dataset, split: str) -> dict[str, Method]:
    """Return each of the methods by its `point_key`; the weights are hashed once."""
    return point_keys_on(methods, inputs_key(model, data), split)


def point_keys_on(methods: Iterable[Method], inputs: str, split: str) -> dict[str, Method]:
    """Return each of the methods by its `point_key` on the network and data of that `inputs_key`."""
    if isinstance(methods, Method):
        raise TypeError(f"a sweep goes over several methods: put {methods!r} into a list")
    methods = list(methods)
    for method in methods:
        refuse_no_method(method)
    return {f"{method.key_on(inputs)}|{split}|{VERSION}": method for method in methods}
