"""torchvision next to a torch that its compiled operators were not built for.

torchvision's wheels on the package index are built for CUDA. With a CPU-only torch their compiled extension cannot
be loaded, so the operators `torchvision::nms` and `torchvision::qnms` do not exist, and `import torchvision` fails
where it describes their output shapes to torch. Declaring the two schemas (without any kernel) is enough for that
description: data sets, transforms and classification networks, which never call these operators, then work. Box
suppression itself stays unavailable and says so when called. Where the operators exist, nothing is declared.
"""

import importlib
import sys
from types import ModuleType

import torch

MISSING_OPERATOR = "operator torchvision::nms does not exist"
SCHEMA = "{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# torch forgets a declared operator when its library object is collected, so the object lives as long as the process.
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Return the torchvision module; a plain `import torchvision` works afterwards in this process.

    Every failure other than the missing operators (not installed, no memory, wrong Python) is raised unchanged.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if MISSING_OPERATOR not in str(error):
            raise
    _declare_operators()
    _forget_half_imported()
    return importlib.import_module("torchvision")


def operators_declared() -> bool:
    """Return whether this process runs torchvision without its compiled operators."""
    return bool(_declared)


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(SCHEMA.format(name=name))
    _declared.append(library)


def _forget_half_imported() -> None:
    # The failed import leaves submodules behind that a second import would take as complete.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
