"""Starting again: a network whose weights are drawn anew."""

from torch import nn

from compedu.errors import CompressionError
from compedu.reproducible import seeded


def initialize(model: nn.Module, seed: int, caller: str, otherwise: str = "") -> None:
    """Initialize every layer of `model` in place by torch's defaults, from `seed`.

    Raises `CompressionError` naming the `caller` and a module without `reset_parameters`, such as a compressed layer,
    and what else could be done `otherwise`.
    """
    with seeded(seed):
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                cures = [one for one in (otherwise, "put this step before the one that made it") if one]
                raise CompressionError(
                    f"{caller}: {name or 'the network'} ({type(module).__name__}) cannot be initialized again; "
                    + ", or ".join(cures)
                )
