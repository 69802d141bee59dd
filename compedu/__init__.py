"""compedu: learn neural-network compression by turning knobs on real trained networks.

>>> import compedu as ce
>>> model, data = ce.load("lenet5", "digits")
>>> small = ce.MagnitudePruning(sparsity=0.5)(model, data)
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Where each public name lives; loaded at its first use, so that `import compedu` stays quick and free of Jupyter.
_HOMES = {
    "CompressionError": "compedu.errors",
    "CLAIMS": "compedu.claims",
    "METHODS": "compedu.methods",
    "Pipeline": "compedu.methods",
    "Recipe": "compedu.training",
    "Report": "compedu.metrics",
    "build": "compedu.networks",
    "controls": "compedu.methods",
    "deploy": "compedu.deployment",
    "evaluate": "compedu.evaluation",
    "experiment": "compedu.claims",
    "explore": "compedu.explorers",
    "fit": "compedu.training",
    "inspect": "compedu.files",
    "load": "compedu.pairs",
    "load_data": "compedu.pairs",
    "load_model": "compedu.pairs",
    "measure": "compedu.metrics",
    "save": "compedu.files",
    "sweep": "compedu.sweeps",
    "trained": "compedu.networks.shipped",
}
_SUBMODULES = (
    "claims", "course", "datasets", "files", "forms", "graph", "metrics", "methods", "networks", "sweeps", "training",
)  # fmt: skip

if TYPE_CHECKING:
    from compedu.methods import METHODS as METHODS


def __getattr__(name: str):
    """Load a public name, a method by its class name, or a submodule at its first use."""
    if name in _SUBMODULES:
        return importlib.import_module(f"compedu.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name[:1].isupper():
        for method in importlib.import_module("compedu.methods").METHODS:
            if method.__name__ == name:
                return method
    raise AttributeError(f"module 'compedu' has no attribute {name!r}; dir(compedu) lists what it has")


def __dir__() -> list[str]:
    """List the public names, the methods among them."""
    methods = importlib.import_module("compedu.methods").METHODS
    return sorted({*_HOMES, *_SUBMODULES, *(method.__name__ for method in methods), "__version__"})
