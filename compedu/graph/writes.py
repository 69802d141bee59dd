"""In-place operations: what they overwrite, and whether another tensor shares it."""

import operator
from itertools import chain

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from compedu.forms.form import Form
from compedu.graph.nodes import OVERWRITING_OPERATORS, called_name, is_question, module_of
from compedu.graph.operations import ELEMENTWISE, POOLING, REDUCING, key

Modules = dict[str, nn.Module]

_OPERATORS = tuple(getattr(operator, name) for name in OVERWRITING_OPERATORS)
_COUNTING = ("_operator", "builtins", "math")  # modules of the functions that turn numbers into numbers
_PASSED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
# Operations that return a tensor of their own, besides reductions, poolings and what works element by element.
_MAKING = frozenset("""
    batchnorm bmm cat concat concatenate conv1d conv2d conv3d flip groupnorm interpolate layernorm linear logsoftmax
    matmul normalize roll softmax stack
""".split())  # fmt: skip
# Element-wise operations that may return the tensor that they were given.
_RETURNING = frozenset("""
    alphadropout contiguous detach double dropout dropout1d dropout2d dropout3d featurealphadropout float half identity
    pos positive stochasticdepth to type typeas
""".split())  # fmt: skip


def is_passed(node: fx.Node, modules: Modules) -> bool:
    """Return whether a layer returns its input itself: identities, and dropout, which is off at inference."""
    return type(module_of(node, modules)) in _PASSED


def overwrites(node: fx.Node, modules: Modules) -> bool:
    """Return whether `node` writes its result over its first input, as an operator, a function, a method or a module.

    Operators on numbers, such as sizes, overwrite nothing.
    """
    if node.op == "call_module":
        return bool(getattr(modules[node.target], "inplace", False))
    if node.op == "call_function" and node.target in _OPERATORS:
        return not _is_number(node.args[0])
    if node.op not in ("call_function", "call_method"):
        return False
    name = called_name(node).partition(".")[0]  # an overload of torch's own, such as mul_.Scalar
    return (name.endswith("_") and not name.endswith("__")) or _asked_in_place(node)


def _asked_in_place(node: fx.Node) -> bool:
    """Return whether a function is given a true `inplace`, by name or by position."""
    code = getattr(node.target, "__code__", None)  # torch's own functions in C++ have none and know no `inplace`
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    return bool(node.kwargs.get("inplace", dict(zip(names, node.args, strict=False)).get("inplace", False)))


def _is_number(value: object) -> bool:
    """Return whether an argument is a size or a number computed from sizes."""
    if not isinstance(value, fx.Node) or is_question(value):
        return True
    counting = value.op == "call_function" and getattr(value.target, "__module__", None) in _COUNTING
    return counting and value.target is not getattr and all(map(_is_number, value.all_input_nodes))


def hidden_write(traced: fx.GraphModule) -> str | None:
    """Return which operation overwrites a tensor that is read later under another name, or None.

    Where there is none, every in-place operation equals an ordinary one whose result replaces its input. Two tensors
    count as sharing memory unless an operation between them is known to return a tensor of its own.
    """
    modules = dict(traced.named_modules())
    nodes = list(traced.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    same: dict[fx.Node, fx.Node] = {}  # node -> the node whose tensor it returns
    memory: dict[fx.Node, set[fx.Node]] = {}  # node -> those that allocated the memory of its tensor, perhaps
    for node in nodes:
        writing = overwrites(node, modules)
        inputs = node.all_input_nodes
        kept = inputs and (writing or is_passed(node, modules))
        same[node] = same[inputs[0]] if kept else node
        own = not inputs or (_makes(node, modules) and not kept)
        memory[node] = {node} if own else set().union(*(memory[source] for source in inputs))
        if "out" in node.kwargs:
            return f"{node.name!r} writes into a tensor that it is given as `out`"
        if writing and not isinstance(_written(node), fx.Node):
            return f"{node.name!r} overwrites the tensors of a list"
        if writing and any(maker.op == "get_attr" for maker in memory[inputs[0]]):
            return f"{node.name!r} overwrites a tensor that the network keeps"
        if writing and (seen := _seen_elsewhere(node, nodes, order, same, memory)):
            return f"{node.name!r} overwrites a tensor that {seen.name!r} shares, which is read afterwards"
    return None


def _written(node: fx.Node) -> object:
    """Return what `node`, an in-place operation, overwrites: its first argument, also when given by name."""
    named = (node.kwargs[name] for name in ("input", "self") if name in node.kwargs)
    return next(chain(node.args, named, node.kwargs.values()), None)


def _seen_elsewhere(writer: fx.Node, nodes: list, order: dict, same: dict, memory: dict) -> fx.Node | None:
    """Return a tensor from before `writer` that may lie in the memory it overwrites and is read afterwards."""
    target = writer.all_input_nodes[0]
    now = order[writer]
    for node in nodes[:now]:
        apart = same[node] is not same[target] and not memory[node].isdisjoint(memory[target])
        if apart and any(order[user] > now for user in node.users):
            return node
    return None


def _makes(node: fx.Node, modules: Modules) -> bool:
    """Return whether the result of `node` is known to be a tensor of its own, not a view of its input."""
    module = module_of(node, modules)
    if is_question(node) or isinstance(module, (Form, nn.Linear, _ConvNd, _NormBase)):
        return True
    if module is not None:
        name = key(type(module).__name__) if type(module).__module__.startswith("torch.nn.") else ""
    else:
        name = key(called_name(node)) if node.op in ("call_function", "call_method") else ""
    listed = name in ELEMENTWISE or name in REDUCING or name in _MAKING or POOLING.match(name)
    return bool(listed) and name not in _RETURNING
