"""The channels of a network that can be taken out, found once, and their removal under the removal law."""

from collections.abc import Iterable, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError, first_line
from compedu.graph.coupling import OUTPUT
from compedu.graph.grouping import ChannelGroup, collect_groups
from compedu.graph.precise import UNCHECKED, difference, float64_outputs
from compedu.graph.reading import read_coupling
from compedu.graph.removal import shrink_layer, silence_layer
from compedu.graph.switches import switches_of
from compedu.graph.trace import layer_calls, owners_read_apart, shared_copy, trace, whole_copy, with_own_tensors

Removal = Mapping[str, Iterable[int]]  # group name -> numbers of the channels to remove


class Channels:
    """The coupled channels of one network: `groups` that can be removed from, and `left_out` layers with the reason.

    A group that breaks the removal law on its own is left out, as where an operation makes something of silence; it is
    among `breaking`, and can be removed from by whoever first sees to it that nothing reads what the channels give.

    `example` is a small batch of inputs; the removal law is checked on it. The network itself is not kept: any network
    of the same structure can be given to `remove` and `zero`, so that one search serves many removals. Raises
    `CompressionError` when the network cannot be traced or its channels cannot be followed.
    """

    def __init__(self, model: nn.Module, example: Tensor):
        traced = trace(model)
        coupling = read_coupling(model, traced, example)
        self.groups, self.left_out = collect_groups(coupling, model, layer_calls(traced))
        self.breaking: tuple[ChannelGroup, ...] = ()
        self.example = example
        self._structure, self._read_apart = structure_of(model), owners_read_apart(traced)
        self._leave_out_breaking(model)

    def why_left_out(self, layer: str) -> str | None:
        """Return why `layer`, or the form that it is inside of, keeps its channels; None where they can go."""
        reasons = dict(self.left_out)
        return reasons.get(layer) or reasons.get(layer.rpartition(".")[0])

    def remove(self, model: nn.Module, removal: Removal, verify: bool = True) -> nn.Module:
        """Return a copy of `model` without the channels named by `removal`; all of them are removed at once.

        Channel numbers are those of the groups as found, whatever else is removed. With `verify`, the outputs on the
        example must equal those of `zero(model, removal)` in float64 (Li et al. 2017, arXiv:1608.08710, section 3.1).
        Raises `CompressionError` for an unknown group or channel, for a group that would become empty, for a network
        of another structure, and when the removal law fails.
        """
        removed, smaller = self._masks(model, removal), shared_copy(model)
        for name, sides in removed.items():
            shrink_layer(smaller.get_submodule(name), sides)
        smaller = with_own_tensors(smaller, model)
        if verify:
            self._verify(model, smaller, removal)
        return smaller

    def zero(self, model: nn.Module, removal: Removal) -> nn.Module:
        """Return a copy of `model` whose channels named by `removal` are silent: same shapes, exact zeros.

        Zeroed are the filters and biases that make the channels, and the scales, shifts and running means of their
        batch norms. Raises `CompressionError` as `remove` does.
        """
        silent = whole_copy(model)
        for name, sides in self._masks(model, removal).items():
            if OUTPUT in sides:
                silence_layer(silent.get_submodule(name), sides[OUTPUT])
        return silent

    def _masks(self, model: nn.Module, removal: Removal) -> dict[str, dict[str, Tensor]]:
        if structure_of(model) != self._structure:
            raise CompressionError(
                f"these channels were found in a network of another structure than the given {type(model).__name__}; "
                "find them anew after layers were replaced or channels removed"
            )
        groups = {group.name: group for group in (*self.groups, *self.breaking)}
        masks: dict[str, dict[str, Tensor]] = {}
        for name, numbers in removal.items():
            if name not in groups:
                raise CompressionError(f"there is no channel group {name!r}; {self._known(name)}")
            chosen = _chosen(groups[name], numbers)
            for member in groups[name].members:
                mask = chosen[member.channels]  # -1 reads the last, false entry
                sides = masks.setdefault(member.layer, {})
                sides[member.side] = mask | sides[member.side] if member.side in sides else mask
        return masks

    def _known(self, name: str) -> str:
        reasons = dict(self.left_out)
        if name in reasons:
            return f"{name!r} keeps its channels because {reasons[name]}"
        return f"the groups are {', '.join(group.name for group in self.groups) or 'none at all'}"

    def _verify(self, model: nn.Module, smaller: nn.Module, removal: Removal) -> None:
        problem = self._difference(model, smaller, removal)
        if problem is None:
            return
        guilty = [name for name, numbers in removal.items() if self._broken_by(model, {name: numbers})]
        raise CompressionError(
            f"removing channels changes what {type(model).__name__} computes: {problem}. Groups that break the removal "
            f"law on their own: {', '.join(guilty) or 'none, only together'}. An operation behind them turns silent "
            "channels into something else or moves channels in a way that cannot be followed; exclude these layers."
        )

    def _broken_by(self, model: nn.Module, removal: Removal) -> str | None:
        """Return how a removal breaks the removal law, None where it does not."""
        return self._difference(model, self.remove(model, removal, verify=False), removal)

    def _difference(self, model: nn.Module, smaller: nn.Module, removal: Removal) -> str | None:
        masks = self._masks(model, removal)
        silent = {name: sides[OUTPUT] for name, sides in masks.items() if OUTPUT in sides}
        try:
            expected = float64_outputs(model, self.example, self._read_apart, silent)
        except RuntimeError as error:
            return f"{type(model).__name__} does not run in float64 ({first_line(error)}), {UNCHECKED}"
        try:
            found = float64_outputs(smaller, self.example, self._read_apart)
        except RuntimeError as error:
            return f"the smaller network does not run ({first_line(error)})"
        return difference(found, expected)

    def _leave_out_breaking(self, model: nn.Module) -> None:
        """Leave out the groups that break the removal law on their own when every second channel goes."""
        breaking = self._breaking(model, {group.name: range(0, group.size, 2) for group in self.groups})
        for group in self.groups:
            if group.name in breaking:
                reason = f"to take its channels out is not to silence them: {breaking[group.name]}"
                self.left_out += tuple((maker.layer, reason) for maker in group.makers)
        self.breaking = tuple(group for group in self.groups if group.name in breaking)
        self.groups = tuple(group for group in self.groups if group.name not in breaking)

    def _breaking(self, model: nn.Module, trial: Removal) -> dict[str, str]:
        """Return which groups of `trial` break the removal law on their own, and how; by halves, as few do."""
        problem = self._broken_by(model, trial) if trial else None
        if problem is None or problem.endswith(UNCHECKED):
            return {}
        if len(trial) == 1:
            return dict.fromkeys(trial, problem)
        names = list(trial)
        first = {name: trial[name] for name in names[: len(names) // 2]}
        return self._breaking(model, first) | self._breaking(model, {n: trial[n] for n in names[len(first) :]})


def _chosen(group: ChannelGroup, numbers: Iterable[int]) -> Tensor:
    """Return a boolean mask over the channels of `group`, with one more entry that is always false."""
    distinct = sorted({int(number) for number in numbers})
    if distinct and not (distinct[0] >= 0 and distinct[-1] < group.size):
        raise CompressionError(
            f"channel group {group.name!r} has channels 0 to {group.size - 1}; asked to remove {distinct[0]} to "
            f"{distinct[-1]}"
        )
    if len(distinct) == group.size:
        raise CompressionError(
            f"all {group.size} channels of group {group.name!r} would be removed; keep at least one, its layers need it"
        )
    mask = torch.zeros(group.size + 1, dtype=torch.bool)
    mask[distinct] = True
    return mask


def structure_of(model: nn.Module) -> tuple:
    """Return what decides how the channels of a network hang together: its ways and all shapes."""
    return switches_of(model), tuple((name, tuple(parameter.shape)) for name, parameter in model.named_parameters())


_found: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], Channels]] = WeakKeyDictionary()


def find_channels(model: nn.Module, example: Tensor) -> Channels:
    """Return the channels of `model`, from memory when its structure and the example's shape were seen before.

    Raises `CompressionError` as `Channels` does.
    """
    known = _found.setdefault(model, {})
    shape = tuple(example.shape)
    if shape not in known or known[shape]._structure != structure_of(model):
        known[shape] = Channels(model, example)
    return known[shape]
