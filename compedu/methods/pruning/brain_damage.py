"""Optimal Brain Damage: the weights whose removal raises the loss least, to second order, are pruned."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from compedu.forms import precise, weight_of
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.curvature import curvature_diagonals, curvature_knob
from compedu.methods.pruning.shared.second_order import SecondOrderPruning


def saliencies(weights: Tensor, curvature: Tensor) -> Tensor:
    """Return h w^2 / 2 for each weight: the rise of the loss (nats), to second order, when that weight alone is pruned.

    >>> saliencies(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 4.0])).tolist()
    [1.0, 2.0]
    """
    # At a minimum the gradient vanishes; with the cross terms of the Hessian neglected, h w^2 / 2 is left.
    return curvature * weights.square() / 2


@method
class OptimalBrainDamage(SecondOrderPruning):
    r"""Set the weights to zero whose removal raises the loss least, by the curvature of the loss along each of them.

    $s_k = h_{kk} w_k^2 / 2$ with $h_{kk} = \partial^2 L / \partial w_k^2$, $L$ the mean cross entropy of the training
    images. "gauss-newton" is exact for networks of ReLU, max pooling and batch normalization, which are piecewise
    linear in each single weight; "sampled-fisher" estimates it in a single pass; "empirical-fisher" is the mean squared
    gradient of single images.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; layers that no image reaches; forms other than masked ones.
    Paper: LeCun, Denker, Solla 1990, Optimal brain damage, NIPS 2, section 2. Estimates of the curvature: Martens 2020,
    New insights and perspectives on the natural gradient method, arXiv:1412.1193.
    """

    decisive: ClassVar[tuple[str, ...]] = (*SecondOrderPruning.decisive, "curvature")

    sparsity: PerLayer[float] = inherited(SecondOrderPruning, "sparsity")
    budget: str = inherited(SecondOrderPruning, "budget")
    curvature: str = curvature_knob()
    seed: int = inherited(
        SecondOrderPruning, "seed", help="seed of the choice of training images and of the sampled labels"
    )

    def measure(self, model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the second derivative of the loss along each weight of the layers that the images reach."""
        return curvature_diagonals(model, layers, x, y, self.curvature, self.seed)

    def rise(self, layer: nn.Module, curvature: Tensor) -> Tensor:
        """Return the saliencies, in nats."""
        return saliencies(precise(weight_of(layer).detach()), curvature)
