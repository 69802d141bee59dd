"""Neuron merging: of two neurons that do nearly the same, one goes and the other speaks for both. No data is needed."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from compedu.graph import ChannelGroup, Member, find_channels, layer_calls, only_consumer, trace
from compedu.graph.coupling import BATCH_NORMS
from compedu.graph.folding import folded_kernel
from compedu.graph.operations import ASKING, ELEMENTWISE, MOVING, REDUCING, key
from compedu.knobs import knob, method, value_for
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.layers import NO_VALUE
from compedu.methods.method import Removed, Task
from compedu.methods.pruning.channel_pruning import example_input

POOLING = re.compile(r"(?:adaptive)?(?:avg|max|lp)pool[123]d$")


def merging_saliencies(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Return s_ij = mean(a_j^2) ||W_i - W_j||^2 (n, n): what it costs to let neuron i speak for j; infinite for i = j.

    `incoming` W is (n, d), the weights and bias of each neuron, `outgoing` a is (n, m) (Srinivas, Babu 2015, section
    3).

    >>> merging_saliencies(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])).tolist()
    [[inf, 36.0], [4.0, inf]]
    """
    squares = incoming.square().sum(1)
    distances = (squares[:, None] + squares[None, :] - 2 * incoming @ incoming.T).clamp_min(0)
    return distances.fill_diagonal_(torch.inf) * outgoing.square().mean(1).clamp_min(torch.finfo(outgoing.dtype).tiny)


def merge_neurons(incoming: Tensor, outgoing: Tensor, count: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the outgoing weights (n, m) after `count` merges, each the cheapest then, and the pairs (kept, removed).

    a_i becomes a_i + a_j and a_j zero; the saliencies of what changed are computed anew (Srinivas, Babu 2015, section
    3).
    """
    outgoing, pairs = outgoing.clone(), []
    distances = merging_saliencies(incoming, torch.ones_like(outgoing))
    power = outgoing.square().mean(1).clamp_min(torch.finfo(outgoing.dtype).tiny)
    least, nearest = distances.min(0)
    for _ in range(count):
        j = int((power * least).argmin())
        i = int(nearest[j])
        pairs.append((i, j))
        outgoing[i] += outgoing[j]
        outgoing[j] = 0
        power[i] = outgoing[i].square().mean().clamp_min(torch.finfo(outgoing.dtype).tiny)
        distances[j], distances[:, j], least[j] = torch.inf, torch.inf, torch.inf
        stale = (nearest == j).nonzero().flatten()
        least[stale], nearest[stale] = distances[:, stale].min(0)
    return outgoing, pairs


def by_channel(weight: Tensor, channels: Tensor) -> Tensor:
    """Return what a layer with kernel `weight` (out, in, ...) reads from each channel, (size, numbers); a copy."""
    inputs = weight.detach()[:, channels.argsort(stable=True)]
    return inputs.unflatten(1, (int(channels.max()) + 1, -1)).transpose(0, 1).flatten(1)


def put_by_channel(weight: Tensor, channels: Tensor, values: Tensor) -> None:
    """Write `values` (size, numbers), in the order of `by_channel`, into the kernel `weight` (out, in, ...)."""
    shape = (len(values), weight.shape[0], -1, *weight.shape[2:])
    with torch.no_grad():
        weight[:, channels.argsort(stable=True)] = values.view(shape).transpose(0, 1).flatten(1, 2).to(weight.dtype)


def obstacle(model: nn.Module, traced: fx.GraphModule, group: ChannelGroup) -> str:
    """Return why the neurons of `group` cannot be merged, or nothing where they can."""
    roles = [member.role for member in group.members]
    if roles.count("producer") != 1 or "depthwise" in roles:
        makers = ", ".join(member.layer for member in group.members if member.role in ("producer", "depthwise"))
        return f"its neurons are made by {makers} together"
    if "activation" in roles or roles.count("normalization") > 1:
        return "its neurons pass an activation or several normalizations with numbers of their own"
    plain = [member for member in group.members if member.role in ("producer", "consumer")]
    if any(getattr(model.get_submodule(member.layer), "groups", 1) > 1 for member in plain):
        return "it, or a layer that reads it, works in groups"
    if any(bool((member.channels < 0).any()) for member in plain):
        return "its neurons go different ways, or are joined with those of other layers"
    maker = group.members[roles.index("producer")].channels
    if len(maker.unique()) < len(maker):
        return "several of its filters make one channel together, as with gates or maxout"
    if "consumer" not in roles:
        return "no layer reads it"
    return way_obstacle(traced, group)


def way_obstacle(traced: fx.GraphModule, group: ChannelGroup) -> str:
    """Return what between a layer and its readers does not treat all neurons alike and each for itself, or nothing."""
    modules, readers = dict(traced.named_modules()), {m.layer for m in group.members if m.role == "consumer"}
    if group.producers[0] not in (calls := layer_calls(traced)):
        return "only training calls it, so that the way to its readers cannot be seen"
    start = calls[group.producers[0]][0]
    flow = {start}
    for node in traced.graph.nodes:
        if not flow & set(node.all_input_nodes) or (node.op == "call_module" and node.target in readers):
            continue
        module = modules[node.target] if node.op == "call_module" else None
        name = key(_name_of(node, module))
        if name in ASKING:
            continue
        if any(other not in flow and key(_name_of(other, None)) not in ASKING for other in node.all_input_nodes):
            return f"{node.name!r} joins its neurons with something else"
        if isinstance(module, BATCH_NORMS):
            if node.all_input_nodes != [start] or module.running_mean is None:
                return f"{node.name!r} normalizes behind another operation, or with the batch it sees"
            if only_consumer(start) is not node:
                return f"something else reads its neurons in front of {node.name!r}"
        elif name not in ELEMENTWISE | MOVING | REDUCING and not POOLING.match(name):
            return f"{node.name!r} is not known to treat each neuron alone"
        flow.add(node)
    return ""


def _name_of(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__
    return node.target if isinstance(node.target, str) else node.target.__name__


def incoming_weights(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Return the weights and bias that make each neuron, float64 (size, d); a batch norm behind is folded in."""
    layer = model.get_submodule(group.producers[0])
    weight, bias = layer.weight.detach().double(), None if layer.bias is None else layer.bias.detach().double()
    for member in group.members:
        if member.role == "normalization":
            weight, bias = folded_kernel(weight, bias, model.get_submodule(member.layer))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    rows = torch.cat([weight.flatten(1), bias[:, None]], 1).detach()
    return rows[next(m for m in group.members if m.role == "producer").channels.argsort()]


@method
class NeuronMerging(SelectiveMethod):
    r"""Take out neurons (or filters) that do nearly what another one does, and let that one speak for both.

    $s_{ij} = \mathrm{E}(a_j^2)\,\lVert W_i - W_j \rVert^2$ with $W$ the weights and bias that make a neuron, $a$
    those that read it; the pair of smallest $s_{ij}$ goes first: $a_i \leftarrow a_i + a_j$, and $j$ is removed. A
    batch norm behind the layer counts as part of $W$.
    Stored: the smaller layers, dense, at full precision.
    Skips: the layers that make the network's output; neurons whose outputs are added or joined with others, or reach
    their readers through anything that does not treat each of them alone and all alike; layers in groups; forms of
    any kind. A network that does not say the size of its images (model.spec) is followed on one image: give data too.
    Paper: Srinivas, Babu 2015, Data-free parameter pruning for deep neural networks, arXiv:1507.06149, section 3.
    """

    topic: ClassVar[str] = "pruning"
    neutral: ClassVar[dict[str, Any]] = {"sparsity": 0.0}

    sparsity: float = knob(
        0.5, "fraction of the neurons taken out", low=0, high=1, open="high", tour=(0.0, 0.9), per_layer=True
    )

    def compress(self, task: Task) -> nn.Module:
        """Merge neurons in every selected layer where that can be done."""
        channels, chosen = find_channels(task.source, example_input(task)), task.selected_layers()
        traced = trace(task.source)
        for left, reason in channels.left_out:
            for name in chosen:
                if name == left or name.startswith(f"{left}."):  # the two layers inside a factored one
                    task.skip(name, reason)
        groups = [group for group in channels.groups if self.wants(task, traced, group, chosen)]
        task.refuse_if_nothing_done(len(groups))
        removal = {group.name: self.merge(task.model, group) for group in groups}
        task.removed += [Removed(repr(self), name, tuple(sorted(gone))) for name, gone in removal.items() if gone]
        return channels.remove(task.model, removal)

    def wants(self, task: Task, traced: fx.GraphModule, group: ChannelGroup, chosen: Mapping[str, nn.Module]) -> bool:
        """Tell whether neurons of `group` are to be merged and can be; note why, if not."""
        reason = obstacle(task.source, traced, group)
        if not reason and value_for(self.sparsity, group.producers[0]) is None:
            reason = NO_VALUE
        makers = [m.layer for m in group.members if m.role in ("producer", "depthwise") and m.layer in chosen]
        for name in makers if reason else ():
            task.skip(name, reason)
        return not reason and bool(makers)

    def merge(self, model: nn.Module, group: ChannelGroup) -> list[int]:
        """Merge neurons of `group` in place, so that nothing reads some of them any more; return these."""
        readers: list[Member] = [member for member in group.members if member.role == "consumer"]
        parts = [by_channel(model.get_submodule(member.layer).weight, member.channels).double() for member in readers]
        count = group.removable(value_for(self.sparsity, group.producers[0]))
        merged, pairs = merge_neurons(incoming_weights(model, group), torch.cat(parts, 1), count)
        for member, values in zip(readers, merged.split([part.shape[1] for part in parts], 1)):
            put_by_channel(model.get_submodule(member.layer).weight, member.channels, values)
        return [removed for _, removed in pairs]
