"""What the operations between layers do to channels, as functions on arrays of channel numbers.

An operation is known by its name without underscores, whether it is a function (`F.max_pool2d`), a method (`x.relu_`)
or a module (`nn.MaxPool2d`). One that is not listed here is not followed.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from compedu.graph.coupling import Coupling, Unfollowed, essence, varies

# Each element of the result is computed from the elements at the same place of the arguments.
ELEMENTWISE = frozenset("""
    abs add alphadropout celu clamp clampmax clampmin clip clone contiguous cos detach div divide dropout dropout1d
    dropout2d dropout3d elu eq erf exp expm1 featurealphadropout float floordivide ge gelu gt half hardshrink
    hardsigmoid hardswish hardtanh iadd identity imul isub itruediv le leakyrelu log log1p logsigmoid lt maskedfill
    maximum minimum mish mul multiply ne neg negative pos pow prelu reciprocal relu relu6 round rrelu rsqrt rsub selu
    sigmoid sign silu sin softplus softshrink softsign sqrt square stochasticdepth sub subtract tanh tanhshrink
    threshold to truediv truedivide type typeas where
""".split())  # fmt: skip
MOVING = frozenset("""
    cat concat concatenate expand flatten movedim moveaxis narrow permute reshape select squeeze stack swapaxes swapdims
    t transpose unbind unsqueeze view getitem split chunk
""".split())  # fmt: skip
REDUCING = frozenset({"amax", "amin", "mean", "sum"})
# Queries of shapes and the like, which are the same for the array of channel numbers.
ASKING = frozenset({"device", "dim", "dtype", "ndim", "ndimension", "numel", "shape", "size"})
CONSTANT = frozenset(
    "emptylike fulllike newempty newfull newones newzeros oneslike randlike randnlike zeroslike".split()
)
POOLING = re.compile(r"(?:adaptive)?(?:avg|max|lp)pool([123])d$")
_RESIZING = {"interpolate", "upsample"}
_PADDING = re.compile(r"(?:zero|constant|reflection|replication|circular)?pad(?:[123]d)?$")
_TAKING = {"getitem", "narrow", "select", "split", "unbind"}
_SIZED = {"expand", "reshape", "view"}


@dataclass(frozen=True)
class Call:
    """One operation in a graph: `run(*arguments, **options)`, and the arguments as `written` in the graph."""

    run: Callable
    arguments: tuple
    options: dict[str, Any]
    written: tuple

    @property
    def tensors(self) -> list[Tensor]:
        """All ids among the arguments."""
        return [leaf for leaf in pytree.tree_leaves((self.arguments, self.options)) if isinstance(leaf, Tensor)]

    def argument(self, place: int, name: str, default: Any) -> Any:
        """Return the argument at `place` or called `name`."""
        return self.arguments[place] if len(self.arguments) > place else self.options.get(name, default)


def key(name: str) -> str:
    """Return the name under which an operation is listed here."""
    return name.replace("_", "").lower()


def follow(coupling: Coupling, name: str, call: Call, shape: Sequence[int] | None) -> Any:
    """Return the ids after the operation of key `name`, whose result has `shape` if it is one tensor.

    Raises `Unfollowed` for an unknown operation, and any other error for an unusual call.
    """
    tensors = call.tensors
    first = tensors[0]
    if moves(name, call):
        return move(coupling, name, call)
    if shape is not None:
        if name in CONSTANT:
            return torch.full(tuple(shape), coupling.fix("a constant tensor"))
        if name in ELEMENTWISE:
            return join(coupling, tensors)
        if name in REDUCING:
            return reduce(first, call.argument(1, "dim", None), shape)
        if pooling := POOLING.match(name):
            return pool(first, range(first.dim() - int(pooling[1]), first.dim()), shape)
        if name in _RESIZING:
            return pool(first, range(2, first.dim()), shape)
        if _PADDING.match(name):
            return pool(first, [dim for dim, size in enumerate(shape) if size != first.size(dim)], shape)
    raise Unfollowed("whose effect on channels is not known")


def moves(name: str, call: Call) -> bool:
    """Return whether the operation of key `name` only moves elements; an index or a size may not be a tensor."""
    return name in MOVING and (len(call.tensors) == 1 or call.tensors[0] is not call.arguments[0])


def moved(name: str, call: Call) -> Any:
    """Return the ids after an operation that `moves` them as it moves the values."""
    # Arrays of ids are often expanded, so that a view of the values may not be one of the ids.
    return (Tensor.reshape if name == "view" else call.run)(*call.arguments, **call.options)


def pool(ids: Tensor, dims: Iterable[int], shape: Sequence[int]) -> Tensor:
    """Return the ids after pooling or padding over `dims`, which results in `shape`."""
    for dim in dims:
        if varies(ids, dim):
            raise Unfollowed("which reaches over several of them")
        ids = ids.narrow(dim, 0, 1)
    return ids.expand(shape)


def reduce(ids: Tensor, dims: int | Sequence[int] | None, shape: Sequence[int]) -> Tensor:
    """Return the ids after a mean or sum over `dims` (None: over all), which results in `shape`."""
    dims = range(ids.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    wanted = [dim % ids.dim() for dim in dims]
    if any(varies(ids, dim) for dim in wanted):
        raise Unfollowed("which mixes them")
    for dim in wanted:
        ids = ids.narrow(dim, 0, 1)
    return ids.reshape(shape)


def join(coupling: Coupling, tensors: Sequence[Tensor]) -> Tensor:
    """Return the ids after an element-wise operation on `tensors`."""
    result = tensors[0]
    for ids in tensors[1:]:
        result = coupling.join(result, ids)
    return result


def move(coupling: Coupling, name: str, call: Call) -> Any:
    """Return the ids after an operation of MOVING: they move as the values do.

    A number written in the graph stays the same in every smaller network. Dimensions of such a size are held: each of
    their slices must lose the same channels.
    """
    made = moved(name, call)
    if name in ("cat", "concat", "concatenate"):
        return _joined(coupling, made, call.argument(1, "dim", 0))
    if name == "stack":
        return coupling.hold(made, call.argument(1, "dim", 0))
    if name in _SIZED:
        return _sized(coupling, made, () if call.options else call.written[1:])
    if name == "chunk" or (
        name == "split" and isinstance(call.written[1], fx.Node)
    ):  # by a size computed from the shape
        return _pieces(coupling, call.arguments[0], made)
    if name in _TAKING:
        _refuse_loss(call.arguments[0], made)
    return made


def _joined(coupling: Coupling, made: Tensor, dim: int) -> Tensor:
    # Parts that are concatenated in space have the same channels.
    aside = any(varies(made, other) for other in range(made.dim()) if other != dim % made.dim())
    return coupling.hold(made, dim) if aside else made


def _sized(coupling: Coupling, made: Tensor, sizes: tuple) -> Tensor:
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = tuple(sizes[0])
    if len(sizes) != made.dim():  # the shape of another tensor, or a keyword
        raise Unfollowed("which gives them a shape that is not known")
    number = [isinstance(size, int) and size != -1 for size in sizes]
    changing = [dim for dim in range(made.dim()) if varies(made, dim)]
    free = [dim for dim in changing if not number[dim]]
    if changing and not free:
        raise Unfollowed(f"which counts on {' x '.join(str(made.size(dim)) for dim in changing)} of them")
    if len(free) > 1:
        raise Unfollowed("which lays them out in several dimensions")
    for dim in changing:
        if number[dim]:
            made = coupling.hold(made, dim)
    return made


def _pieces(coupling: Coupling, whole: Tensor, pieces: Sequence[Tensor]) -> tuple[Tensor, ...]:
    dims = [dim for dim in range(whole.dim()) if pieces[0].size(dim) != whole.size(dim)]
    if not dims or not varies(whole, dims[0]):
        return tuple(pieces)
    if len({piece.shape for piece in pieces}) > 1:
        raise Unfollowed("which cuts them into unequal pieces")
    common = pieces[0]
    for piece in pieces[1:]:
        common = coupling.join(common, piece)
    return (common,) * len(pieces)


def _refuse_loss(whole: Tensor, made: Any) -> None:
    """Refuse to take some of the channels by their places, at which a smaller network has others."""
    everything = set(essence(whole).unique().tolist())
    for part in pytree.tree_leaves(made):
        if isinstance(part, Tensor) and set(essence(part).unique().tolist()) != everything:
            raise Unfollowed("which takes some of them by their places")
