"""Groups of coupled channels: those that a coupling leaves free, together where they concern the same layers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from compedu.forms.form import Form
from compedu.forms.walk import outside_forms
from compedu.graph.coupling import BATCH_NORMS, INPUT, OUTPUT, Coupling, Side, is_depthwise


def part_of(fraction: float, count: int) -> int:
    """Return floor(fraction * count), with `fraction` in decimal: as floats, 0.29 * 100 is below 29.

    >>> part_of(0.29, 100)
    29
    """
    return math.floor(Fraction(str(fraction)) * count)


class Role(StrEnum):
    """What a layer does with the channels of a group."""

    PRODUCER = "producer"  # filters of a Conv2d or Linear
    DEPTHWISE = "depthwise"  # filters that follow a producer's channels
    NORMALIZATION = "normalization"  # batch norm
    ACTIVATION = "activation"  # PReLU
    CONSUMER = "consumer"  # inputs of a Conv2d or Linear


@dataclass(frozen=True, eq=False)
class Member:
    """One side of a layer in a group: `channels[i]` is the group's channel that channel i of that side is, or -1.

    `run` is how many places in a row are one channel from the start on, such as the pixels of a flattened image; places
    of channels that are tied to each other, as by a grouped convolution, are not.
    """

    layer: str
    role: Role
    channels: Tensor
    run: int = 1

    @property
    def side(self) -> str:
        """Which side of the layer the channels are on."""
        return INPUT if self.role == Role.CONSUMER else OUTPUT


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels 0..size-1 that can be removed or copied one by one, each in all `members` at once.

    Named by its first producer, or "layer/2" where that layer's channels take different paths and form several groups.
    Channels are in the order of that producer's filters, and have their numbers where all its filters belong to the
    group and no grouped convolution couples them.
    """

    name: str
    size: int
    members: tuple[Member, ...]

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers whose filters make the channels, in order of execution."""
        return tuple(member.layer for member in self._members(Role.PRODUCER))

    @property
    def makers(self) -> tuple[Member, ...]:
        """The members with filters that make the channels: producers and the depthwise convolutions after them."""
        return self._members(Role.PRODUCER, Role.DEPTHWISE)

    @property
    def normalizations(self) -> tuple[Member, ...]:
        """The batch norms of the channels."""
        return self._members(Role.NORMALIZATION)

    @property
    def activations(self) -> tuple[Member, ...]:
        """The activations with parameters for each channel."""
        return self._members(Role.ACTIVATION)

    @property
    def readers(self) -> tuple[Member, ...]:
        """The members with inputs that read the channels."""
        return self._members(Role.CONSUMER)

    def _members(self, *roles: Role) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.role in roles)

    def filters(self, producer: str) -> Tensor:
        """Return which channel each filter of the layer called `producer` makes, (filters,), or -1."""
        return next(maker.channels for maker in self.makers if maker.layer == producer)

    def totals(self, channels: Tensor, values: Tensor) -> Tensor:
        """Return for each channel of the group the sum of `values`, one (or a row) for each entry of `channels`."""
        used = channels >= 0
        zeros = values.new_zeros(self.size, *values.shape[1:])
        return zeros.index_add(0, channels[used].to(values.device), values[used])

    def removable(self, fraction: float, round_to: int = 1) -> int:
        """Return how many channels to remove: `fraction` of them, such that a multiple of `round_to` is kept.

        The number kept is rounded up, never above the current size and never to zero. Raises `ValueError` for a
        `fraction` outside [0, 1) or a `round_to` below 1.
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction is {fraction}; it must be at least 0 and below 1, so that a channel is left")
        if round_to < 1:
            raise ValueError(f"round_to is {round_to}; it must be at least 1")
        return self.rounded(part_of(fraction, self.size), round_to)

    def rounded(self, count: int, round_to: int) -> int:
        """Return how many of `count` channels to remove, so that a multiple of `round_to` is kept, or all."""
        return self.size - min(self.size, math.ceil((self.size - count) / round_to) * round_to)


def collect_groups(
    coupling: Coupling, model: nn.Module, order: Iterable[str]
) -> tuple[tuple[ChannelGroup, ...], tuple[ChannelGroup, ...], tuple[tuple[str, str], ...]]:
    """Return the groups, those of a single channel, and which layers make no removable channel, each with the reason.

    `order` gives the layers in order of execution; groups are sorted by their first producer. A single channel can be
    copied, but not removed. The layers are Conv2d, Linear and forms.
    """
    rank = {name: position for position, name in enumerate(order)}
    sides = sorted(coupling.ids, key=lambda side: (side[1] == INPUT, rank.get(side[0], len(rank))))
    labels = labels_of(coupling)
    reasons = {int(label): reason for ids, reason in reversed(coupling.pins) for label in labels[ids]}
    # Channels with the same members form a group: as long as each group keeps one, no layer becomes empty.
    where: dict[int, list[Side]] = {}
    for side in sides:
        for label in set(labels[_found(coupling, side)].tolist()) - reasons.keys():
            where.setdefault(label, []).append(side)
    alike: dict[tuple[Side, ...], list[int]] = {}
    for label, members in where.items():
        alike.setdefault(tuple(members), []).append(label)
    found = [_group(of, members, coupling, labels, model) for members, of in alike.items()]
    found.sort(key=lambda group: (group.size == 1, rank.get(group.name, len(rank))))
    named = _with_distinct_names(found)
    groups = tuple(group for group in named if group.size > 1)
    makes = {member.layer for group in groups for member in group.members if member.side == OUTPUT}
    left_out = tuple(
        (name, _reason(name, coupling, labels, reasons))
        for name, layer in outside_forms(model)
        if isinstance(layer, (nn.Conv2d, nn.Linear, Form)) and name not in makes
    )
    return groups, named[len(groups) :], left_out


def labels_of(coupling: Coupling) -> np.ndarray:
    """Return for each id the number of its channel: tied ids have equal numbers, as connected components."""
    ties = np.concatenate([np.empty((0, 2), dtype=int), *coupling.ties])
    shape = (coupling.count, coupling.count)
    return connected_components(coo_array((np.ones(len(ties)), (ties[:, 0], ties[:, 1])), shape), directed=False)[1]


def _found(coupling: Coupling, side: Side) -> np.ndarray:
    ids = coupling.ids[side]
    return ids[ids >= 0]


def _group(
    of: list[int], sides: tuple[Side, ...], coupling: Coupling, labels: np.ndarray, model: nn.Module
) -> ChannelGroup:
    # In the order in which the first member has them; a channel without an id has label -1, which is never numbered.
    inside = set(of)
    order = dict.fromkeys(label for label in labels[_found(coupling, sides[0])].tolist() if label in inside)
    number = np.full(len(labels) + 1, -1)
    number[list(order)] = np.arange(len(order))
    members = []
    for name, side in sides:
        ids = coupling.ids[name, side]
        channels = torch.from_numpy(number[np.where(ids >= 0, labels[np.maximum(ids, 0)], -1)])
        run = _first_run(ids[channels.numpy() >= 0])
        members.append(Member(name, _role(model.get_submodule(name), side), channels, run))
    lead = next((member.layer for member in members if member.role == Role.PRODUCER), members[0].layer)
    return ChannelGroup(lead, len(order), tuple(members))


def _first_run(ids: np.ndarray) -> int:
    """Return how many of `ids`, at least one, are equal to the first before another follows."""
    return int(np.argmax(ids != ids[0])) or len(ids)


def _with_distinct_names(groups: list[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        count = seen[group.name]
        named.append(group if count == 1 else replace(group, name=f"{group.name}/{count}"))
    return tuple(named)


def _role(layer: nn.Module, side: str) -> Role:
    if side == INPUT:
        return Role.CONSUMER
    if isinstance(layer, BATCH_NORMS):
        return Role.NORMALIZATION
    if isinstance(layer, nn.PReLU):
        return Role.ACTIVATION
    return Role.DEPTHWISE if is_depthwise(layer) else Role.PRODUCER


def _reason(name: str, coupling: Coupling, labels: np.ndarray, reasons: dict[int, str]) -> str:
    if (name, OUTPUT) not in coupling.ids:
        return "the network does not call it as a separate layer"
    pinned = [reasons[label] for label in labels[_found(coupling, (name, OUTPUT))].tolist() if label in reasons]
    pinned += [coupling.from_where(fixed) for fixed in coupling.ids[name, OUTPUT].tolist() if fixed < 0]
    return pinned[0] if pinned else "its channels are coupled into a single one, which cannot be removed"
