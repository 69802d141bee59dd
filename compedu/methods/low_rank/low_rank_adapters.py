"""Low-rank adapters: beside frozen, quantized weights, small trained layers make up for the rounding."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import Adapted, BlockFloats, Form, Geometry, Quantized, weight_of
from compedu.forms.adapted import adapter_pair
from compedu.forms.quantized import MOST_BITS
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.layers import given_value
from compedu.methods.low_rank.shared.unsuited import grouped
from compedu.methods.quantization.linear import LinearQuantization
from compedu.methods.quantization.shared.folding import fold
from compedu.methods.replace_then_train import ReplaceThenTrain
from compedu.methods.task import Task
from compedu.reproducible import seeded


@method
class LowRankAdapters(ReplaceThenTrain):
    r"""Freeze the network, quantized, and train a change of low rank beside each weight.

    $y = W_q x + \frac{\alpha}{r} B A x + b$ with $W_q$ frozen, $A$ of $r$ rows drawn from $N(0, 1 / n)$ for $n$ inputs,
    and $B = 0$ before training, so that nothing changes at first. For a convolution $A$ is a convolution of its window
    to $r$ channels, $B$ one of 1 x 1. $W_q$ has `bits` bits on evenly spaced levels with the scale of least squared
    error for each output. Only $A$ and $B$ are trained, and later steps that train leave $W_q$ and $b$ as they are.
    Batch normalization is folded into its layer first.
    Stored: the codes and scales of the frozen weights, or these at full precision with `bits=0`; $A$ and $B$ at full
    precision, which cost $32 r (m + n)$ bits beside the $b\,m\,n$ of a layer of $m$ outputs. Deployed, the change is
    merged into the decoded weight.
    Skips: grouped convolutions; layers whose full rank is below `rank`; forms other than quantized ones and number
    formats in blocks, which keep their codes.
    Paper: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen 2021, LoRA, arXiv:2106.09685, section 4.1; on quantized
    weights Dettmers, Pagnoni, Holtzman, Zettlemoyer 2023, QLoRA, arXiv:2305.14314, section 3. There the weights are
    4-bit NormalFloats: `BlockFormats() | LowRankAdapters()`.
    """

    family: ClassVar[str] = "low_rank"
    identity_settings: ClassVar[dict[str, Any] | None] = {"bits": 0, "epochs": 0}
    accepts: ClassVar[tuple[type[Form], ...]] = (Quantized, BlockFloats)

    rank: PerLayer[int] = knob(
        default=4, help="rank of the change of each weight", low=1, slider_range=(1, 32), log=True, per_layer=True
    )
    bits: int = knob(
        default=4,
        help="bits per frozen weight; 0 leaves them in floating point, and codes of earlier steps stay",
        low=0,
        high=MOST_BITS,
        slider_range=(1, 8),
    )
    alpha: float = knob(
        default=8.0,
        help="the change is multiplied by alpha / rank: how fast it learns",
        low=0,
        high=1e6,
        open="low",
        slider_range=(1, 64),
        log=True,
    )
    epochs: int = inherited(ReplaceThenTrain, "epochs", default=3)
    lr: float = inherited(ReplaceThenTrain, "lr", default=2e-3)

    def compress(self, task: Task) -> nn.Module:
        """Fold batch norm, put adapters beside the frozen layers, then train them."""
        fold(task)
        with seeded(self.seed):  # draws the adapters
            return ReplaceThenTrain.compress(self, task)

    def compress_layer(self, name: str, layer: nn.Module) -> Adapted:
        """Return the layer frozen, with adapters that change nothing yet."""
        geometry = Geometry.of(layer)
        rank = given_value(self.rank, name)
        if reason := grouped(geometry, "adapters"):
            raise Skip(reason)
        full = min(geometry.shape[0], math.prod(geometry.shape[1:]))
        if rank > full:
            raise Skip(f"rank {rank} is above its full rank; choose at most rank {full}")
        # The rounding of inputs, which the frozen part leaves out, moves to the whole layer where it is put in place.
        return Adapted(geometry, self.frozen(name, layer), *drawn_pair(geometry, rank, weight_of(layer)), self.alpha)

    def frozen(self, name: str, layer: nn.Module) -> nn.Module:
        """Return what stays as it is beside the adapters: the codes of `layer`, or its weight rounded to `bits`."""
        if isinstance(layer, Form):
            parts = {part: stored.tensor for part, stored in layer.stored().items()}
            return type(layer).restore(layer.geometry, layer.settings(), parts)
        if self.bits == 0:
            return Geometry.of(layer).layer(weight_of(layer), cast("Tensor | None", layer.bias))
        return LinearQuantization(bits=self.bits, clipping="mse").scaled(name, layer)

    def train_replaced(self, task: Task, model: nn.Module) -> nn.Module:
        """Return `model` after training its adapters alone."""
        with only_adapters_train(model):
            return self.train(model, task.data)


def drawn_pair(geometry: Geometry, rank: int, weight: Tensor) -> tuple[nn.Module, nn.Module]:
    """Return `down`, drawn from torch's stream, and `up`, which is zero, in the type of `weight`."""
    down, up = adapter_pair(geometry, rank)
    spread = math.prod(down.shape[1:]) ** -0.5
    return (
        down.layer((torch.randn(down.shape) * spread).to(weight), None),
        up.layer(weight.new_zeros(up.shape), None),
    )


@contextlib.contextmanager
def only_adapters_train(model: nn.Module) -> Iterator[None]:
    """Freeze all parameters of `model` but those of adapters; afterwards the others train as before."""
    adapted = [module for module in model.modules() if isinstance(module, Adapted)]
    trained = {id(p) for form in adapted for part in (form.down, form.up) for p in part.parameters()}
    others = [p for p in model.parameters() if id(p) not in trained and p.requires_grad]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
