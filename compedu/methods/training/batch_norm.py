"""Batch-norm re-estimation: after pruning, the means and variances of all batch norms are measured again."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compedu.errors import CompressionError
from compedu.evaluation import logits_of
from compedu.forms import precise
from compedu.knobs import method
from compedu.methods.calibration import calibration_knob, calibration_set
from compedu.methods.hooks import hooked
from compedu.methods.method import Method
from compedu.methods.task import Task


def population(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel of `x` (N, channels, ...) over all other axes.

    >>> population(torch.tensor([[1.0], [3.0]]))
    (tensor([2.]), tensor([1.]))
    """
    variance, mean = torch.var_mean(precise(x), [dim for dim in range(x.ndim) if dim != 1], correction=0)
    return mean, variance


@method
class BatchNormReestimation(Method):
    r"""Measure the means and variances of all batch norms again, on the network as it is now.

    $\mu_c = \mathrm{mean}(x_c)$ and $\sigma_c^2 = \mathrm{mean}((x_c - \mu_c)^2)$ over images and positions, one norm
    after the other: the inputs of a norm are normalized by the new statistics of those before it. All images pass at
    once, so the result does not depend on batches. No weight changes, and no gradient is needed.
    Stored: what was stored before; no byte is added.
    Skips: batch norms without running statistics, that no image reaches, or that are used more than once.
    Paper: Li, Wu, Su, Wang, Lin 2020, EagleEye: fast sub-net evaluation for efficient neural network pruning,
    arXiv:2007.02491, section 3.
    """

    family: ClassVar[str] = "training"
    needs_batch_norm: ClassVar[bool] = True

    calibration_images: int = calibration_knob("training images that are used, all at once", default=256, low=2)

    @property
    def needs(self) -> str:
        """Training images, without their labels."""
        return "calibration"

    def compress(self, task: Task) -> nn.Module:
        """Set the running statistics of every batch norm that runs once, in the order in which they run."""
        norms = self.norms(task)
        task.refuse_if_nothing_done(len(norms))
        with hooked(norms, before=self.measure):
            logits_of(task.model, calibration_set(task.data, self.calibration_images)[0], task.data)
        return task.model

    def norms(self, task: Task) -> dict[str, nn.Module]:
        """Return by name the batch norms whose statistics can be measured; record why others are skipped."""
        norms = {name: module for name, module in task.model.named_modules() if isinstance(module, _BatchNorm)}
        uses = dict.fromkeys(norms, 0)

        def count(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            uses[name] += 1

        with hooked(norms, before=count):
            logits_of(task.model, task.data.example, task.data)
        if not norms:
            task.skip("(network)", "has no batch norm")
        for name, norm in norms.items():
            if norm.running_mean is None:
                task.skip(name, "has no running statistics: it uses those of each batch")
            elif uses[name] != 1:
                task.skip(name, f"is used {uses[name]} times in a pass" if uses[name] else "no image reaches it")
        return {name: norm for name, norm in norms.items() if norm.running_mean is not None and uses[name] == 1}

    def measure(self, name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Set the running statistics of the batch norm called `name` to those of its inputs.

        Raises `CompressionError` for one value per channel, whose variance would be 0.
        """
        x = inputs[0]
        if (count := math.prod(x.shape) // x.shape[1]) < 2:
            raise CompressionError(
                f"{self!r}: {name} reads {count} value per channel (shape {tuple(x.shape)}), and a variance needs at "
                "least 2; use more training images"
            )
        mean, variance = population(x)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
