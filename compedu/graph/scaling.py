"""Channels that can be scaled: divided where they are made and multiplied where they are read, and nothing changes.

Between the two only operations may stand that are positively homogeneous, f(c x) = c f(x) for c > 0, as ReLU and
pooling are (Nagel et al. 2019, arXiv:1906.04721, section 4.1). Channels are followed as for their removal.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from compedu.errors import CompressionError
from compedu.graph.coupling import BATCH_NORMS, INPUT, OUTPUT, Coupling, Side, Unfollowed
from compedu.graph.following import Follower
from compedu.graph.grouping import labels_of
from compedu.graph.operations import ELEMENTWISE, Call, moved, moves
from compedu.graph.own_hooks import has_own_forward, refuse_hooks
from compedu.graph.reading import followed
from compedu.graph.trace import owners_read_apart, shared_weights, trace

# Element-wise operations on one tensor that pass a positive factor on.
HOMOGENEOUS = frozenset("""
    abs alphadropout clone contiguous detach dropout dropout1d dropout2d dropout3d featurealphadropout identity
    leakyrelu prelu relu rrelu stochasticdepth
""".split())  # fmt: skip
# Norms that end in a factor and an offset for each channel, and the dimension of the channels.
NORMS = {nn.LayerNorm: -1, nn.RMSNorm: -1, nn.GroupNorm: 1} | dict.fromkeys(BATCH_NORMS, 1)


@dataclass(frozen=True, eq=False)
class Scalable:
    """The channels 0..count-1 of a network that can be scaled.

    `makers` are norms and layers, each with the channel that every one of its outputs is; `readers` are layers, each
    with the channel that every one of its inputs is; -1 where that keeps its scale. `obstacles` says of each layer
    asked about that has such inputs why.
    """

    count: int
    makers: dict[str, Tensor]
    readers: dict[str, Tensor]
    obstacles: dict[str, str]

    def largest(self, values: dict[str, Tensor]) -> Tensor:
        """Return for each channel the largest of `values`, one for each input of a reader; 0 without any, (count,)."""
        result = torch.zeros(self.count + 1, dtype=torch.float64)  # the last is that of -1
        for name, numbers in self.readers.items():
            if name in values:
                result.scatter_reduce_(0, numbers % (self.count + 1), values[name].double().cpu(), "amax")
        return result[:-1]


def scalable_channels(model: nn.Module, layers: Collection[str], example: Tensor) -> Scalable:
    """Return the channels of `model` that only norms and the given `layers` make and only `layers` read.

    The layers are ordinary or masked, linear or convolutional; other layers and their channels stay. `example` is a
    batch of inputs, of which only the shape matters. Raises `CompressionError` when the network cannot be traced or
    its channels cannot be followed, and for forward hooks, which would see other values.
    """
    refuse_hooks(model)
    traced = trace(model)
    if written := traced.meta["written"]:
        raise CompressionError(f"{type(model).__name__} changes {', '.join(written)} when it runs, unseen by its graph")
    coupling, graphs = followed(model, traced, example, _ScaleFollower)
    _pin(coupling, model, layers, graphs)
    labels = np.append(labels_of(coupling) if coupling.count else [], -1).astype(int)  # the last is that of no channel
    kept = {int(label): reason for ids, reason in reversed(coupling.pins) for label in labels[ids]}

    def channels(side: Side) -> np.ndarray:
        return labels[np.maximum(coupling.ids[side], -1)]

    makes = [name for name, side in coupling.ids if side == OUTPUT and _rescales(model, name, layers)]
    reads = [name for name, side in coupling.ids if side == INPUT and name in layers]
    made = {int(label) for name in makes for label in channels((name, OUTPUT))}
    read = {int(label) for name in reads for label in channels((name, INPUT))}
    free = sorted((made & read) - kept.keys() - {-1})
    number = np.full(len(labels), -1)
    number[free] = np.arange(len(free))

    def numbers(names: list[str], side: str) -> dict[str, Tensor]:
        return {name: torch.from_numpy(number[channels((name, side))]) for name in names}

    readers = numbers(reads, INPUT)
    reasons = {name: [_reason(one, labels, kept, coupling) for one in coupling.ids[name, INPUT]] for name in reads}
    obstacles = {name: _obstacle(readers.get(name), reasons.get(name, ())) for name in layers}
    return Scalable(len(free), numbers(makes, OUTPUT), readers, {name: why for name, why in obstacles.items() if why})


class _ScaleFollower(Follower):
    """Follows channels as far as a positive factor in each of them is passed on."""

    def call_module(self, target, args, kwargs):
        """Follow a module, unless it runs a function of the user's."""
        if has_own_forward(self.model.get_submodule(target)):
            raise Unfollowed("which has a forward of its own")
        return super().call_module(target, args, kwargs)

    def dim_of(self, layer: nn.Module) -> int | None:
        """Return the dimension of the channels of a layer or norm, None for other modules."""
        return NORMS.get(type(layer), super().dim_of(layer))

    def passes(self, layer: nn.Module) -> bool:
        """Return whether `layer` passes the factor of each channel on."""
        return isinstance(layer, nn.PReLU)

    def through(self, name: str, call: Call, shape: Sequence[int] | None) -> Any:
        """Return the ids after an operation, which must be positively homogeneous; `shape` is that of its result."""
        if moves(name, call):  # to any place: unlike channels that are removed, scaled ones leave no gap
            return moved(name, call)
        if not _is_homogeneous(name, call):
            joined = len(call.tensors) > 1
            raise Unfollowed("which joins them with others" if joined else "through which no scale is known to pass")
        return super().through(name, call, shape)


def _is_homogeneous(name: str, call: Call) -> bool:
    """Return whether an operation that reduces, pads or treats each element alone passes a positive factor on."""
    if name in ELEMENTWISE:
        return name in HOMOGENEOUS
    return not (call.argument(3, "value", None) if name == "pad" else name.startswith("constantpad"))


def _pin(coupling: Coupling, model: nn.Module, layers: Collection[str], graphs: list[fx.GraphModule]) -> None:
    """Keep the channels that anything makes or reads that is not scaled."""
    tied = shared_weights(model)
    apart = set().union(*map(owners_read_apart, graphs))
    for (name, side), ids in coupling.ids.items():
        layer = model.get_submodule(name)
        norm = type(layer) in NORMS
        if isinstance(layer, nn.PReLU):
            continue
        if name in tied:
            why = f"shares a parameter with {tied[name]!r}"
        elif name in apart:
            why = "has tensors that the network also reads directly"
        elif norm and side == INPUT:
            why = "does not pass their scales on"
        elif not _rescales(model, name, layers):
            why = "has no factor for each channel" if norm else "stays as it is"
        else:
            continue
        does = "made" if side == OUTPUT else "read"
        coupling.pin(torch.from_numpy(ids), f"its channels are {does} by {name!r}, a {type(layer).__name__} that {why}")


def _rescales(model: nn.Module, name: str, layers: Collection[str]) -> bool:
    """Return whether the outputs of `name` can be scaled: one of `layers`, or a norm with a factor for each channel."""
    layer = model.get_submodule(name)
    weight = layer._parameters.get("weight")
    return name in layers or (type(layer) in NORMS and weight is not None and weight.dim() == 1)


def _reason(one: int, labels: np.ndarray, kept: dict[int, str], coupling: Coupling) -> str:
    """Return why the channel with the id `one` keeps its scale, "" if it does not."""
    return f"they are {coupling.fixed[-1 - one]}" if one < 0 else kept.get(int(labels[one]), "")


def _obstacle(numbers: Tensor | None, reasons: Iterable[str]) -> str:
    """Return why inputs of a layer, of these channel `numbers`, keep their scale, "" if none does."""
    if numbers is None:
        return "its inputs keep their scale: the network does not call it as a separate layer"
    count = int((numbers < 0).sum())
    which = "its inputs" if count == len(numbers) else f"{count} of its {len(numbers)} inputs"
    return f"{which} keep their scale: {next(filter(None, reasons))}" if count else ""
