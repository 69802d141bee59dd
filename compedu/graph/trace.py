"""Tracing: a network as a graph whose leaves are forms and torch's own layers."""

import inspect
import operator
import threading
from collections.abc import Collection

import torch
from torch import Tensor, fx, nn
from torch.fx._symbolic_trace import _assert_is_none

from compedu.errors import CompressionError, first_line
from compedu.forms.attention import PROJECTIONS, OpenAttention
from compedu.forms.form import Form
from compedu.graph.copying import inference_copy
from compedu.graph.nodes import OVERWRITING_OPERATORS, is_relu, only_consumer
from compedu.graph.norms import is_batch_norm
from compedu.graph.own_hooks import has_own_forward, move_hooks

# While torch.fx traces, every module call and attribute of the process goes through its tracer, on whichever thread.
_one_at_a_time = threading.RLock()


class _Proxy(fx.Proxy):
    """A value in a trace for which `y += x` overwrites y, as it does a tensor that other names share.

    The proxies of torch.fx record `y = y + x` instead, which those other names would not see.
    """


def _overwriting(name: str):
    def method(self, other):
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return method


for _name in OVERWRITING_OPERATORS:
    setattr(_Proxy, f"__{_name}__", _overwriting(_name))


class _LayerTracer(fx.Tracer):
    """The tracer of torch.fx that stops at forms and remembers which module it was in when something failed.

    Networks that run on other threads meanwhile are not affected.
    """

    inside = ""

    def __init__(self, root: nn.Module):
        super().__init__()
        self._thread = threading.get_ident()
        forms = [module for module in root.modules() if isinstance(module, Form)]
        attentions = [module for module in root.modules() if isinstance(module, nn.MultiheadAttention)]
        self._leaves = {*forms, *attentions, *filter(is_batch_norm, root.modules())}
        self._inside_forms = {id(parameter) for form in forms for parameter in form.parameters()}

    def proxy(self, node):
        return _Proxy(node, self)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        # A form computes its weight when it is read, which is not part of the graph.
        if threading.get_ident() != self._thread or id(attr_val) in self._inside_forms:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        if kwargs.keys() == {"input"} and self.is_leaf_module(m, ""):  # the name in torch's layers
            args = (*kwargs.values(), *args)
            kwargs = {}
        outside = self.inside
        self.inside = self.path_of_module(m)
        output = super().call_module(m, forward, args, kwargs)
        self.inside = outside  # not in a `finally`: after an exception the innermost module is the answer
        return output


def trace(model: nn.Module, training: bool = False) -> fx.GraphModule:
    """Return the inference graph of `model`: one node per layer call, function or method, with forms as leaves.

    With `training` it is the graph of the forward pass in training mode. An input that defaults to None counts
    as left out: in a graph of torch.fx it would never be None. The result shares its tensors with `model`;
    node targets are the names of `model.named_modules()`. Its `meta["written"]` names buffers that the forward pass
    changes outside the graph, which would not change them. Raises `CompressionError` that names the module and the
    reason when the network cannot be traced (Reed et al. 2022, arXiv:2112.08429, section 5).
    """
    if has_own_forward(model):
        raise CompressionError(
            f"{type(model).__name__} cannot be traced: it has a forward set on the network itself, and a graph holds "
            "the one of its class. Methods that work layer by layer apply to this network where they are given data."
        )
    root = inference_copy(model).train(training)
    buffers = {name: (buffer, _version(buffer)) for name, buffer in root.named_buffers()}
    tracer = _LayerTracer(root)
    try:
        left_out = {name: None for name, p in inspect.signature(root.forward).parameters.items() if p.default is None}
        with _one_at_a_time, torch.no_grad():
            graph = tracer.trace(root, left_out or None)
        for node in graph.find_nodes(op="call_function", target=_assert_is_none):
            graph.erase_node(node)
        traced = fx.GraphModule(root, graph)
        left = dict(root.named_buffers())
        traced.meta["written"] = [
            name for name, (one, version) in buffers.items() if left.get(name) is not one or _version(one) != version
        ]
        # Otherwise graph, network and tracer form a cycle, which keeps the tensors until garbage is collected.
        traced.graph.owning_module = None
        vars(tracer).clear()
        return traced
    except Exception as error:  # a forward pass may raise anything
        place = f"module {tracer.inside!r}" if tracer.inside else "its own forward"
        raise CompressionError(
            f"{type(model).__name__} cannot be traced: {place} failed with {type(error).__name__}: "
            f"{first_line(error)}. A graph needs a forward pass whose control flow does not depend on data; methods "
            "that work layer by layer apply to this network where they are given data."
        ) from error


def _version(tensor: Tensor) -> int:
    """Return how often `tensor` was written into, as far as torch counts it."""
    return 0 if tensor.is_inference() else tensor._version


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in place of `old` inside `model`, under every name of `old`; hooks move along."""
    move_hooks(old, new)
    put_module(model, old, new)


def put_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new`, as it is, in place of `old` inside `model`, under every name of `old`."""
    parents = [model]
    met = {id(model)}
    for parent in parents:  # which grows on the way, but not by `new`, which may hold `old`
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
            elif child is not None and id(child) not in met:
                met.add(id(child))
                parents.append(child)


def open_attentions(model: nn.Module, inside: Collection[str] | None = None) -> nn.Module:
    """Turn the projections of torch's multi-head attentions into layers of their own, in place; return the model.

    `inside` names projections, such as "attention.in_proj": only their attentions are opened then.
    """
    for name, module in list(model.named_modules()):
        path = f"{name}." if name else ""
        meant = inside is None or any(f"{path}{layer}" in inside for layer in PROJECTIONS)
        if type(module) is nn.MultiheadAttention and meant and not has_own_forward(module):
            opened = OpenAttention.of(module)
            if not name:
                return opened
            replace_module(model, module, opened)
    return model


def is_plain(layer: nn.Module) -> bool:
    """Return whether `layer` is torch's own Conv2d or Linear, not a subclass, with an unparametrized weight.

    It must also run the forward pass of its class.
    """
    ordinary = type(layer) in (nn.Conv2d, nn.Linear) and not has_own_forward(layer)
    return ordinary and layer._parameters.get("weight") is not None


def layer_calls(traced: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Return for each module that the graph calls, in order of the first call, the nodes that call it."""
    calls: dict[str, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(node.target, []).append(node)
    return calls


def only_readers(traced: fx.GraphModule) -> dict[str, str]:
    """Return the modules, called once, whose output only one other module reads, each with the name of that module."""
    readers = {name: only_consumer(nodes[0]) for name, nodes in layer_calls(traced).items() if len(nodes) == 1}
    return {name: node.target for name, node in readers.items() if node is not None and node.op == "call_module"}


def shared_weights(model: nn.Module) -> dict[str, str]:
    """Return the modules that share a parameter with another module, each with the name of one such module."""
    owners: dict[int, list[str]] = {}
    for name, layer in model.named_modules():
        for parameter in layer._parameters.values():
            if parameter is not None and name not in owners.setdefault(id(parameter), []):
                owners[id(parameter)].append(name)
    return {
        name: next(other for other in names if other != name)
        for names in owners.values()
        if len(names) > 1
        for name in names
    }


def owners_read_apart(traced: fx.GraphModule) -> set[str]:
    """Return the modules whose tensors the graph reads directly."""
    return {node.target.rpartition(".")[0] for node in traced.graph.nodes if node.op == "get_attr"} - {""}


def followed_by_relu(model: nn.Module) -> set[str]:
    """Return the names of the Conv2d and Linear layers, used once, whose output only a ReLU reads.

    A batch normalization between layer and ReLU is allowed. Raises `CompressionError` when `model` cannot be
    traced.
    """
    traced = trace(model)
    modules = dict(traced.named_modules())
    calls = layer_calls(traced)
    found = set()
    for name, nodes in calls.items():
        reader = only_consumer(nodes[0])
        if len(nodes) > 1 or not is_plain(modules[name]) or reader is None:
            continue
        if reader.op == "call_module" and type(modules[reader.target]) in (nn.BatchNorm1d, nn.BatchNorm2d):
            reader = only_consumer(reader)
        if reader is not None and is_relu(reader, modules):
            found.add(name)
    return found
