"""Optimal Brain Surgeon: a weight goes, and the other weights of its layer make up for it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compedu.forms import Geometry, Masked, kernel_of
from compedu.knobs import inherited, knob, method
from compedu.methods.method import Task
from compedu.methods.pruning.layer_hessians import LONGEST, LayerHessian, layer_hessians, too_large
from compedu.methods.pruning.masks import prunable, with_masks
from compedu.methods.pruning.second_order import UNREACHED, SecondOrderPruning, positive

TOO_LARGE = f"has more than {LONGEST} weights for an output; the inverse of their Hessian would take too long"
FLAT = "on these images the loss does not depend on it, so that no curvature can guide the surgery"


@method
class OptimalBrainSurgeon(SecondOrderPruning):
    r"""Take the weights out that raise the loss least, and change the others so that they make up for it.

    $L_q = w_q^2 / (2 [H^{-1}]_{qq})$ and $\delta w = -(w_q / [H^{-1}]_{qq}) H^{-1} e_q$, with the Hessian $H$ of one
    layer plus `damping` times its mean diagonal. A layer of at most 1,024 weights loses them one after the other,
    with $H^{-1}$ brought up to date each time. In larger layers each row (the weights of one output) is taken for
    itself with $H = h\,\mathrm{E}[x x^\top]$; the weights of smallest $L_q$ go at once, and the rest of the row makes
    up jointly. Biases stay. The budget shares the zeros out by $L_q$ as it is before the first removal.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; rows of more than 2,048 weights; layers that no image reaches,
    or on which the loss does not depend; forms other than masked ones.
    Paper: Hassibi, Stork 1993, Second order derivatives for network pruning: Optimal Brain Surgeon, NIPS 5. Rows: Dong,
    Chen, Pan 2017, arXiv:1705.07565; Frantar, Alistarh 2022, arXiv:2208.11580.
    """

    sparsity: float = inherited(SecondOrderPruning, "sparsity")
    budget: str = inherited(SecondOrderPruning, "budget")
    damping: float = knob(
        0.01, "added to the Hessian, as a fraction of its mean diagonal", low=1e-8, high=10, tour=(1e-4, 1.0), log=True
    )

    def compress(self, task: Task) -> nn.Module:
        """Operate on every selected layer whose Hessian can be used."""
        layers = prunable(task)
        scores = self.scores(task, layers)
        hessians = self.hessians(task, layers)
        layers = {name: layers[name] for name in scores}
        masks = self.masks(task, layers, scores)
        for name, wanted in masks.items():
            layer = layers[name]
            kernel, masks[name] = hessians[name].operate(kernel_of(layer).detach(), live(layer), wanted, self.damping)
            with torch.no_grad():
                layer.weight.copy_(kernel)
        return with_masks(task, layers, masks)

    def hessians(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, LayerHessian]:
        """Return the Hessian of each of `layers` that is small enough and that the images reach."""
        fitting = {name: layer for name, layer in layers.items() if not too_large(layer)}

        def hessians(x: Tensor, y: Tensor) -> dict[str, LayerHessian]:
            return layer_hessians(task.model, fitting, x, y, self.seed)

        return self.remembered(task, layers, hessians)

    def scores(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Return L_q, in nats, as it is before the first removal; layers whose Hessian cannot be used are noted.

        Weights that are masked already come before all others.
        """
        hessians, scores = self.hessians(task, layers), {}
        for name, layer in layers.items():
            if name not in hessians:
                task.skip(name, TOO_LARGE if too_large(layer) else UNREACHED)
            elif hessians[name].flat(live(layer)):
                task.skip(name, FLAT)
            else:
                found = hessians[name].saliencies(kernel_of(layer).detach(), live(layer), self.damping)
                scores[name] = positive(found, layer)
        task.refuse_if_nothing_done(len(scores))
        return scores


def live(layer: nn.Module) -> Tensor:
    """Return the mask of the weights of `layer` that are there: all of them, unless it is masked."""
    return layer.mask if isinstance(layer, Masked) else torch.ones(Geometry.of(layer).shape, dtype=torch.bool)
