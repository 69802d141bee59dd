"""All methods, in the order of the chapters: this tuple is the table of contents of the course."""

from compedu.methods.layer_method import LayerMethod, SelectiveMethod
from compedu.methods.method import TOPICS, Method, Skipped, compression_of
from compedu.methods.pipeline import Pipeline
from compedu.methods.pruning.magnitude import MagnitudePruning

METHODS: tuple[type[Method], ...] = (MagnitudePruning,)


def find(name: str) -> type[Method]:
    """Return the method called `name`; `ValueError` lists the names there are."""
    for method in METHODS:
        if method.__name__.lower() == name.replace("-", "").replace("_", "").lower():
            return method
    raise ValueError(f"no method is called {name!r}; there are: {', '.join(method.__name__ for method in METHODS)}")


__all__ = ["METHODS", "TOPICS", "LayerMethod", "Method", "Pipeline", "SelectiveMethod", "Skipped", "compression_of", "find"]
