"""Learned step sizes: training through the rounding, with the scales of the codes as parameters."""

from typing import ClassVar

import torch
from torch import nn

from compedu.forms import ActivationQuantizer, Quantized
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.quantization.linear import LinearQuantization
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod

SMALLEST = 1e-3  # of a scale, as a share of the smallest at the start: one of 0 would divide by zero
RATE = 0.1  # of the scales, as a share of the learning rate: they are much smaller than 1, and Adam's steps are not


@method
class LearnedStepQuantization(TrainingMethod, LinearQuantization):
    r"""Train through the rounding, and learn the distance between two levels with the weights.

    $\hat v = s\,\mathrm{clip}(\mathrm{round}(v / s), -q_{\max}, q_{\max})$ with
    $\partial \hat v / \partial s = \mathrm{round}(v / s) - v / s$ where $|v / s| < q_{\max}$, and $\pm q_{\max}$
    elsewhere; activations alike, from their zero-point. The gradient of $v$ passes straight through in the same range.
    Training starts from the scales that `clipping` chooses and from calibrated ranges; batch normalization is folded
    into its layer first. Of layers that were quantized before, the scales stay.
    Stored: the codes, $b$ bits each; the scales; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Esser, McKinstry, Bablani, Appuswamy, Modha 2020, Learned step size quantization, arXiv:1902.08153, section
    2; a learned clipping of activations alone: Choi et al. 2018, PACT, arXiv:1805.06085. Trained with Adam, on which
    the paper's scaling of the gradient of $s$ has no effect; $s$ learns at a tenth of the learning rate instead.
    """

    writes: ClassVar[bool] = True
    unscanned: ClassVar[tuple[str, ...]] = (*TrainingMethod.unscanned, *LinearQuantization.unscanned)

    bits: PerLayer[int] = inherited(LinearQuantization, "bits", default=2, low=2, slider_range=(2, 8))
    activation_bits: int = inherited(LinearQuantization, "activation_bits")
    epochs: int = inherited(TrainingMethod, "epochs", default=3)
    clipping: str = inherited(LinearQuantization, "clipping", default="mse")

    def compress(self, task: Task) -> nn.Module:
        """Round the network, then train it with the scales that this call made."""
        earlier = set(_scaled(task.model))
        model = LinearQuantization.compress(self, task)
        scaled = {name: module for name, module in _scaled(model).items() if name not in earlier}
        least = {name: float(module.scale.abs().amin()) * SMALLEST for name, module in scaled.items()}
        for module in scaled.values():
            module.learn_scale(True)

        @torch.no_grad()
        def keep_positive(network: nn.Module, step: int) -> None:
            for name, module in scaled.items():
                module.scale.clamp_(min=least[name])

        try:
            rates = {f"{name}.scale": RATE for name in scaled}
            return self.train(model, task.data, rates=rates, after_step=keep_positive)
        finally:
            for module in scaled.values():
                module.learn_scale(False)


def _scaled(model: nn.Module) -> dict[str, Quantized | ActivationQuantizer]:
    """Return all modules with a scale by name."""
    return {name: one for name, one in model.named_modules() if isinstance(one, (Quantized, ActivationQuantizer))}
