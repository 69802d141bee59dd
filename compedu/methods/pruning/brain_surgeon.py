"""Optimal Brain Surgeon: a weight is pruned, and the other weights of its layer compensate for it."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.forms import mask_of, trained_weight, weight_of
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.pruning.shared.layer_hessians import (
    LONGEST,
    LayerHessian,
    hessian_bytes,
    layer_hessians,
    too_large,
)  # fmt: skip
from compedu.methods.pruning.shared.second_order import SecondOrderPruning
from compedu.methods.task import Task

AT_ONCE = 2**25  # bytes of the Hessians that are held at once
TOGETHER = 2**26  # bytes up to which those of a whole network are: portions would be measured anew at each call
TOO_LARGE = f"has more than {LONGEST} weights per output; the inverse of their Hessian would take too long"
FLAT = "on these images the loss does not depend on it, so no curvature can guide the surgery"


@method
class OptimalBrainSurgeon(SecondOrderPruning):
    r"""Prune the weights whose removal raises the loss least, and change the others to compensate.

    $L_q = w_q^2 / (2 [H^{-1}]_{qq})$ and $\delta w = -(w_q / [H^{-1}]_{qq}) H^{-1} e_q$, with the Hessian $H$ of one
    layer plus `damping` times its mean diagonal. A layer of at most 1,024 weights loses them one by one, with $H^{-1}$
    updated each time. In larger layers each row (the weights of one output) is treated separately with $H =
    h\,\mathrm{E}[x x^\top]$, $h$ from the trace of the Gauss-Newton matrix; the weights of smallest $L_q$ go at once,
    and the rest of the row compensates jointly. Biases stay. The budget allocates the zeros by the $L_q$ before the
    first removal.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; rows of more than 2,048 weights; layers that no image reaches,
    or on which the loss does not depend; forms other than masked ones.
    Paper: Hassibi, Stork 1993, Second order derivatives for network pruning: Optimal Brain Surgeon, NIPS 5. Rows: Dong,
    Chen, Pan 2017, arXiv:1705.07565; Frantar, Alistarh 2022, arXiv:2208.11580.
    """

    version: ClassVar[int] = 3
    largest: ClassVar[int] = TOGETHER

    sparsity: PerLayer[float] = inherited(SecondOrderPruning, "sparsity")
    budget: str = inherited(SecondOrderPruning, "budget")
    damping: float = knob(
        default=0.01,
        help="added to the Hessian, as a fraction of its mean diagonal",
        low=1e-8,
        high=10,
        slider_range=(1e-4, 1.0),
        log=True,
    )

    def measure(
        self, model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor
    ) -> dict[str, LayerHessian]:
        """Return the Hessian of each of `layers` that is small enough and that the images reach."""
        fitting = {name: layer for name, layer in layers.items() if not too_large(layer)}
        return layer_hessians(model, fitting, x, y)

    def obstacle(self, layer: nn.Module, curvature: LayerHessian | None) -> str:
        """Return why the Hessian of `layer` cannot be used, "" where it can."""
        if too_large(layer):
            return TOO_LARGE
        return super().obstacle(layer, curvature) or (FLAT if curvature.flat(mask_of(layer)) else "")

    def rise(self, layer: nn.Module, curvature: LayerHessian) -> Tensor:
        """Return L_q, in nats, before the first removal."""
        return curvature.saliencies(weight_of(layer).detach(), mask_of(layer), self.damping).float()

    def portions(self, layers: Mapping[str, nn.Module]) -> list[Mapping[str, nn.Module]]:
        """Return all `layers` if their Hessians take at most `TOGETHER` bytes, else in portions of `AT_ONCE` bytes.

        The Hessian of a single layer may take more.
        """
        sizes = {name: 0 if too_large(layer) else hessian_bytes(layer) for name, layer in layers.items()}
        if sum(sizes.values()) <= TOGETHER:
            return [layers]
        found: list[dict[str, nn.Module]] = [{}]
        held = 0
        for name, layer in layers.items():
            if found[-1] and held + sizes[name] > AT_ONCE:
                found.append({})
                held = 0
            found[-1][name] = layer
            held += sizes[name]
        return found

    @torch.no_grad()
    def operate(self, task: Task, layers: Mapping[str, nn.Module], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Prune as many weights as `masks` drop, let the others compensate, and return the resulting masks."""
        left = {}
        for portion in self.portions(layers):
            with torch.enable_grad():
                curvatures = self.curvatures(task, portion)
            for name, layer in portion.items():
                if (wanted := masks.get(name)) is None:
                    continue
                weight, left[name] = curvatures[name].operate(weight_of(layer), mask_of(layer), wanted, self.damping)
                parameter = next(own for own, p in layer.named_parameters(recurse=False) if p is trained_weight(layer))
                setattr(
                    layer, parameter, nn.Parameter(weight.to(layer.weight.dtype), trained_weight(layer).requires_grad)
                )
        return left
