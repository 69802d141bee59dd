"""Channels chosen by index: where each is in a layer, which may be nowhere, elsewhere or in several places."""

from collections.abc import Collection, Iterable, Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor

from compedu.errors import CompressionError
from compedu.graph.grouping import ChannelGroup, Member


def checked_choice(group: ChannelGroup, numbers: Iterable[int]) -> tuple[int, ...]:
    """Return the channels of `group` in the order given; raise `CompressionError` for none, or for one it lacks."""
    chosen = tuple(int(number) for number in numbers)
    if not chosen:
        raise CompressionError(
            f"all {group.size} channels of group {group.name!r} would be removed; keep at least one, its layers need it"
        )
    _refuse_outside(group, chosen, "choose")
    return chosen


def kept_channels(group: ChannelGroup, removed: Iterable[int]) -> tuple[int, ...]:
    """Return the channels of `group` without those `removed`; raise `CompressionError` for one it lacks, or for all."""
    gone = {int(number) for number in removed}
    _refuse_outside(group, gone, "remove")
    return checked_choice(group, sorted(set(range(group.size)) - gone))


def _refuse_outside(group: ChannelGroup, numbers: Collection[int], doing: str) -> None:
    if numbers and not (min(numbers) >= 0 and max(numbers) < group.size):
        raise CompressionError(
            f"channel group {group.name!r} has channels 0 to {group.size - 1}; asked to {doing} {min(numbers)} to "
            f"{max(numbers)}"
        )


class Places:
    """Which channel of a layer's side is at each place of its new side; at first every channel is at its own.

    A side may have channels of several groups; each group is chosen from on its own.
    """

    def __init__(self, channels: int):
        self._at = [[place] for place in range(channels)]

    def choose(self, group: ChannelGroup, member: Member, chosen: Sequence[int]) -> None:
        """Put the channels `chosen` of `group` in the places of all its channels.

        Channels can be left out anywhere. Another order, or a repeated channel, needs the channels of the group to be
        contiguous and in order, each time that they occur: only then is the place of a copy clear. Raises
        `CompressionError` otherwise.
        """
        if all(one < other for one, other in pairwise(chosen)):
            gone = torch.ones(group.size + 1, dtype=torch.bool)
            gone[list(chosen)] = False
            gone[-1] = False  # -1 stands for channels that are not of this group
            for place in gone[member.channels].nonzero().flatten().tolist():
                self._at[place] = []
            return
        for runs in _repeats(group, member):
            moved = [list(runs[number]) for number in chosen]
            for place in chain.from_iterable(runs):
                self._at[place] = []
            self._at[runs[0][0]] = list(chain.from_iterable(moved))

    def index(self) -> Tensor:
        """Return for each place of the new side the number of the old channel there."""
        return torch.tensor(list(chain.from_iterable(self._at)), dtype=torch.long)


def _repeats(group: ChannelGroup, member: Member) -> list[list[range]]:
    """Return the places of each channel of `group` on a side, in order, once for each time that all of them occur."""
    standing = (member.channels >= 0).nonzero().flatten().tolist()
    numbers = member.channels[standing].tolist()
    inner = next((i for i, number in enumerate(numbers) if number != numbers[0]), member.run)
    # A flattening repeats each channel `inner` times, a concatenation with itself the whole group `times` times.
    one = [number for number in range(group.size) for _ in range(inner)]
    times, left = divmod(len(numbers), len(one))
    found = []
    for time in range(times):
        places = standing[time * len(one) : (time + 1) * len(one)]
        if places[-1] - places[0] + 1 != len(one):
            break  # other channels are between them
        found.append([range(places[i], places[i] + inner) for i in range(0, len(one), inner)])
    if left or numbers != one * times or len(found) != times:
        raise CompressionError(
            f"channels of group {group.name!r} can be neither repeated nor moved: in {member.layer!r} "
            "they are not contiguous and in order, so that the place of a copy is unclear"
        )
    return found
