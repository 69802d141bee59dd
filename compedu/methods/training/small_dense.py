"""The small dense network: the control that every compressed network must beat at equal size."""

from typing import ClassVar

from torch import nn

from compedu.errors import CompressionError
from compedu.knobs import knob, method
from compedu.methods.task import Task
from compedu.methods.training_method import FromScratch
from compedu.networks import build
from compedu.specs import parse, text


def narrower(spec: str, width: float) -> str:
    """Return `spec` with its width multiplied by `width`.

    >>> narrower("lenet5(size=28, width=0.5)", 0.5)
    'lenet5(size=28, width=0.25)'
    """
    name, values = parse(spec)
    return text(name, values | {"width": values["width"] * width})


@method
class SmallDense(FromScratch):
    r"""Train a narrower network of the same architecture from scratch: what is possible without compression.

    A layer of $n$ channels gets $\mathrm{round}(w\,n)$ of them, at least one; between two such layers about $w^2$ of
    the weights are left.
    Stored: the layers of the small network, dense, at full precision.
    Skips: nothing; of the given network only its architecture counts, not its weights.
    Paper: Liu, Sun, Zhou, Huang, Darrell 2019, Rethinking the value of network pruning, arXiv:1810.05270, section 3.
    """

    family: ClassVar[str] = "training"

    width: float = knob(
        default=0.25,
        help="width of all layers as a fraction of the given network's",
        low=0,
        high=1,
        open="low",
        slider_range=(0.05, 1),
        log=True,
    )

    def compress(self, task: Task) -> nn.Module:
        """Build the small network and train it."""
        spec = getattr(task.model, "spec", None)
        if spec is None:
            raise CompressionError(
                f"{self!r} needs a network of compedu, whose width can be changed (model.spec); "
                f"{type(task.model).__name__} does not say how it is built"
            )
        try:
            small = build(narrower(spec, self.width), seed=self.seed)
        except ValueError as error:
            raise CompressionError(f"{self!r} cannot be built: {error}") from error
        return self.train(small, task.data)
