"""Which channels are coupled: every channel has a number of its own, which travels with it through the network.

The network's graph is followed on arrays in which each element is the number of the channel that it belongs to
(`following.py`). Where numbers meet, their channels are tied; where an operation cannot be followed, they are pinned.
The idea of coupled channels is that of Fang et al. (2023, arXiv:2301.12900, section 3).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

OUTPUT = "output"
INPUT = "input"
Side = tuple[str, str]  # layer name, OUTPUT or INPUT

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass
class Coupling:
    """The coupling that was found: equal and tied ids are removed together, pinned and fixed ids never.

    `ids[layer, side]` holds one id below `count` for each channel of that side, or the negative id -k of a fixed
    channel that no layer makes, which comes from `fixed[k - 1]` (such as "a free parameter"). `ties` are arrays of ids
    of shape (n, 2), `pins` pair ids with a reason.
    """

    ids: dict[Side, np.ndarray] = field(default_factory=dict)
    count: int = 0
    fixed: list[str] = field(default_factory=list)
    ties: list[np.ndarray] = field(default_factory=list)
    pins: list[tuple[np.ndarray, str]] = field(default_factory=list)

    def new(self, count: int) -> Tensor:
        """Return `count` ids that were not used before, (count,)."""
        self.count += count
        return torch.arange(self.count - count, self.count)

    def fix(self, source: str) -> int:
        """Return a negative id for channels that come from `source`, which removal cannot change."""
        if source not in self.fixed:
            self.fixed.append(source)
        return -1 - self.fixed.index(source)

    def from_where(self, fixed: int) -> str:
        """Return why channels that meet the negative id `fixed` must stay."""
        return f"its channels are added to or joined with {self.fixed[-1 - fixed]}"

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Tie ids of equal shape one by one; a channel that meets a fixed one is pinned."""
        pairs = torch.stack([first, second], -1)[first != second].unique(dim=0).numpy()
        free = (pairs >= 0).all(axis=1)
        self.ties.append(pairs[free])
        for fixed in np.unique(pairs[~free].min(axis=1)).tolist():
            met = pairs[~free][pairs[~free].min(axis=1) == fixed].max(axis=1)
            self.pins.append((met[met >= 0], self.from_where(fixed)))

    def pin(self, ids: Tensor, reason: str) -> None:
        """Keep all channels whose ids are in `ids`."""
        mentioned = ids.unique().numpy()
        self.pins.append((mentioned[mentioned >= 0], reason))

    def put(self, side: Side, ids: Tensor) -> None:
        """Give the channels of one side of a layer their ids, tied to any that they already have."""
        if side in self.ids:
            self.tie(torch.from_numpy(self.ids[side]), ids)
        else:
            self.ids[side] = ids.numpy().copy()

    def hold(self, ids: Tensor, dim: int) -> Tensor:
        """Tie all slices of `ids` along `dim`, so that each loses the same channels; return them with equal slices."""
        if not varies(ids, dim):
            return ids
        common = ids.amax(dim, keepdim=True).expand_as(ids)  # prefers a channel's id to a fixed one
        self.tie(common, ids)
        return common

    def along(self, ids: Tensor, dim: int) -> Tensor:
        """Return the ids along `dim`, (size,), after tying all that a layer reads at one place of that dimension."""
        for other in range(ids.dim()):
            if other != dim % ids.dim():
                ids = self.hold(ids, other).narrow(other, 0, 1)
        return ids.flatten()

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the ids of an element-wise operation on two broadcast tensors, whose channels are tied one by one.

        A value that is broadcast over several channels, as a mask is, does not tie these to each other.
        """
        shape = torch.broadcast_shapes(first.shape, second.shape)
        one, other = (essence(ids.reshape([1] * (len(shape) - ids.dim()) + list(ids.shape))) for ids in (first, second))
        if spread(one, second, shape) or spread(other, first, shape):
            one, other = (other, one) if spread(other, first, shape) else (one, other)
            if other.numel() > 1:
                raise Unfollowed("which broadcasts channels over other channels")
            self.pin(other, "each of its channels is broadcast over several others")
            return one.expand(shape)
        one, other = torch.broadcast_tensors(one, other)
        common = torch.maximum(one, other)
        self.tie(common, one)
        self.tie(common, other)
        return common.expand(shape)


class Unfollowed(Exception):
    """An operation whose effect on channels cannot be followed; the message is a clause such as "which mixes them"."""


def varies(ids: Tensor, dim: int) -> bool:
    """Return whether `dim` has several channels."""
    return ids.size(dim) > 1 and ids.stride(dim) != 0 and bool((ids != ids.narrow(dim, 0, 1)).any())


def essence(ids: Tensor) -> Tensor:
    """Return `ids` with a single slice of each dimension along which they do not vary."""
    for dim in range(ids.dim()):
        if not varies(ids, dim):
            ids = ids[(slice(None),) * dim + (slice(0, 1),)]
    return ids


def spread(one: Tensor, second: Tensor, shape: torch.Size) -> bool:
    """Return whether `second` is broadcast over a dimension of `shape` along which `one` (an essence) varies."""
    sizes = [1] * (len(shape) - second.dim()) + list(second.shape)
    return any(size == 1 and one.size(dim) > 1 for dim, size in enumerate(sizes))


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether `layer` is a convolution with one input and one output channel in each of several groups."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1
