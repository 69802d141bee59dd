"""Channels chosen by their numbers: where each stands in a layer, which may be nowhere, elsewhere or several times."""

from collections.abc import Iterable, Sequence
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
    if min(chosen) < 0 or max(chosen) >= group.size:
        raise CompressionError(
            f"channel group {group.name!r} has channels 0 to {group.size - 1}; asked to choose {min(chosen)} to "
            f"{max(chosen)}"
        )
    return chosen


def kept_channels(group: ChannelGroup, removed: Iterable[int]) -> list[int]:
    """Return the channels of `group` without those `removed`; raise `CompressionError` for one it lacks, or for all."""
    gone = sorted({int(number) for number in removed})
    if gone and not (gone[0] >= 0 and gone[-1] < group.size):
        raise CompressionError(
            f"channel group {group.name!r} has channels 0 to {group.size - 1}; asked to remove {gone[0]} to {gone[-1]}"
        )
    if len(gone) == group.size:
        raise CompressionError(
            f"all {group.size} channels of group {group.name!r} would be removed; keep at least one, its layers need it"
        )
    return sorted(set(range(group.size)) - set(gone))


class Places:
    """Which channel of a layer's side stands at each place of the side to be; begins as the side is.

    Several groups may stand on one side; each is chosen from on its own.
    """

    def __init__(self, channels: int):
        self._at = [[place] for place in range(channels)]

    def choose(self, group: ChannelGroup, member: Member, chosen: Sequence[int]) -> None:
        """Put the channels `chosen` of `group` where all of its channels stand.

        What only leaves channels out may leave them out anywhere. Another order, or a channel twice, needs the channels
        of the group to stand together in their order, as often as they stand there at all: only then does it show where
        a copy goes. Raises `CompressionError` otherwise.
        """
        if all(one < other for one, other in pairwise(chosen)):
            gone = torch.ones(group.size + 1, dtype=torch.bool)
            gone[list(chosen)] = False
            gone[-1] = False  # -1 stands for a channel of no group or of another one
            for place in gone[member.channels].nonzero().flatten().tolist():
                self._at[place] = []
            return
        for runs in _repeats(group, member):
            moved = [list(runs[number]) for number in chosen]
            for place in chain.from_iterable(runs):
                self._at[place] = []
            self._at[runs[0][0]] = list(chain.from_iterable(moved))

    def index(self) -> Tensor:
        """Return for each place of the new side the number of the old channel that stands there."""
        return torch.tensor(list(chain.from_iterable(self._at)), dtype=torch.long)


def _repeats(group: ChannelGroup, member: Member) -> list[list[range]]:
    """Return the places of each channel of `group` on a side, in order, once for each time that all stand there."""
    standing = (member.channels >= 0).nonzero().flatten().tolist()
    numbers = member.channels[standing].tolist()
    inner = next((i for i, number in enumerate(numbers) if number != numbers[0]), len(numbers))
    one = [number for number in range(group.size) for _ in range(inner)]
    times, left = divmod(len(numbers), len(one))
    found = []
    for time in range(times):
        places = standing[time * len(one) : (time + 1) * len(one)]
        if places[-1] - places[0] + 1 != len(one):
            break  # other channels stand between them
        found.append([range(places[i], places[i] + inner) for i in range(0, len(one), inner)])
    if left or numbers != one * times or len(found) != times:
        raise CompressionError(
            f"channels of group {group.name!r} can be left out, but neither repeated nor moved: in {member.layer!r} "
            "they do not stand together in their order, so that it does not show where a copy belongs"
        )
    return found
