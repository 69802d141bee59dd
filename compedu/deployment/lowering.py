"""From the graph of a network to a plan: which tensors are codes, on which grid, and what is fused with what."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from compedu.deployment import patterns
from compedu.deployment.integer_chain import (
    AveragePool, Call, Clip, Dequantize, MaxPool, Multiply, Plan, Quantize, Register, Step, registers_in,
)
from compedu.deployment.kernels.product import Grid, Product, Window
from compedu.graph import only_consumer


def plan_of(traced: fx.GraphModule) -> Plan:
    """Return the plan of a traced network.

    A tensor takes the grid of the first layer that reads it, seen through pooling, reshaping, concatenation and ReLU;
    other readers of the same bit width use the same codes. A ReLU behind a layer, and a sum whose one part is a
    convolution, are fused with it. Whatever has no meaning on codes runs in float32 between two conversions. Changes
    `traced`.
    """
    return _Lowering(patterns.simplified(traced)).plan()


class _Lowering:
    def __init__(self, traced: fx.GraphModule):
        self.nodes, self.modules = list(traced.graph.nodes), dict(traced.named_modules())
        self.attribute = partial(_attribute, traced)
        self.wanted = wanted_grids(self.nodes, self.modules)
        self.summands = fused_sums(self.nodes, self.modules)  # convolution -> the sum that it is fused with
        self.ready: dict[fx.Node, tuple[int, Grid]] = {}  # convolution -> its input, for those that wait for a sum
        self.places: dict[fx.Node, dict[Grid | None, int]] = {}  # node -> its registers: codes by grid, values by None
        self.shapes: set[fx.Node] = set()  # nodes that hold shapes, not tensors
        self.steps: list[Step] = []
        self.inputs: list[int] = []
        self.count, self.output = 0, None

    def plan(self) -> Plan:
        for node in self.nodes:
            if node not in self.places:  # a ReLU may have been done with the layer in front of it
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
        elif not self.on_codes(node):
            self.call(node)

    def input(self, node: fx.Node) -> None:
        if node.args:  # an input that may be left out keeps its default
            self.constant(node, node.args[0])
        else:
            self.inputs.append(self.new(node, None))

    def constant(self, node: fx.Node, value: Any) -> None:
        self.steps.append(Call(_name(node), (), self.new(node, None), lambda: value, ((), {}), "neither"))

    def product(self, conv: fx.Node, node: fx.Node, other: fx.Node | None = None) -> None:
        """Append the product of layer `conv` and with it the sum `node` with `other`, if any, and the ReLU behind."""
        layer, (register, grid) = patterns.integer_layer(conv, self.modules), self.ready[conv]
        result, low, high = self.clipped(node, only_relu=other is not None)
        target, addend, sources = self.wanted.get(result), None, (register,)
        if other is not None:  # codes are added to codes, values to values
            addend = None if target is None else self.grid_of(other)
            target = None if addend is None else target
            sources += (self.values(other) if addend is None else self.places[other][addend],)
        product = Product.of(layer, grid, target=target, low=low, high=high, adds=other is not None, addend=addend)
        self.steps.append(Multiply(conv.target, sources, self.new(result, target), product, layer.bits))

    def clipped(self, node: fx.Node, only_relu: bool) -> tuple[fx.Node, float | None, float | None]:
        """Return the ReLU that alone reads `node`, and its bounds; otherwise `node` and no bounds."""
        reader = only_consumer(node)
        clip = None if reader is None else patterns.clip_of(reader, self.modules)
        if clip is None or (only_relu and clip[1] is not None):  # engines fuse nothing but ReLU behind a sum
            return node, None, None
        self.places[node] = {}  # nobody else reads it
        return reader, *clip

    def sum(self, node: fx.Node) -> None:
        """Append a sum together with the convolution that is one part of it."""
        first, second = patterns.added(node)
        conv, other = (second, first) if self.summands.get(second) is node else (first, second)
        self.product(conv, node, other)

    def on_codes(self, node: fx.Node) -> bool:
        """Append a node that has a meaning on codes, if its input is codes; return whether it was."""
        if parts := patterns.joined(node):
            return self.join(node, parts)
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        grid = self.grid_of(source) if source is not None else None
        if grid is None:
            return False
        name, register = _name(node), self.places[source][grid]
        if window := patterns.max_pool(node, self.modules):
            self.steps.append(MaxPool(name, (register,), self.new(node, grid), window))
        elif window := patterns.average_pool(node, self.modules):
            self.average(node, window, grid, register)
        elif patterns.is_image_average(node, self.modules):
            self.average(node, None, grid, register)
        elif patterns.is_reshape(node, self.modules):
            places = (Register(register), *self.filled(node.args[1:]))
            self.append_call(node, grid, (places, self.filled(node.kwargs)), "codes")
        elif clip := patterns.clip_of(node, self.modules):
            low, high = (None if bound is None else int(grid.codes(torch.tensor(bound))) for bound in clip)
            self.steps.append(Clip(name, (register,), self.new(node, grid), low, grid.top if high is None else high))
        else:
            return False
        return True

    def average(self, node: fx.Node, window: Window | None, grid: Grid, register: int) -> None:
        target = self.wanted.get(node)
        self.steps.append(AveragePool(_name(node), (register,), self.new(node, target), window, grid, target))

    def join(self, node: fx.Node, parts: list[fx.Node]) -> bool:
        """Append a concatenation of codes, if any part is codes; all parts take one grid."""
        grids = [self.grid_of(part) for part in parts]
        grid = self.wanted.get(node) or grids[0]
        if grid is None or all(found is None for found in grids):
            return False
        places = tuple(Register(self.codes(part, grid, exact=True)[0]) for part in parts)
        rest = (places, *self.filled(node.args[1:]))
        keywords = {key: self.filled(value) for key, value in node.kwargs.items() if key != "tensors"}
        self.append_call(node, grid, (rest, keywords), "codes")
        return True

    def call(self, node: fx.Node) -> None:
        """Append a node as it is, on float32 values; questions about shapes take codes as well."""
        asked = patterns.is_question(node)
        arguments = self.filled(node.args, asked), self.filled(node.kwargs, asked)
        inputs = node.all_input_nodes
        if asked or (inputs and all(source in self.shapes for source in inputs)):
            self.shapes.add(node)
        self.append_call(node, None, arguments, "neither" if node in self.shapes else "values")

    def append_call(self, node: fx.Node, grid: Grid | None, arguments: tuple, on: str) -> None:
        function, sources = self.function(node), tuple(registers_in(arguments))
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

    def grid_of(self, node: fx.Node) -> Grid | None:
        """Return the grid of which `node` has codes, or None."""
        return next((grid for grid in self.places[node] if grid is not None), None)

    def codes(self, node: fx.Node, grid: Grid, exact: bool = False) -> tuple[int, Grid]:
        """Return a register with codes of `node`, and their grid: one of the same width if there is one, or `grid`."""
        places = self.places[node]
        for found, register in places.items():
            if found == grid or (not exact and found is not None and found.top == grid.top):
                return register, found
        source = self.values(node)
        self.steps.append(Quantize(_name(node), (source,), self.new(node, grid), grid))
        return places[grid], grid

    def values(self, node: fx.Node) -> int:
        """Return a register with the float32 values of `node`."""
        places = self.places[node]
        if None not in places:
            grid, register = next(iter(places.items()))
            self.steps.append(Dequantize(_name(node), (register,), self.new(node, None), grid))
        return places[None]

    def filled(self, structure: Any, asked: bool = False) -> Any:
        """Return `structure` with registers in place of nodes: values, or when only `asked` for a shape anything."""

        def place(node: fx.Node) -> Register:
            return Register(next(iter(self.places[node].values())) if asked else self.values(node))

        return fx.node.map_arg(structure, place)


def wanted_grids(nodes: list[fx.Node], modules: patterns.Modules) -> dict[fx.Node, Grid]:
    """Return for each tensor that should be codes its grid: that of the first layer that reads it."""
    wanted: dict[fx.Node, Grid] = {}
    for node in reversed(nodes):  # so that the first reader has the last word
        layer = patterns.integer_layer(node, modules)
        if layer is not None:
            wanted[patterns.source_of(node)] = Grid.of(layer.act)
        elif node not in wanted:
            continue
        elif patterns.is_reshape(node, modules):
            wanted[patterns.source_of(node)] = wanted[node]
        elif patterns.max_pool(node, modules) or patterns.clip_of(node, modules):
            # Other readers of the input may need values that this grid leaves out, such as those below zero.
            if only_consumer(patterns.source_of(node)) is node:
                wanted[patterns.source_of(node)] = wanted[node]
        else:
            wanted.update(dict.fromkeys(patterns.joined(node) or [], wanted[node]))
    return wanted


def fused_sums(nodes: list[fx.Node], modules: patterns.Modules) -> dict[fx.Node, fx.Node]:
    """Return the convolutions that are computed together with the sum which alone reads them: {convolution: sum}."""
    fused = {}
    order = {node: index for index, node in enumerate(nodes)}
    for node in nodes:
        parts = patterns.added(node)
        if parts is None or parts[0] is parts[1]:
            continue
        fitting = [
            part for part in parts
            if (layer := patterns.integer_layer(part, modules)) is not None
            and layer.geometry.kind == "conv2d" and only_consumer(part) is node
        ]
        if fitting:
            fused[max(fitting, key=order.get)] = node
    return fused


def owning(steps: list[Step], kept: list[int]) -> list[Step]:
    """Return the steps with a note at each sum whether its addend, which the sum overwrites, is still needed."""
    last = {register: index for index, step in enumerate(steps) for register in step.sources}
    shared = {register for step in steps if isinstance(step, Call) for register in (*step.sources, step.target)}
    made = {step.target for step in steps} - shared - set(kept)  # nobody else holds these tensors
    return [
        replace(step, keep_addend=not (step.sources[1] in made and last[step.sources[1]] == index))
        if isinstance(step, Multiply) and step.product.adds else step
        for index, step in enumerate(steps)
    ]


def method(node: fx.Node) -> Any:
    """Return the method that a node calls, as a function; `view` may meet channels-last tensors, hence `reshape`."""
    name = "reshape" if node.target == "view" else node.target
    return lambda tensor, *places, **keywords: getattr(tensor, name)(*places, **keywords)


def _attribute(traced: nn.Module, path: str) -> Any:
    for name in path.split("."):
        traced = getattr(traced, name)
    return traced


def _name(node: fx.Node) -> str:
    return node.target if node.op == "call_module" else node.name
