"""From the graph of a network to a plan: which tensors are codes, on which grid, and what is fused with what."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from compedu.deployment import patterns
from compedu.deployment.integer_chain import (
    Call,
    Clip,
    MaxPool,
    Multiply,
    On,
    Plan,
    Quantize,
    Register,
    Step,
    registers_in,
)
from compedu.deployment.kernels.product import Grid, Product
from compedu.graph import only_consumer
from compedu.graph.nodes import is_question


def plan_of(traced: fx.GraphModule) -> Plan:
    """Return the plan of a traced network, which computes what the network does at every bit-width.

    Between layers are float32 values, and each layer rounds its input to its own grid. A tensor is produced as codes
    where all its readers round it to the same grid, directly or after operations that commute with the rounding
    (`patterns.passed_on`). A ReLU after a layer, and a sum with a convolution as one of its terms, are fused with it.
    Changes `traced`.
    """
    return _Lowering(patterns.simplified(traced)).plan()


class _Lowering:
    def __init__(self, traced: fx.GraphModule):
        self.nodes = list(traced.graph.nodes)
        self.modules = dict(traced.named_modules())
        self.attribute = partial(_attribute, traced)
        self.held = sole_grids(self.nodes, self.modules)
        self.summands = fused_sums(self.nodes, self.modules)  # convolution -> the sum that it is fused with
        self.ready: dict[fx.Node, int] = {}  # layer -> its input, for those that wait for a sum
        self.places: dict[fx.Node, dict[Grid | None, int]] = {}  # node -> its registers: codes by grid, values by None
        self.shapes: set[fx.Node] = set()  # nodes that hold shapes, not tensors
        self.never_nan: set[fx.Node] = set()  # nodes whose values no input makes NaN
        self.steps: list[Step] = []
        self.inputs: list[int] = []
        self.count = 0
        self.output = None

    def plan(self) -> Plan:
        for node in self.nodes:
            if node not in self.places:  # a ReLU may have been fused with the layer before it
                self.lower(node)
        steps = tuple(owning(self.steps, registers_in(self.output)))
        return Plan(tuple(self.inputs), steps, self.output, self.count)

    def lower(self, node: fx.Node) -> None:
        """Append the steps of one node."""
        layer = patterns.integer_layer(node, self.modules)
        if node.op == "placeholder":
            self.input(node)
        elif node.op == "get_attr":
            self.constant(node, self.attribute(node.target))
        elif node.op == "output":
            self.output = self.filled(node.args[0])
        elif layer is not None:
            self.ready[node] = self.codes(patterns.source_of(node), Grid.of(layer.act))
            if node not in self.summands:
                self.product(node, node)
        elif node in self.summands.values():
            self.sum(node)
        elif sources := self.sources_as_codes(node):
            self.on_codes(node, self.held[node], sources)
        else:
            self.call(node)

    def input(self, node: fx.Node) -> None:
        if node.args:  # an input that may be left out keeps its default
            self.constant(node, node.args[0])
        else:
            self.inputs.append(self.new(node, None))

    def constant(self, node: fx.Node, value: Any) -> None:
        self.steps.append(Call(_name(node), (), self.new(node, None), lambda: value, ((), {}), On.NEITHER))

    def product(self, conv: fx.Node, node: fx.Node, other: fx.Node | None = None) -> None:
        """Append the product of layer `conv`, fused with the sum `node` with `other`, if any, and the ReLU after it."""
        layer = patterns.integer_layer(conv, self.modules)
        result, low, high = self.clipped(node, only_relu=other is not None)
        target = self.held.get(result)
        sources = (self.ready[conv],)
        if other is not None:  # engines add values to values
            target = None
            sources += (self.values(other),)
        if other is None or other in self.never_nan:
            self.never_nan.add(result)
        product = Product.of(layer, Grid.of(layer.act), target=target, low=low, high=high, adds=other is not None)
        self.steps.append(Multiply(conv.target, sources, self.new(result, target), product, layer.bits))

    def clipped(self, node: fx.Node, only_relu: bool) -> tuple[fx.Node, float | None, float | None]:
        """Return the ReLU that is the only reader of `node`, and its bounds; otherwise `node` and no bounds."""
        reader = only_consumer(node)
        clip = None if reader is None else patterns.clip_of(reader, self.modules)
        if clip is None or (only_relu and clip[1] is not None):  # engines fuse nothing but ReLU after a sum
            return node, None, None
        self.places[node] = {}  # nothing else reads it
        return reader, *clip

    def sum(self, node: fx.Node) -> None:
        """Append a sum together with the convolution that is one of its terms."""
        first, second = patterns.added(node)
        conv, other = (second, first) if self.summands.get(second) is node else (first, second)
        self.product(conv, node, other)

    def sources_as_codes(self, node: fx.Node) -> list[fx.Node]:
        """Return the inputs that `node` takes as codes, if it is an operation on codes."""
        sources = patterns.passed_on(node, self.modules) if node in self.held else []
        if sources and patterns.is_piece(node, self.modules) and sources[0] not in self.held:
            return []  # the pieces are rounded one by one: the whole has no grid of its own
        return sources

    def on_codes(self, node: fx.Node, grid: Grid, sources: list[fx.Node]) -> None:
        """Append a node that takes and returns codes on `grid`."""
        registers = {source: self.codes(source, grid) for source in sources}
        first = registers[sources[0]]
        name = _name(node)
        if window := patterns.max_pool(node, self.modules):
            self.steps.append(MaxPool(name, (first,), self.new(node, grid), window))
        elif clip := patterns.clip_of(node, self.modules):
            low, high = (None if bound is None else int(grid.codes(torch.tensor(bound))) for bound in clip)
            self.steps.append(Clip(name, (first,), self.new(node, grid), low, grid.top if high is None else high))
        else:
            arguments = self.filled(node.args, registers), self.filled(node.kwargs, registers)
            self.append_call(node, grid, arguments, On.CODES)

    def call(self, node: fx.Node) -> None:
        """Append a node as it is, on float32 values; queries of shapes take codes as well."""
        asked = is_question(node)
        inputs = node.all_input_nodes
        registers = {source: next(iter(self.places[source].values())) for source in inputs} if asked else {}
        if asked or (inputs and all(source in self.shapes for source in inputs)):
            self.shapes.add(node)
        elif self.never_nan.issuperset(patterns.passed_on(node, self.modules) or [node]):
            self.never_nan.add(node)
        arguments = self.filled(node.args, registers), self.filled(node.kwargs, registers)
        self.append_call(node, None, arguments, On.NEITHER if node in self.shapes else On.VALUES)

    def append_call(self, node: fx.Node, grid: Grid | None, arguments: tuple, on: On) -> None:
        function = self.function(node)
        sources = tuple(registers_in(arguments))
        self.steps.append(Call(_name(node), sources, self.new(node, grid), function, arguments, on))

    def function(self, node: fx.Node) -> Any:
        """Return what a node calls."""
        if node.op == "call_module":
            return self.modules[node.target]
        return method(node) if node.op == "call_method" else node.target

    def new(self, node: fx.Node, grid: Grid | None) -> int:
        """Return a new register for `node`: codes of `grid`, or values."""
        self.places.setdefault(node, {})[grid] = self.count
        self.count += 1
        return self.count - 1

    def codes(self, node: fx.Node, grid: Grid) -> int:
        """Return a register with the codes of `node` on `grid`."""
        places = self.places[node]
        if grid not in places:
            source = places[None]
            checked = node not in self.never_nan
            self.steps.append(Quantize(_name(node), (source,), self.new(node, grid), grid, checked))
        return places[grid]

    def values(self, node: fx.Node) -> int:
        """Return the register with the float32 values of `node`."""
        return self.places[node][None]

    def filled(self, structure: Any, registers: dict[fx.Node, int] | None = None) -> Any:
        """Return `structure` with a register in place of each node: one of `registers`, or its values."""
        chosen = registers or {}
        return fx.node.map_arg(structure, lambda node: Register(chosen[node] if node in chosen else self.values(node)))


def sole_grids(nodes: list[fx.Node], modules: patterns.Modules) -> dict[fx.Node, Grid]:
    """Return the tensors that all their readers round, and round to the same grid: {node: grid}."""
    asked: dict[fx.Node, set[Grid | None]] = {node: set() for node in nodes}  # None: the values
    sole: dict[fx.Node, Grid] = {}
    for node in reversed(nodes):
        layer = patterns.integer_layer(node, modules)
        passed = []
        if len(asked[node]) == 1 and None not in asked[node]:
            sole[node] = next(iter(asked[node]))
            passed = patterns.passed_on(node, modules)
        if is_question(node):
            continue
        for source in node.all_input_nodes:
            grid = Grid.of(layer.act) if layer is not None else sole[node] if source in passed else None
            asked[source].add(grid)
    return sole


def fused_sums(nodes: list[fx.Node], modules: patterns.Modules) -> dict[fx.Node, fx.Node]:
    """Return the convolutions that are fused with the sum that is their only reader: {convolution: sum}."""
    fused = {}
    order = {node: index for index, node in enumerate(nodes)}
    for node in nodes:
        parts = patterns.added(node)
        if parts is None or parts[0] is parts[1]:
            continue
        fitting = [
            part
            for part in parts
            if (layer := patterns.integer_layer(part, modules)) is not None
            and layer.geometry.kind == "conv2d"
            and only_consumer(part) is node
        ]
        if fitting:
            fused[max(fitting, key=order.get)] = node
    return fused


def owning(steps: list[Step], kept: list[int]) -> list[Step]:
    """Return the steps, each sum marked whether its addend, which it overwrites, is needed again."""
    last = {register: index for index, step in enumerate(steps) for register in step.sources}
    shared = {register for step in steps if isinstance(step, Call) for register in (*step.sources, step.target)}
    made = {step.target for step in steps} - shared - set(kept)  # nothing else holds these tensors
    return [
        replace(step, keep_addend=not (step.sources[1] in made and last[step.sources[1]] == index))
        if isinstance(step, Multiply) and step.product.adds
        else step
        for index, step in enumerate(steps)
    ]


def method(node: fx.Node) -> Any:
    """Return the method that a node calls, as a function; for `view` it is `reshape`, for channels-last tensors."""
    name = "reshape" if node.target == "view" else node.target
    return lambda tensor, *places, **keywords: getattr(tensor, name)(*places, **keywords)


def _attribute(traced: nn.Module, path: str) -> Any:
    for name in path.split("."):
        traced = getattr(traced, name)
    return traced


def _name(node: fx.Node) -> str:
    return node.target if node.op == "call_module" else node.name
