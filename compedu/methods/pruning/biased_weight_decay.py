"""Biased weight decay: small weights are pulled to zero hard, large ones hardly at all."""

import torch  # noqa: F401  the doctests of this file use it
from torch import Tensor

from compedu.knobs import inherited, knob, method
from compedu.methods.pruning.shared.penalized import PenalizedPruning


def hyperbolic_bias(weight: Tensor, epsilon: float) -> Tensor:
    """Return the sum of |w| / (1 + epsilon |w|): the L1 norm for an epsilon of 0, a count / epsilon for a large one.

    Its gradient is sign(w) / (1 + epsilon |w|)^2 (Hanson, Pratt 1989, the hyperbolic bias).

    >>> hyperbolic_bias(torch.tensor([1.0, -3.0]), 1.0).item()
    1.25
    """
    size = weight.abs()
    return (size / (1 + epsilon * size)).sum()


@method
class BiasedWeightDecay(PenalizedPruning):
    r"""Train on under a decay that is strong on small weights and spares large ones, then set the smallest to zero.

    $\min_w L(w) + \lambda \sum |w| / (1 + \varepsilon |w|)$: each weight is pulled by
    $\lambda\,\mathrm{sign}(w) / (1 + \varepsilon |w|)^2$, so that weights up to about $1/\varepsilon$ shrink together
    and those beyond are left alone. As the penalty stands in the loss, AdamW divides its pull by the usual size of the
    gradient, and no weight becomes exactly zero before the cut. Nothing is retrained after it: `| FineTune()` does
    that.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones. Biases bear no penalty.
    Paper: Hanson, Pratt 1989, Comparing biases for minimal network construction with back-propagation, Advances in
    Neural Information Processing Systems 1, pages 177-185.
    """

    sparsity: float = inherited(PenalizedPruning, "sparsity")
    strength: float = inherited(PenalizedPruning, "strength")
    epsilon: float = knob(
        default=30.0,
        help="weights beyond one by this are spared; 0 spares none",
        low=0,
        slider_range=(1.0, 1000.0),
        log=True,
    )

    def penalty_of(self, weight: Tensor) -> Tensor:
        """Return the biased penalty."""
        return hyperbolic_bias(weight, self.epsilon)
