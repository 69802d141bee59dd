"""Pruning by regularization: an L1 or L2 penalty pulls weights to zero, and the smallest are pruned."""

from collections.abc import Mapping
from typing import Any

import torch  # noqa: F401  the doctests of this file use it
from torch import Tensor

from compedu.forms import Masked
from compedu.knobs import inherited, knob, method
from compedu.methods.pruning.shared.penalized import PenalizedPruning, proximal_hook
from compedu.methods.task import Task


def norm_penalty(weight: Tensor, penalty: str) -> Tensor:
    """Return the sum of |w| for "l1" (its gradient at zero is zero), half the sum of w^2 for "l2".

    >>> norm_penalty(torch.tensor([3.0, -4.0]), "l2").item()
    12.5
    """
    return weight.abs().sum() if penalty == "l1" else weight.square().sum() / 2


def proximal_step(weight: Tensor, amount: float, penalty: str) -> Tensor:
    """Return the v that minimizes the sum of (v - w)^2 / 2 plus amount * norm_penalty(v), in the shape of `weight`.

    For "l1" it is a soft threshold, for "l2" a common factor (Parikh, Boyd 2014, Proximal algorithms,
    doi:10.1561/2400000003, section 6).

    >>> proximal_step(torch.tensor([3.0, 0.5, -2.0]), 1.0, "l1").tolist()
    [2.0, 0.0, -1.0]
    """
    return weight.sign() * (weight.abs() - amount).clamp_min(0) if penalty == "l1" else weight / (1 + amount)


@method
class RegularizedPruning(PenalizedPruning):
    r"""Fine-tune under a penalty that pulls all weights to zero, then set the smallest to zero.

    $\min_w L(w) + \lambda \sum |w|$ or $L(w) + \frac{\lambda}{2} \sum w^2$. The subgradient step adds the penalty to
    the loss; the proximal step follows each update by $w \leftarrow \mathrm{sign}(w)\,\max(|w| - \eta_t \lambda, 0)$
    or $w / (1 + \eta_t \lambda)$, with that step's learning rate $\eta_t$: only this yields exact zeros in training,
    and they stay zero even beyond `sparsity`. The optimizer is AdamW, which divides each gradient by its typical size:
    as part of the loss the penalty is divided too, and dominates wherever the gradient of the loss is small, while the
    proximal step is decoupled, as AdamW's weight decay is, and weighs $\lambda$ against gradients of size 1. So the
    proximal step needs a much larger $\lambda$. Add `| FineTune()` to retrain after pruning.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones. Biases are not penalized.
    Paper: Han, Pool, Tran, Dally 2015, Learning both weights and connections, arXiv:1506.02626, sections 3.1 and 5 (L1
    and L2, then a cut); Parikh, Boyd 2014, Proximal algorithms, doi:10.1561/2400000003 (the step); Loshchilov, Hutter
    2017, arXiv:1711.05101 (decoupled decay).
    """

    sparsity: float = inherited(PenalizedPruning, "sparsity")
    strength: float = inherited(
        PenalizedPruning,
        "strength",
        default=0.5,
        slider_range=(1e-6, 3.0),
        help="weight of the penalty relative to the loss; try about 0.5 after each update, 0.0001 in the loss",
    )
    penalty: str = knob(default="l1", help="sum of absolute values or half the sum of squares", choices=("l1", "l2"))
    step: str = knob(
        default="proximal", help="the penalty after each update, or in the loss", choices=("proximal", "subgradient")
    )

    def hooks(self, task: Task, layers: Mapping[str, Masked]) -> dict[str, Any]:
        """Return the hook of the chosen step."""
        if self.step == "subgradient":
            return super().hooks(task, layers)

        def shrink(amount: float) -> None:
            for layer in [layer for layer in layers.values() if layer.latent.requires_grad]:
                layer.latent.copy_(proximal_step(layer.latent, amount, self.penalty))

        return proximal_hook(shrink, self.strength, self.recipe, len(task.data.x_train))

    def penalty_of(self, weight: Tensor) -> Tensor:
        """Return the penalty as it is added to the loss."""
        return norm_penalty(weight, self.penalty)
