"""A network whose tensors stay integers from layer to layer: the plan as data, and the module that runs it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, fx, nn

from compedu.deployment.kernels.product import Grid, Product, Window
from compedu.deployment.kernels.simulated import Simulated
from compedu.errors import CompressionError


@dataclass(frozen=True)
class Register:
    """The place of one tensor while a plan runs."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operation: reads the registers `sources`, writes the register `target`; `name` is the layer or graph node."""

    name: str
    sources: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Quantize(Step):
    """Values to codes. `checked`: the values may be NaN, which has no code."""

    grid: Grid
    checked: bool


@dataclass(frozen=True)
class Multiply(Step):
    """A layer on codes. `bits` is the width of its weights; `keep_addend`: the addend is read again later."""

    product: Product
    bits: int
    keep_addend: bool = False


@dataclass(frozen=True)
class MaxPool(Step):
    """The largest code in each window: the grid stays."""

    window: Window


@dataclass(frozen=True)
class Clip(Step):
    """Codes clipped to low..high: ReLU on codes."""

    low: int
    high: int


class On(StrEnum):
    """What a function of a plan works on."""

    CODES = "codes"
    VALUES = "values"
    NEITHER = "neither"  # shapes and constants


@dataclass(frozen=True)
class Call(Step):
    """Any other function; in `arguments` (positional, by name) registers stand for tensors."""

    function: Callable
    arguments: tuple[tuple, dict[str, Any]]
    on: On = On.VALUES


@dataclass(frozen=True)
class Plan:
    """The steps of a network, the registers of its inputs, and its output, in which registers stand for tensors."""

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    output: Any
    registers: int

    @property
    def breaks(self) -> tuple[str, ...]:
        """The layers and functions that run in float32: each breaks the chain of integers."""
        return tuple(step.name for step in self.steps if isinstance(step, Call) and step.on is On.VALUES)

    def __str__(self) -> str:
        return "\n".join(f"{step.name}: {description(step)}" for step in self.steps)


def description(step: Step) -> str:
    """Describe what a step does."""
    match step:
        case Quantize(grid=grid):
            return f"values to codes 0..{grid.top}, scale {grid.scale:.4g}, zero-point {grid.zero_point}"
        case Multiply(product=p, bits=bits):
            added = "" if not p.adds else " + values"
            clipped = "" if p.low is None else " + ReLU" if p.high is None else f" + clip to {p.low:g}..{p.high:g}"
            end = "values" if p.target is None else f"codes 0..{p.target.top}, scale {p.target.scale:.4g}"
            return f"{p.geometry.kind} with {bits}-bit weights{added}{clipped} to {end}"
        case MaxPool(window=w):
            return f"largest code of {w.kernel[0]}x{w.kernel[1]}"
        case Clip():
            return "ReLU on codes"
        case Call(on=on):
            return {On.VALUES: "in float32", On.CODES: "on codes", On.NEITHER: "a shape or a constant"}[on]
    raise TypeError(f"{type(step).__name__} is not a step of a plan")


class IntegerChain(nn.Module):
    """Runs a plan with the products of one engine: `OneDNN` or `Simulated`."""

    def __init__(self, plan: Plan, engine: Any):
        super().__init__()
        self.plan = plan
        self.engine = engine
        last = {register: step for step in plan.steps for register in (*step.sources, step.target)}
        kept = registers_in(plan.output)
        self.program = []
        for step in plan.steps:
            dead = tuple({r for r in (*step.sources, step.target) if last[r] is step and r not in kept})
            self.program.append((runner(step, engine), step.sources, step.target, dead))

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the network returns for its inputs, in float32."""
        registers: list[Any] = [None] * self.plan.registers
        for index, x in zip(self.plan.inputs, inputs, strict=False):
            registers[index] = x
        for run, sources, target, dead in self.program:
            registers[target] = run(*[registers[source] for source in sources])
            for register in dead:
                registers[register] = None
        return filled(self.plan.output, registers)


def runner(step: Step, engine: Any) -> Callable:
    """Return the function from the tensors of a step's sources to the tensor of its target."""
    match step:
        case Quantize():
            return quantizing(step)
        case Multiply(product=product):
            return adding(step, engine) if product.adds else engine_for(product, engine).product(product)
        case MaxPool(window=window):
            return engine.max_pool(window)
        case Clip(low=low, high=high):
            return lambda codes: codes.clamp(low, high)
        case Call():
            return calling(step)
    raise TypeError(f"{type(step).__name__} is not a step of a plan")


def engine_for(product: Product, engine: Any) -> Any:
    """Return `engine`, or one that sums in float64 where the sums of `product` might not fit in an engine's 32 bits."""
    return engine if product.sums_fit() else Simulated(torch.float64)


def quantizing(step: Quantize) -> Callable[[Tensor], Tensor]:
    """Return the function from values to codes; values that are NaN raise `CompressionError`."""
    if not step.checked:
        return step.grid.codes

    def run(x: Tensor) -> Tensor:
        if bool(x.sum().isnan()) and bool(x.isnan().any()):  # the sum is fast, but NaN for inf - inf too
            raise CompressionError(
                f"{step.name!r} gives NaN, for which integers have no code; give inputs without NaN, or run the "
                "network as it is, without deploy()"
            )
        return step.grid.codes(x)

    return run


def adding(step: Multiply, engine: Any) -> Callable[[Tensor, Any], Tensor]:
    """Return the fused product and sum; an addend of another shape or type than the product is added afterwards."""
    p = step.product
    used = engine_for(p, engine)
    fused = used.product(p)
    alone = used.product(replace(p, low=None, adds=False))
    shapes: dict[torch.Size, torch.Size] = {}

    def run(x: Tensor, other: Any) -> Tensor:
        if x.shape not in shapes and x.dim() == 4:
            shapes[x.shape] = p.output_shape(x.shape)
        fits = isinstance(other, Tensor) and other.dtype == torch.float32 and other.shape == shapes.get(x.shape)
        if fits:
            return fused(x, other.clone() if step.keep_addend else other)
        y = alone(x) + other
        return y if p.low is None else y.relu_()

    return run


def calling(step: Call) -> Callable:
    """Return a step's function, which takes the tensors of its sources as its only arguments."""
    places, keywords = step.arguments
    if not keywords and all(isinstance(place, Register) for place in places) and len(places) == len(step.sources):
        return step.function

    def run(*tensors: Any) -> Any:
        registers = dict(zip(step.sources, tensors, strict=True))
        return step.function(*filled(places, registers), **filled(keywords, registers))

    return run


def filled(structure: Any, registers: Any) -> Any:
    """Return `structure` with every register replaced by its content."""
    return fx.node.map_aggregate(structure, lambda leaf: registers[leaf.index] if isinstance(leaf, Register) else leaf)


def registers_in(structure: Any) -> list[int]:
    """Return the registers that `structure` holds, each once, in order."""
    found: dict[int, None] = {}
    fx.node.map_aggregate(structure, lambda leaf: found.setdefault(leaf.index) if isinstance(leaf, Register) else leaf)
    return list(found)
