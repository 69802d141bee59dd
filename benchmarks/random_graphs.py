"""Small random networks whose graphs branch, join, reshape, share and overwrite: on which the integer law is tested."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Choose = Callable[[Sequence[Any]], Any]  # returns one of several: `random.Random.choice`, or a draw of Hypothesis

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.relu(), "F.relu": F.relu, "torch.relu": torch.relu, "relu6": F.relu6, "tanh": torch.tanh,
    "sigmoid": lambda x: x.sigmoid(), "silu": F.silu, "hardswish": F.hardswish, "abs": torch.abs, "gelu": F.gelu,
    "clamp": lambda x: x.clamp(-0.5, 0.4), "7 x": lambda x: 7 * x, "x - 3": lambda x: x - 3,
    "dropout": lambda x: F.dropout(x, 0.5, False), "relu_": lambda x: x.relu_(),
    "F.relu in place": lambda x: F.relu(x, True), "*= -2": lambda x: operator.imul(x, -2.0),
}  # fmt: skip
MODULES = (nn.ReLU, nn.ReLU6, nn.Identity, nn.Dropout, nn.Tanh, lambda: nn.ReLU(inplace=True), nn.PReLU)
SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": operator.add, "torch.add": torch.add, "a.add": lambda a, b: a.add(b), "-": operator.sub, "*": operator.mul,
    "* sigmoid": lambda a, b: a * b.sigmoid(), "maximum": torch.maximum, "+=": operator.iadd,
}  # fmt: skip
POOLS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[int], int]]] = {
    "max 2": (lambda x: F.max_pool2d(x, 2), lambda side: side // 2),
    "max 3, padded": (lambda x: F.max_pool2d(x, 3, 1, 1), lambda side: side),
    "max 2, ceil": (lambda x: F.max_pool2d(x, 2, ceil_mode=True), lambda side: -(-side // 2)),
    "average 2": (lambda x: F.avg_pool2d(x, 2), lambda side: side // 2),
    "average 3, padded": (lambda x: F.avg_pool2d(x, 3, 1, 1), lambda side: side),
    "average of the image": (lambda x: F.adaptive_avg_pool2d(x, 1), lambda side: 1),
    "largest of the image": (lambda x: F.adaptive_max_pool2d(x, 1), lambda side: 1),
}  # fmt: skip
FLATS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(1), "torch.flatten": lambda x: torch.flatten(x, 1),
    "reshape": lambda x: x.reshape(x.shape[0], -1), "view": lambda x: x.view(x.size(0), -1),
}  # fmt: skip
WRITES: dict[str, Callable[[Tensor], Any]] = {
    "view.mul_": lambda x: x.view(x.size(0), -1).mul_(2), "chunk.relu_": lambda x: x.chunk(2, 1)[0].relu_(),
    "slice.add_": lambda x: x[:, 1:].add_(0.5), "unsqueeze +=": lambda x: operator.iadd(x.unsqueeze(1), -0.5),
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """`run(network, *tensors)` gives a tensor from those at the places `sources`."""

    name: str
    sources: tuple[int, ...]
    run: Callable[..., Tensor]

    def __deepcopy__(self, memo: dict) -> "Operation":
        return self


class Network(nn.Module):
    """Runs operations one after the other on images (N, channels, side, side) and returns vectors (N, outputs)."""

    def __init__(
        self, channels: int, operations: Sequence[Operation], layers: dict[str, nn.Module], outputs: Sequence[int]
    ):
        super().__init__()
        self.channels = channels
        self.operations = tuple(operations)
        self.outputs = tuple(outputs)
        self.layers = nn.ModuleDict(layers)
        self.register_buffer("shift", torch.tensor(0.3))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, each flattened, side by side; through the layer "last" where there is one."""
        tensors = [x]
        for operation in self.operations:
            tensors.append(operation.run(self, *[tensors[source] for source in operation.sources]))
        y = torch.cat([tensors[output].flatten(1) for output in self.outputs], 1)
        return self.layers["last"](y) if "last" in self.layers else y

    def __str__(self) -> str:
        lines = [f"{place}: {op.name} of {op.sources}" for place, op in enumerate(self.operations, 1)]
        last = ", through a layer" if "last" in self.layers else ""
        return "; ".join([*lines, f"out {self.outputs}{last}"])


@dataclass
class Draft:
    """A network in the making: what was chosen so far, and the shape (without the batch) of each tensor."""

    choose: Choose
    shapes: list[tuple[int, ...]]
    operations: list[Operation] = field(default_factory=list)
    layers: dict[str, nn.Module] = field(default_factory=dict)

    def add(self, name: str, sources: Sequence[int], shape: Sequence[int], run: Callable[..., Tensor]) -> None:
        """Append an operation."""
        self.operations.append(Operation(name, tuple(sources), run))
        self.shapes.append(tuple(shape))

    def pick(self, fits: Callable[[tuple[int, ...]], bool] = lambda shape: True) -> int | None:
        """Return the place of one tensor whose shape fits, late ones first, or None."""
        places = [place for place, shape in enumerate(self.shapes) if fits(shape)]
        return self.choose(places[::-1]) if places else None

    def keep(self, layer: nn.Module) -> str:
        """Register a layer and return its name."""
        name = f"layer{len(self.layers)}"
        self.layers[name] = layer
        return name

    def call(self, name: str, sources: Sequence[int], shape: Sequence[int]) -> None:
        """Append a call of the layer `name`."""
        self.add(str(self.layers[name]), sources, shape, lambda network, x: network.layers[name](x))

    def layer(self) -> None:
        """Append a convolution of an image, or a linear layer, and sometimes a batch norm after it."""
        place = self.pick()
        shape = self.shapes[place]
        made = self.convolution(shape) if len(shape) == 3 else self.linear(shape)
        if made is None:
            return
        layer, after, norm = made
        again = [name for name, old in self.layers.items() if str(old) == str(layer)]  # a layer that is called twice
        self.call(again[0] if again and self.choose([False, True]) else self.keep(layer), [place], after)
        if self.choose([False, False, True]):
            self.call(self.keep(norm), [len(self.shapes) - 1], after)

    def convolution(self, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...], nn.Module]:
        """Return a convolution, the shape that it gives, and a norm that fits after it."""
        inside = shape[0]
        out = self.choose([4, 2, 3, 6])
        kernel = self.choose([3, 1])
        groups = self.choose([g for g in (1, 1, 2, inside) if inside % g == 0])
        out = inside if groups == inside else out if out % groups == 0 else out * groups
        stride = self.choose([1, 1, 2])
        dilation = self.choose([1, 1, 2])
        reach = dilation * (kernel - 1)
        padding = reach // 2 if min(shape[1:]) <= reach else self.choose([reach // 2, 0])
        layer = nn.Conv2d(inside, out, kernel, stride, padding, dilation, groups, bias=self.choose([True, False]))
        sides = [(side + 2 * padding - reach - 1) // stride + 1 for side in shape[1:]]
        grouped = (
            nn.GroupNorm(1, out) if out * math.prod(sides) > 1 else nn.Identity()
        )  # torch refuses to normalize a single number
        return layer, (out, *sides), self.choose([nn.BatchNorm2d(out), grouped])

    def linear(self, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...], nn.Module] | None:
        """Return a linear layer, the shape that it gives, and a norm that fits after it."""
        if shape[-1] > 200:
            return None
        out = self.choose([5, 3, shape[0]]) if len(shape) == 2 else self.choose([5, 3, 8])
        after = (*shape[:-1], out)
        return nn.Linear(shape[-1], out), after, self.choose([nn.BatchNorm1d(after[0]), nn.LayerNorm(out)])

    def activation(self) -> None:
        """Append a function or a module of single elements."""
        place = self.pick()
        if self.choose([False, False, True]):
            self.call(self.keep(self.choose(MODULES)()), [place], self.shapes[place])
        elif self.choose([False] * 9 + [True]):
            self.add("x + constant", [place], self.shapes[place], lambda network, x: x + network.shift)
        else:
            name = self.choose(list(ACTIVATIONS))
            self.add(name, [place], self.shapes[place], lambda network, x: ACTIVATIONS[name](x))

    def pool(self) -> None:
        """Append a pooling."""
        place = self.pick(lambda shape: len(shape) == 3 and min(shape[1:]) >= 2)
        if place is not None:
            name = self.choose(list(POOLS))
            side = POOLS[name][1]
            shape = (self.shapes[place][0], *map(side, self.shapes[place][1:]))
            self.add(name, [place], shape, lambda network, x: POOLS[name][0](x))

    def combine(self) -> None:
        """Append a sum or product of two tensors of one shape, or of images and one number for each map."""
        first = self.pick()
        shape = self.shapes[first]
        second = self.pick(lambda other: other == shape or (len(shape) == 3 and other == (shape[0], 1, 1)))
        name = self.choose(list(SUMS))
        self.add(name, [first, second], shape, lambda network, a, b: SUMS[name](a, b))

    def join(self) -> None:
        """Append a concatenation of two tensors, or of a tensor and constants."""
        first = self.pick()
        shape = self.shapes[first]
        second = self.pick(lambda other: len(other) == len(shape) and other[1:] == shape[1:])
        after = (shape[0] + self.shapes[second][0], *shape[1:])
        if self.choose([False, False, False, True]):
            after = (2 * shape[0], *shape[1:])
            self.add("cat with ones", [first], after, lambda network, x: torch.cat([x, torch.ones_like(x)], 1))
        elif self.shapes[second] == shape and self.choose([False, True]):
            self.add("stack", [first, second], after, lambda network, a, b: torch.stack([a, b], 1).flatten(1, 2))
        else:
            self.add("cat", [first, second], after, lambda network, a, b: torch.cat([a, b], dim=1))

    def cut(self) -> None:
        """Append a slice, both halves of a tensor, or the halves swapped."""
        place = self.pick(lambda shape: shape[0] >= 2)
        if place is None:
            return
        count, *rest = self.shapes[place]
        kind = self.choose(["halves", "slice", "swapped"])
        if kind == "slice":
            self.add("slice", [place], (count - 1, *rest), lambda network, x: x[:, 1:])
            return
        if kind == "swapped":
            self.add("halves swapped", [place], (count, *rest), swap)
            return
        first = -(-count // 2)
        for index, size in enumerate((first, count - first)):
            self.add(f"half {index}", [place], (size, *rest), lambda network, x, i=index: x.chunk(2, 1)[i])

    def reshape(self) -> None:
        """Append images as vectors or as tokens, tokens as vectors, a shuffle of maps, vectors as images."""
        place = self.pick()
        shape = self.shapes[place]
        flat = math.prod(shape)
        kind = self.choose(["flat", "mean", "tokens", "shuffle"])
        if len(shape) == 1:
            self.add("as images", [place], (flat, 1, 1), lambda network, x: x.view(x.size(0), -1, 1, 1))
        elif kind == "flat" and flat <= 200:
            name = self.choose(list(FLATS))
            self.add(name, [place], (flat,), lambda network, x: FLATS[name](x))
        elif len(shape) == 2:
            self.add("mean of tokens", [place], shape[1:], lambda network, x: x.mean(1))
        elif kind == "tokens":
            after = (shape[1] * shape[2], shape[0])
            self.add("tokens", [place], after, lambda network, x: x.flatten(2).transpose(1, 2))
        elif kind == "shuffle" and shape[0] % 2 == 0:
            self.add("shuffle", [place], shape, shuffle)
        else:
            self.add("mean", [place], shape[:1], lambda network, x: x.mean((2, 3)))

    def write(self) -> None:
        """Overwrite part of a tensor through a view of it."""
        place = self.pick(lambda shape: shape[0] >= 2)
        if place is not None:
            name = self.choose(list(WRITES))

            def run(network: Network, x: Tensor) -> Tensor:
                WRITES[name](x)
                return x

            self.add(name, [place], self.shapes[place], run)


def swap(network: Network, x: Tensor) -> Tensor:
    """Return the second half of the channels, then the first."""
    first, second = x.chunk(2, 1)
    return torch.cat([second, first], 1)


def shuffle(network: Network, x: Tensor) -> Tensor:
    """Return the maps of two halves in turn."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def draft(choose: Choose) -> Network:
    """Return a network of at most 12 steps with weights from a seed that is chosen as well."""
    made = Draft(choose, [(choose([3, 2, 4]), 6, 6)])
    made.layer()
    steps = [
        made.layer, made.activation, made.combine, made.join, made.pool, made.reshape, made.layer, made.activation,
        made.combine, made.join, made.cut, made.reshape, made.layer, made.layer, made.activation, made.cut, made.write,
    ]  # fmt: skip
    for _ in range(choose(range(3, 12))):
        choose(steps)()
    outputs = {len(made.shapes) - 1, choose(range(1, len(made.shapes)))}
    width = sum(math.prod(made.shapes[output]) for output in outputs)
    if choose([False, True]):
        made.layers["last"] = nn.Linear(width, 4)
    return lively(Network(made.shapes[0][0], made.operations, made.layers, sorted(outputs)), choose(range(1000)))


def lively(network: Network, seed: int) -> Network:
    """Draw all parameters and statistics so that nothing is zero, one, or dead."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.copy_(noise.abs() + 0.5)
            else:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else 0.3 * noise)
    return network
