"""Optimal Brain Damage: the weights go whose loss to second order costs least."""

from collections.abc import Mapping

from torch import Tensor, nn

from compedu.forms import kernel_of
from compedu.knobs import inherited, knob, method
from compedu.methods.method import Task
from compedu.methods.pruning.curvature import CURVATURES, curvature_diagonals, precise
from compedu.methods.pruning.masks import prunable, with_masks
from compedu.methods.pruning.second_order import UNREACHED, SecondOrderPruning, positive


def saliencies(weights: Tensor, curvature: Tensor) -> Tensor:
    """Return h w^2 / 2 for each weight, the rise of the loss (nats) to second order when that weight alone goes.

    >>> saliencies(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 4.0])).tolist()
    [1.0, 2.0]
    """
    return curvature * weights.square() / 2


def saliencies_of(layer: nn.Module, curvature: Tensor) -> Tensor:
    """Return the `saliencies` of a layer's weights: 0 for masked ones, above 0 for all that are left."""
    return positive(saliencies(precise(kernel_of(layer).detach()), curvature), layer)


@method
class OptimalBrainDamage(SecondOrderPruning):
    r"""Set the weights to zero that raise the loss least, by its curvature along each of them.

    $s_k = h_{kk} w_k^2 / 2$ with $h_{kk} = \partial^2 L / \partial w_k^2$, $L$ the mean cross entropy of the training
    images. "gauss-newton" is exact for networks of ReLU, max pooling and batch normalization, which are piecewise
    linear in each single weight; "sampled" estimates it in a single pass; "fisher" is the mean squared gradient of an
    image.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; layers that no image reaches; forms other than masked ones.
    Paper: LeCun, Denker, Solla 1990, Optimal brain damage, NIPS 2, section 2. Estimates of the curvature: Martens 2020,
    New insights and perspectives on the natural gradient method, arXiv:1412.1193.
    """

    sparsity: float = inherited(SecondOrderPruning, "sparsity")
    budget: str = inherited(SecondOrderPruning, "budget")
    curvature: str = knob(
        "gauss-newton", "the second derivative: exact, by squared gradients, or sampled", choices=CURVATURES
    )

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer that the images reach."""
        layers = prunable(task)
        scores = self.scores(task, layers)
        for name in [name for name in layers if name not in scores]:
            task.skip(name, UNREACHED)
            del layers[name]
        return with_masks(task, layers, self.masks(task, layers, scores))

    def scores(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Return the saliencies, in nats; weights that are masked already come before all others."""
        def curvature(x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return curvature_diagonals(task.model, layers, x, y, self.curvature, self.seed)

        found = self.remembered(task, layers, curvature, self.curvature)
        return {name: saliencies_of(layers[name], one) for name, one in found.items()}
