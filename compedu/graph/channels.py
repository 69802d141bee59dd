"""The channels of a network that can be removed or repeated, found once, and the law that every choice obeys."""

from collections.abc import Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError, first_line
from compedu.graph.choosing import Places, checked_choice, kept_channels
from compedu.graph.copying import shared_copy, whole_copy, with_own_tensors
from compedu.graph.coupling import OUTPUT
from compedu.graph.grouping import ChannelGroup, collect_groups
from compedu.graph.precise import UNCHECKED, difference, float64_outputs
from compedu.graph.reading import read_coupling
from compedu.graph.removal import choose_in_layer, silence_layer
from compedu.graph.switches import switches_of
from compedu.graph.trace import layer_calls, owners_read_apart, trace

Removal = Mapping[str, Iterable[int]]  # group name -> numbers of the channels to remove
Choice = Mapping[str, Iterable[int]]  # group name -> its channels in their new order, some perhaps repeated
Chosen = Mapping[str, Sequence[int]]  # a choice that was checked


class Channels:
    """The coupled channels of one network: `groups` that can be removed from, and `left_out` layers with the reason.

    A group that breaks the removal law on its own is left out, as where an operation makes nonzero values of zeros. It
    is in `breaking`, and a caller who first makes sure that nothing reads these channels may remove from it. Groups of
    a single channel, which must stay, are in `single`. Channels of both can be copied.

    `example` is a small batch of inputs; the removal law is checked on it. The network itself is not kept: any network
    of the same structure can be given to `choose`, `remove` and `zero`, so that one search serves many. Raises
    `CompressionError` when the network cannot be traced or its channels cannot be followed.
    """

    def __init__(self, model: nn.Module, example: Tensor):
        traced = trace(model)
        coupling = read_coupling(model, traced, example)
        self.groups, self.single, self.left_out = collect_groups(coupling, model, layer_calls(traced))
        self.breaking: tuple[ChannelGroup, ...] = ()
        self.example = example
        self._structure = structure_of(model)
        self._read_apart = owners_read_apart(traced)
        self._leave_out_breaking(model)

    def why_left_out(self, layer: str) -> str | None:
        """Return why `layer`, or the form that contains it, keeps its channels; None where they can be removed."""
        reasons = dict(self.left_out)
        return reasons.get(layer) or reasons.get(layer.rpartition(".")[0])

    def choose(self, model: nn.Module, choice: Choice, verify: bool = True) -> nn.Module:
        """Return a copy of `model` that has, of each group that `choice` names, those channels in that order.

        A channel that is named several times is copied, and the weights that read it are divided among the copies, so
        that the network computes what it did (Chen et al. 2016, arXiv:1511.05641, section 2.1); channels that are not
        named are removed. Channel numbers are those of the groups as found. With `verify`, the outputs on the example
        must equal in float64 those of the network in which the removed channels are zero (Li et al. 2017,
        arXiv:1608.08710, section 3.1). Raises `CompressionError` for an unknown group or channel, for a group that
        would become empty, for channels that are repeated or moved where their new places are unclear, for a network
        of another structure, and when the outputs differ.
        """
        chosen = {group.name: checked_choice(group, numbers) for group, numbers in self._named(model, choice)}
        return self._with(model, chosen, verify)

    def _with(self, model: nn.Module, chosen: Chosen, verify: bool = False) -> nn.Module:
        """Return a copy of `model` with the channels `chosen`, which were checked before."""
        made = shared_copy(model)
        for layer, sides in self._places(chosen).items():
            choose_in_layer(made.get_submodule(layer), sides)
        made = with_own_tensors(made, model)
        if verify:
            self._verify(model, made, chosen)
        return made

    def _places(self, chosen: Chosen) -> dict[str, dict[str, Tensor]]:
        """Return for each side of a layer that changes which of its old channels is at each of the new places."""
        groups = self._by_name
        places: dict[str, dict[str, Places]] = {}
        for name, numbers in chosen.items():
            for member in groups[name].members:
                sides = places.setdefault(member.layer, {})
                side = sides.setdefault(member.side, Places(len(member.channels)))
                side.choose(groups[name], member, numbers)
        return {layer: {side: found.index() for side, found in sides.items()} for layer, sides in places.items()}

    def made_from(self, choice: Choice) -> dict[str, Tensor]:
        """Return for each layer whose outputs `choice` changes which old output each new one is, (new outputs,).

        Raises `CompressionError` for channels that are repeated or moved where their new places are unclear.
        """
        chosen = {name: tuple(numbers) for name, numbers in choice.items()}
        return {layer: sides[OUTPUT] for layer, sides in self._places(chosen).items() if OUTPUT in sides}

    def choose_possible(self, model: nn.Module, choice: Choice) -> tuple[nn.Module | None, dict[str, str]]:
        """Return what `choose` makes of the groups that can have these channels, and of the others why they cannot.

        Their new places are unclear, or `model` would compute something else on the example with them alone; None in
        place of a network where no group can. What is made is verified, once where all groups can. Raises
        `CompressionError` as `choose` does.
        """
        chosen = {group.name: checked_choice(group, numbers) for group, numbers in self._named(model, choice)}
        if (problem := self._broken_by(model, chosen)) is None:
            return self._with(model, chosen), {}
        self._refuse_unchecked(model, problem, chosen)
        found = self._guilty(model, chosen, problem)
        possible = {name: numbers for name, numbers in chosen.items() if name not in found}
        return (self._with(model, possible, verify=True) if possible else None), found

    def remove(self, model: nn.Module, removal: Removal, verify: bool = True) -> nn.Module:
        """Return a copy of `model` without the channels named by `removal`; all of them are removed at once.

        Channel numbers are those of the groups as found, whatever else is removed; `verify` and errors as for `choose`.
        """
        return self._with(model, self._kept(model, removal), verify)

    def zero(self, model: nn.Module, removal: Removal) -> nn.Module:
        """Return a copy of `model` whose channels named by `removal` are exactly zero, in the same shapes.

        The filters and biases that make the channels are zeroed, and the scales, shifts and running means of their
        batch norms. Raises `CompressionError` as `remove` does.
        """
        kept = self._kept(model, removal)
        silent = whole_copy(model)
        for name, mask in self._silent(kept).items():
            silence_layer(silent.get_submodule(name), mask)
        return silent

    def _kept(self, model: nn.Module, removal: Removal) -> Chosen:
        """Return the channels that a removal leaves of each group; refuse groups of a single one by their reason."""
        for group in self.single:
            if group.name in removal:
                raise CompressionError(self._known(group.name))
        return {group.name: kept_channels(group, numbers) for group, numbers in self._named(model, removal)}

    def _named(self, model: nn.Module, choice: Choice) -> list[tuple[ChannelGroup, Iterable[int]]]:
        """Return the groups that `choice` names, each with its channels; refuse unknown names and other networks."""
        if structure_of(model) != self._structure:
            raise CompressionError(
                f"these channels were found in a network of another structure than the given {type(model).__name__}; "
                "find them again after layers are replaced or channels removed"
            )
        groups = self._by_name
        for name in choice:
            if name not in groups:
                raise CompressionError(f"there is no channel group {name!r}; {self._known(name)}")
        return [(groups[name], numbers) for name, numbers in choice.items()]

    @property
    def _by_name(self) -> dict[str, ChannelGroup]:
        return {group.name: group for group in (*self.groups, *self.breaking, *self.single)}

    def _silent(self, choice: Chosen) -> dict[str, Tensor]:
        """Return for each layer that makes channels a mask of those that `choice` does not name."""
        masks: dict[str, Tensor] = {}
        groups = self._by_name
        for name, numbers in choice.items():
            silent = torch.ones(groups[name].size + 1, dtype=torch.bool)
            silent[[*numbers, -1]] = False  # -1, the last entry, stands for channels that are not of this group
            for member in groups[name].members:
                if member.side == OUTPUT:
                    mask = silent[member.channels]
                    masks[member.layer] = mask | masks[member.layer] if member.layer in masks else mask
        return masks

    def _known(self, name: str) -> str:
        reasons = dict(self.left_out)
        if name in reasons:
            return f"{name!r} keeps its channels because {reasons[name]}"
        return f"the groups are {', '.join(group.name for group in self.groups) or 'none at all'}"

    def _verify(self, model: nn.Module, made: nn.Module, choice: Chosen) -> None:
        problem = self._difference(model, made, choice)
        if problem is None:
            return
        self._refuse_unchecked(model, problem, choice)
        guilty = [name for name, numbers in choice.items() if self._broken_by(model, {name: numbers})]
        cause = "" if _repeats(choice) else "turns zero channels into something else or "
        raise CompressionError(
            f"{_doing(choice)} channels changes what {type(model).__name__} computes: {problem}. Groups that do so on "
            f"their own: {', '.join(guilty) or 'none, only together'}. An operation after them {cause}moves or mixes "
            "channels in a way that cannot be followed; exclude these layers."
        )

    def _refuse_unchecked(self, model: nn.Module, problem: str, choice: Chosen) -> None:
        """Raise `CompressionError` where the `problem` of a choice is that nothing can be compared."""
        if problem.endswith(UNCHECKED):
            name = type(model).__name__
            raise CompressionError(f"whether {_doing(choice)} channels changes what {name} computes is open: {problem}")

    def _broken_by(self, model: nn.Module, choice: Chosen) -> str | None:
        """Return how a choice breaks the removal law, None where it does not."""
        try:
            made = self._with(model, choice)
        except CompressionError as unclear:
            return str(unclear)
        return self._difference(model, made, choice)

    def _difference(self, model: nn.Module, made: nn.Module, choice: Chosen) -> str | None:
        try:
            if _repeats(choice):
                # A weight divided by 3 is rounded in the network's own precision: the law is compared before that.
                made = self._with(whole_copy(model).double(), choice)
            expected = float64_outputs(model, self.example, self._read_apart, self._silent(choice))
        except RuntimeError as error:
            return f"{type(model).__name__} does not run in float64 ({first_line(error)}), {UNCHECKED}"
        try:
            found = float64_outputs(made, self.example, self._read_apart)
        except RuntimeError as error:
            return f"the network with other channels does not run ({first_line(error)})"
        return difference(found, expected)

    def _leave_out_breaking(self, model: nn.Module) -> None:
        """Leave out the groups that break the removal law on their own when every second channel is removed."""
        breaking = self._breaking(
            model, {group.name: range(1, group.size, 2) for group in self.groups if group.size > 1}
        )
        for group in self.groups:
            if group.name in breaking:
                reason = f"removing its channels is not the same as zeroing them: {breaking[group.name]}"
                self.left_out += tuple((maker.layer, reason) for maker in group.makers)
        self.breaking = tuple(group for group in self.groups if group.name in breaking)
        self.groups = tuple(group for group in self.groups if group.name not in breaking)

    def _breaking(self, model: nn.Module, trial: Chosen) -> dict[str, str]:
        """Return which groups of `trial` break the removal law on their own, and how; by bisection, as few do."""
        problem = self._broken_by(model, trial) if trial else None
        return {} if problem is None or problem.endswith(UNCHECKED) else self._guilty(model, trial, problem)

    def _guilty(self, model: nn.Module, trial: Chosen, problem: str) -> dict[str, str]:
        """Return the same for a trial that is known to have a `problem`."""
        if len(trial) == 1:
            return dict.fromkeys(trial, problem)
        names = list(trial)
        first = {name: trial[name] for name in names[: len(names) // 2]}
        return self._breaking(model, first) | self._breaking(model, {n: trial[n] for n in names[len(first) :]})


def _doing(choice: Chosen) -> str:
    return "repeating" if _repeats(choice) else "removing"


def _repeats(choice: Chosen) -> bool:
    """Return whether a channel is named more than once."""
    return any(len(set(numbers)) < len(tuple(numbers)) for numbers in choice.values())


def structure_of(model: nn.Module) -> tuple:
    """Return what decides how the channels of a network are coupled: its control flow and all shapes."""
    return switches_of(model), tuple((name, tuple(parameter.shape)) for name, parameter in model.named_parameters())


_found: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], Channels]] = WeakKeyDictionary()


def find_channels(model: nn.Module, example: Tensor) -> Channels:
    """Return the channels of `model`, from a cache when its structure and the example's shape are known.

    Raises `CompressionError` as `Channels` does.
    """
    known = _found.setdefault(model, {})
    shape = tuple(example.shape)
    if shape not in known or known[shape]._structure != structure_of(model):
        known[shape] = Channels(model, example)
    return known[shape]
