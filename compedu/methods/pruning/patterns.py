"""N:M patterns: of every few consecutive weights a fixed number stays, so that hardware can skip the others in step."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import kernel_of
from compedu.knobs import knob, knobs, method
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.method import Task
from compedu.methods.pruning.masks import prunable, with_masks


def pattern_mask(scores: Tensor, keep: int, of: int) -> Tensor:
    """Return a boolean mask of the shape of `scores` (out, in, ...) that keeps the `keep` largest of every `of`.

    They lie along the input channels or, where these are no multiple of `of`, along the whole flattened fan-in. Ties
    drop the earlier. Raises `Skip` where the fan-in is no multiple either (Mishra et al. 2021, arXiv:2104.08378,
    section 3).

    >>> pattern_mask(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), 2, 4).tolist()
    [[True, False, False, True]]
    """
    if scores.shape[1] % of == 0:
        last = scores.movedim(1, -1)
        return _largest_of_groups(last, keep, of).movedim(-1, 1).contiguous()
    if math.prod(scores.shape[1:]) % of == 0:
        return _largest_of_groups(scores, keep, of)
    raise Skip(f"an output has {math.prod(scores.shape[1:])} weights, no multiple of {of}")


def _largest_of_groups(scores: Tensor, keep: int, of: int) -> Tensor:
    groups = scores.reshape(-1, of)
    lowest = groups.argsort(dim=1, stable=True)[:, : of - keep]
    return torch.ones_like(groups, dtype=torch.bool).scatter(1, lowest, False).view(scores.shape)


@method
class PatternPruning(SelectiveMethod):
    r"""Keep the largest few of every few consecutive weights along the inputs: N:M sparsity.

    $m_{ij} = [\,|w_{ij}|$ is among the `keep` largest of its `of`$]$; the groups lie along the input channels, for each
    place of a window by itself, or along the whole flattened fan-in where the channels are no multiple of `of`.
    Stored: the kept weights at full precision, and their positions.
    Skips: layers whose fan-in is no multiple of `of`; layers that are not linear or convolutional; forms other than
    masked ones.
    Paper: Mishra et al. 2021, Accelerating sparse deep neural networks, arXiv:2104.08378, section 3; Zhou et al. 2021,
    Learning N:M fine-grained structured sparse neural networks from scratch, arXiv:2102.04010.
    """

    topic: ClassVar[str] = "pruning"
    neutral: ClassVar[dict[str, Any]] = {"keep": 4}

    keep: int = knob(2, "weights that stay of each group", low=1, tour=(1, 4))
    of: int = knob(4, "consecutive weights of a group", low=2, tour=(2, 16), log=True)

    def __post_init__(self):
        super().__post_init__()
        if self.keep > self.of:
            raise ValueError(
                f"PatternPruning.keep must be at most of={self.of}, got {self.keep} ({knobs(self)['keep'].help})"
            )

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer that the pattern fits."""
        layers, masks = prunable(task), {}
        for name, layer in layers.items():
            try:
                masks[name] = pattern_mask(kernel_of(layer).detach().abs(), self.keep, self.of)
            except Skip as reason:
                task.skip(name, str(reason))
        return with_masks(task, {name: layers[name] for name in masks}, masks)
