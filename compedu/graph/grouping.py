"""Groups of coupled channels: the connected parts of a coupling, without what is pinned."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from compedu.forms.form import Form
from compedu.graph.coupling import BATCH_NORMS, INPUT, OUTPUT, Coupling, Side, is_depthwise, leaves


@dataclass(frozen=True, eq=False)
class Member:
    """One side of a layer in a group: `channels[i]` is the group's channel that channel i of that side is, or -1.

    `role` is "producer" (filters of a Conv2d or Linear), "depthwise" (filters that follow a producer's channels),
    "normalization" (batch norm), "activation" (PReLU) or "consumer" (inputs of a Conv2d or Linear).
    """

    layer: str
    role: str
    channels: Tensor

    @property
    def side(self) -> str:
        """Which side of the layer the channels are on."""
        return INPUT if self.role == "consumer" else OUTPUT


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels 0..size-1 that can be removed one by one, each from all `members` at once; named by its first producer.

    In a group without grouped convolutions or fixed channels, channel i is filter i of the layer `name`.
    """

    name: str
    size: int
    members: tuple[Member, ...]

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers whose filters make the channels, in the order in which they run."""
        return tuple(member.layer for member in self.members if member.role == "producer")

    def totals(self, layer: str, values: Tensor) -> Tensor:
        """Return for each channel of the group the sum of `values`, one per filter of producer `layer`."""
        channels = next(m.channels for m in self.members if m.layer == layer and m.role == "producer")
        used = channels >= 0
        return values.new_zeros(self.size).index_add(0, channels[used].to(values.device), values[used])

    def removable(self, fraction: float, round_to: int = 1) -> int:
        """Return how many channels to remove: `fraction` of them, but as many kept as make a multiple of `round_to`.

        The number kept is rounded up, never above the present size and never to zero. Raises `ValueError` for a
        `fraction` outside [0, 1) or a `round_to` below 1.
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction is {fraction}; it must be at least 0 and below 1, so that a channel is left")
        if round_to < 1:
            raise ValueError(f"round_to is {round_to}; it must be at least 1")
        # As a decimal fraction, since 0.29 * 100 is below 29 in floating point.
        kept = self.size - math.floor(Fraction(str(fraction)) * self.size)
        return self.size - min(self.size, math.ceil(kept / round_to) * round_to)


def collect_groups(
    coupling: Coupling, model: nn.Module, order: Iterable[str]
) -> tuple[tuple[ChannelGroup, ...], tuple[tuple[str, str], ...]]:
    """Return the groups and, for each Conv2d, Linear or form that makes no removable channel, its name and the reason.

    `order` gives the layers as they run; groups are sorted by their first producer.
    """
    rank = {name: position for position, name in enumerate(order)}
    sides = sorted(coupling.ids, key=lambda side: (side[1] == INPUT, rank.get(side[0], len(rank))))
    labels = _labels(coupling)
    reasons = {int(label): reason for ids, reason in reversed(coupling.pins) for label in labels[ids]}
    free = np.ones(len(labels) + 1, dtype=bool)
    free[list(reasons)] = False
    groups = []
    for component in _components(coupling, labels, sides):
        group = _group(component, coupling, labels, free, model)
        if group is not None:
            groups.append(group)
    groups.sort(key=lambda group: rank.get(group.name, len(rank)))
    makes = {member.layer for group in groups for member in group.members if member.side == OUTPUT}
    left_out = []
    for name, layer in leaves(model):
        if isinstance(layer, (nn.Conv2d, nn.Linear, Form)) and name not in makes:
            left_out.append((name, _reason(name, coupling, labels, reasons)))
    return tuple(groups), tuple(left_out)


def _labels(coupling: Coupling) -> np.ndarray:
    """Return for each id the number of the channel that it means: tied ids have equal numbers."""
    count = len(coupling.origin)
    ties = np.concatenate([np.empty((0, 2), dtype=int), *coupling.ties])
    edges = coo_array((np.ones(len(ties)), (ties[:, 0], ties[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def _components(coupling: Coupling, labels: np.ndarray, sides: list[Side]) -> list[tuple[set[int], list[Side]]]:
    """Return the labels and the sides of each connected part: torch-pruning's groups, joined where a tie joins them."""
    origin = np.asarray(coupling.origin, dtype=int)
    count = origin.max(initial=-1) + 1
    size = count + len(labels)
    edges = coo_array((np.ones(len(origin)), (origin, count + labels)), shape=(size, size))
    part = connected_components(edges, directed=False)[1]
    found: dict[int, tuple[set[int], list[Side]]] = {int(part[i]): (set(), []) for i in origin}
    for label in set(labels.tolist()):
        found[int(part[count + label])][0].add(label)
    for side in sides:
        ids = coupling.ids[side]
        for number in set(part[origin[ids[ids >= 0]]].tolist()):
            found[number][1].append(side)
    return list(found.values())


def _group(component, coupling: Coupling, labels: np.ndarray, free: np.ndarray, model: nn.Module) -> ChannelGroup | None:
    inside, sides = component
    allowed = np.zeros(len(labels) + 1, dtype=bool)
    allowed[list(inside)] = True
    allowed &= free
    # Label -1 stands for a channel with no id; it indexes the last, never allowed entry.
    of_side = {side: np.where(coupling.ids[side] >= 0, labels[coupling.ids[side]], -1) for side in sides}
    seen = np.concatenate([found[allowed[found]] for found in of_side.values()])
    kinds, first = np.unique(seen, return_index=True)
    if len(kinds) < 2:  # a single channel cannot be removed
        return None
    number = np.full(len(labels) + 1, -1)
    number[kinds[np.argsort(first)]] = np.arange(len(kinds))
    members = [
        Member(side[0], _role(model.get_submodule(side[0]), side[1]), torch.from_numpy(number[found]))
        for side, found in of_side.items()
        if (number[found] >= 0).any()
    ]
    return ChannelGroup(next(m.layer for m in members if m.role == "producer"), len(kinds), tuple(members))


def _role(layer: nn.Module, side: str) -> str:
    if side == INPUT:
        return "consumer"
    if isinstance(layer, BATCH_NORMS):
        return "normalization"
    if isinstance(layer, nn.PReLU):
        return "activation"
    return "depthwise" if is_depthwise(layer) else "producer"


def _reason(name: str, coupling: Coupling, labels: np.ndarray, reasons: dict[int, str]) -> str:
    ids = coupling.ids.get((name, OUTPUT))
    if ids is None:
        return "the network does not call it as a layer of its own"
    pinned = [reasons[label] for label in labels[ids[ids >= 0]].tolist() if label in reasons]
    return pinned[0] if pinned else "its channels are coupled into a single one, which cannot be removed"
