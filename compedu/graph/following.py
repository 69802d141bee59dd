"""Following channels: a network's graph is run on arrays of channel numbers instead of values."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compedu.errors import first_line
from compedu.forms.form import Form
from compedu.graph.coupling import BATCH_NORMS, INPUT, OUTPUT, Coupling, Unfollowed, is_depthwise
from compedu.graph.nodes import called_name
from compedu.graph.operations import ASKING, ELEMENTWISE, Call, follow, key

_HOMES = ("torch.", "_operator.", "builtins.", "math.", "torchvision.ops.")


class Shapes(fx.Interpreter):
    """Runs a graph without computing anything, on the layers of `skeleton`, whose tensors are on the meta device.

    Afterwards `of[node]` is the result of the node, with tensors that have only a shape.
    """

    def __init__(self, traced: fx.GraphModule, skeleton: nn.Module):
        super().__init__(traced)
        self.skeleton = skeleton
        self.of: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and record its result."""
        self.of[n] = super().run_node(n)
        return self.of[n]

    def get_attr(self, target, args, kwargs):
        """Return a parameter, buffer or constant without its values."""
        return self.fetch_attr(target).to("meta")

    def call_module(self, target, args, kwargs):
        """Run the layer of the skeleton; batch norms keep the shape, which torch is slow to infer."""
        layer = self.skeleton.get_submodule(target)
        return next(_tensors((args, kwargs))) if isinstance(layer, BATCH_NORMS) else layer(*args, **kwargs)


class Follower(fx.Interpreter):
    """Runs a graph on ids: for every tensor one of the same shape, which holds for each element the id of its channel.

    `made` is what `Shapes` found; the coupling of the channels is recorded in `coupling`. An operation that cannot be
    followed pins the channels that it reads, and its result is fixed.
    """

    def __init__(self, traced: fx.GraphModule, model: nn.Module, made: dict[fx.Node, Any], coupling: Coupling):
        super().__init__(traced)
        self.model = model
        self.made = made
        self.coupling = coupling

    def run_node(self, n: fx.Node) -> Any:
        """Follow one node, or let the channels end there."""
        self.node = n
        try:
            return super().run_node(n)
        except Unfollowed as problem:
            for ids in _tensors(self.fetch_args_kwargs_from_env(n)):
                self.coupling.pin(ids, f"its channels go through {self.here()}, {problem}")
            return self.fixed(self.made[n], f"the result of {self.here()}")

    def here(self) -> str:
        """Describe the current node, as part of a sentence."""
        node = self.node
        if node.op == "call_module":
            return f"{node.target!r}, a {type(self.model.get_submodule(node.target)).__name__}"
        place = next(reversed(node.meta.get("nn_module_stack", {})), "")
        return f"{called_name(node)!r} in " + (f"module {place!r}" if place else "the network's own forward")

    def fixed(self, values: Any, source: str) -> Any:
        """Return `values` with fixed ids that come from `source` in place of tensors."""
        return pytree.tree_map_only(Tensor, lambda x: torch.tensor(self.coupling.fix(source)).expand(x.shape), values)

    def placeholder(self, target, args, kwargs):
        """Return the ids of the network's input."""
        return self.fixed(super().placeholder(target, args, kwargs), "a network's input")

    def get_attr(self, target, args, kwargs):
        """Return the ids of a parameter, buffer or constant that the forward pass reads directly."""
        value = self.fetch_attr(target)
        return self.fixed(value, "a free parameter" if isinstance(value, nn.Parameter) else "a constant tensor")

    def call_method(self, target, args, kwargs):
        """Follow a method of a tensor."""
        return self.operation(target, lambda x, *rest, **options: getattr(x, target)(*rest, **options), args, kwargs)

    def call_function(self, target, args, kwargs):
        """Follow a function; named tuples are built as such."""
        if isinstance(target, type) and issubclass(target, tuple):
            return target(*args, **kwargs)
        home = getattr(target, "__module__", None) or "torch"
        return self.operation(target.__name__ if f"{home}.".startswith(_HOMES) else "", target, args, kwargs)

    def call_module(self, target, args, kwargs):
        """Follow a layer with channels of its own, or a module that stands for an operation."""
        layer = self.model.get_submodule(target)
        dim = self.dim_of(layer)
        if dim is not None:
            return self.layer(target, layer, dim, next(_tensors((args, kwargs))))
        name = type(layer).__name__ if type(layer).__module__.startswith("torch.nn.") else ""
        return self.operation(name, layer, args, kwargs)

    def dim_of(self, layer: nn.Module) -> int | None:
        """Return the dimension of the channels of a layer that has some of its own, None for other modules."""
        return channel_dim(layer)

    def passes(self, layer: nn.Module) -> bool:
        """Return whether each output channel of `layer` is the input channel at the same place."""
        return isinstance(layer, (*BATCH_NORMS, nn.PReLU)) or is_depthwise(layer)

    def layer(self, name: str, layer: nn.Module, dim: int, ids: Tensor) -> Tensor:
        """Record the channels of a layer, which lie along `dim`; return the ids of its output."""
        for part in layer.children() if isinstance(layer, BATCH_NORMS) else ():
            if key(type(part).__name__) not in ELEMENTWISE or any(True for _ in part.parameters()):
                raise Unfollowed(f"which is followed by a {type(part).__name__}, whose effect on channels is not known")
        channels = self.coupling.along(ids, dim)
        shape = self.made[self.node].shape
        if not self.passes(layer):
            self.coupling.put((name, INPUT), channels)
            channels = self.coupling.new(shape[dim])
        self.coupling.put((name, OUTPUT), channels)
        return channels.reshape([-1 if d == dim % len(shape) else 1 for d in range(len(shape))]).expand(shape)

    def operation(self, name: str, run: Callable, args: tuple, kwargs: dict) -> Any:
        """Return the ids, or the number or shape, that an operation returns."""
        call = Call(run, args, kwargs, self.node.args)
        name = key(args[1] if name == "getattr" else name)
        if not call.tensors:
            return self.fixed(run(*args, **kwargs), "a constant tensor")
        if name == "getitem" and not isinstance(args[0], Tensor):
            return args[0][args[1]]
        if name in ASKING:
            return run(*args, **kwargs)
        made = self.made[self.node]
        try:
            ids = self.through(name, call, made.shape if isinstance(made, Tensor) else None)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise Unfollowed(f"which is called in a way that is not known ({first_line(error)})") from error
        if [x.shape for x in _tensors(ids)] != [x.shape for x in _tensors(made)]:
            raise Unfollowed("which gives them a shape that is not known")
        return ids

    def through(self, name: str, call: Call, shape: Sequence[int] | None) -> Any:
        """Return the ids after the operation of key `name`, whose result has `shape` if it is one tensor."""
        return follow(self.coupling, name, call, shape)

    def output(self, target, args, kwargs):
        """Pin the outputs of the network."""
        for ids in _tensors(args):
            self.coupling.pin(ids, "its channels are the network's output")
        return args[0]


def channel_dim(layer: nn.Module) -> int | None:
    """Return the dimension along which the channels of a layer's input and output lie, None for other modules."""
    if isinstance(layer, nn.Linear) or (isinstance(layer, Form) and layer.geometry.kind == "linear"):
        return -1
    if isinstance(layer, nn.modules.conv._ConvNd):
        return -1 - len(layer.kernel_size)
    if isinstance(layer, Form):
        return -3
    channelwise = isinstance(layer, BATCH_NORMS) or (isinstance(layer, nn.PReLU) and layer.num_parameters > 1)
    return 1 if channelwise else None


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor))
