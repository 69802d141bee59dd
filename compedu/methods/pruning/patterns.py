"""N:M sparsity: of every M consecutive weights N stay, a regular pattern whose zeros hardware can skip."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.forms import weight_of
from compedu.knobs import knob, knobs, method
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.pruning.shared.masks import prunable, with_masks
from compedu.methods.task import Task


def pattern_mask(scores: Tensor, keep: int, of: int) -> Tensor:
    """Return a boolean mask of the shape of `scores` (out, in, ...) that keeps the `keep` largest of every `of`.

    Groups run along the input channels or, if these are not a multiple of `of`, along the whole flattened fan-in
    (Mishra et al. 2021, arXiv:2104.08378, section 3). A fan-in that is not a multiple either ends in a shorter group,
    which counts as padded with zeros, as kernels for the pattern have to pad it. Ties drop the earlier.

    >>> pattern_mask(torch.tensor([[3.0, 1.0, 2.0, 4.0, 0.5]]), 2, 4).tolist()
    [[True, False, False, True, True]]
    """
    if scores.shape[1] % of == 0:
        last = scores.movedim(1, -1)
        return _largest_of_groups(last.flatten(0, -2), keep, of).view(last.shape).movedim(-1, 1).contiguous()
    return _largest_of_groups(scores.flatten(1), keep, of).view(scores.shape)


def _largest_of_groups(rows: Tensor, keep: int, of: int) -> Tensor:
    size = rows.shape[1]
    of = max(keep, min(of, size))  # a group is at most one row
    groups = F.pad(rows, (0, -size % of), value=-torch.inf).view(len(rows), -1, of)  # padding goes first
    lowest = groups.argsort(dim=2, stable=True)[:, :, : of - keep]
    return torch.ones_like(groups, dtype=torch.bool).scatter(2, lowest, False).view(len(rows), -1)[:, :size]


@method
class PatternPruning(SelectiveMethod):
    r"""Keep the N largest of every M consecutive weights along the inputs: N:M sparsity.

    $m_{ij} = [\,|w_{ij}|$ is among the `keep` largest of its `of`$]$; the groups run along the input channels, for each
    kernel position separately, or along the whole flattened fan-in if the channels are not a multiple of `of`. The last
    group of a fan-in may be shorter.
    Stored: the kept weights at full precision, and their positions.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Mishra et al. 2021, Accelerating sparse deep neural networks, arXiv:2104.08378, section 3; Zhou et al. 2021,
    Learning N:M fine-grained structured sparse neural networks from scratch, arXiv:2102.04010.
    """

    family: ClassVar[str] = "pruning"
    version: ClassVar[int] = 2
    writes: ClassVar[bool] = False
    identity_settings: ClassVar[dict[str, Any]] = {"keep": 4}

    keep: int = knob(default=2, help="weights kept in each group", low=1, slider_range=(1, 4))
    of: int = knob(default=4, help="consecutive weights in a group", low=2, slider_range=(2, 16), log=True)

    def __post_init__(self):
        super().__post_init__()
        if self.keep > self.of:
            raise ValueError(
                f"PatternPruning.keep must be at most of={self.of}, got {self.keep} ({knobs(self)['keep'].help})"
            )

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer."""
        layers = prunable(task)
        sizes = {name: weight_of(layer).detach().abs() for name, layer in layers.items()}
        return with_masks(task, layers, {name: pattern_mask(size, self.keep, self.of) for name, size in sizes.items()})
