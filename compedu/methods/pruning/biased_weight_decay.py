"""Biased weight decay: small weights are pulled strongly to zero, large ones hardly at all."""

import torch  # noqa: F401  the doctests of this file use it
from torch import Tensor

from compedu.knobs import inherited, knob, method
from compedu.methods.pruning.shared.penalized import PenalizedPruning


def hyperbolic_bias(weight: Tensor, epsilon: float) -> Tensor:
    """Return the sum of |w| / (1 + epsilon |w|): the L1 norm for epsilon 0, a count / epsilon for a large one.

    Its gradient is sign(w) / (1 + epsilon |w|)^2 (Hanson, Pratt 1989, the hyperbolic bias).

    >>> hyperbolic_bias(torch.tensor([1.0, -3.0]), 1.0).item()
    1.25
    """
    size = weight.abs()
    return (size / (1 + epsilon * size)).sum()


@method
class BiasedWeightDecay(PenalizedPruning):
    r"""Fine-tune under a weight decay that is strong on small weights and spares large ones, then prune the smallest.

    $\min_w L(w) + \lambda \sum |w| / (1 + \varepsilon |w|)$: each weight is pulled by
    $\lambda\,\mathrm{sign}(w) / (1 + \varepsilon |w|)^2$, so that weights up to about $1/\varepsilon$ shrink together
    and larger ones are left alone. Because the penalty is part of the loss, AdamW divides its gradient by the typical
    size of gradients, and no weight becomes exactly zero before pruning. Add `| FineTune()` to retrain afterwards.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones. Biases are not penalized.
    Paper: Hanson, Pratt 1989, Comparing biases for minimal network construction with back-propagation, Advances in
    Neural Information Processing Systems 1, pages 177-185.
    """

    sparsity: float = inherited(PenalizedPruning, "sparsity")
    strength: float = inherited(PenalizedPruning, "strength")
    epsilon: float = knob(
        default=30.0,
        help="weights above 1 / epsilon are spared; 0 spares none",
        low=0,
        slider_range=(1.0, 1000.0),
        log=True,
    )

    def penalty_of(self, weight: Tensor) -> Tensor:
        """Return the biased penalty."""
        return hyperbolic_bias(weight, self.epsilon)
