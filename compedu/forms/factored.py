"""Factored layers: ordinary layers in sequence that stand for one dense layer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms.declared import Declared, need, only
from compedu.forms.form import Form, Geometry, weight_of
from compedu.forms.parts import Part
from compedu.forms.reordered import Reordered

AnyForm = TypeVar("AnyForm", bound=Form)

NAMES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
DEFAULT_COUNT = 2  # factors; a file holds their number only where it is another


class Factored(Form):
    """Layers in sequence, called `first`, `second` and so on, whose product is the dense weight.

    Two linear layers of rank r (Denton et al. 2014, arXiv:1404.0736), a vertical and a horizontal convolution (Tai et
    al. 2016, section 3, arXiv:1511.06067), three of a Tucker or four of a CP decomposition: any chain that `composed`
    accepts. Each is an ordinary layer that further methods may compress, but for a `Reordered` one, which only moves
    channels; no bias comes before padding.
    Where a later factor rounds its inputs, they are no longer one dense layer: `dense()` leaves that rounding out, and
    each of them equals its own dense layer.
    """

    def __init__(self, geometry: Geometry, *factors: nn.Module):
        super().__init__(geometry, None)
        names = names_of(len(factors))
        check_chain(geometry, factors)
        for name, factor in zip(names, factors, strict=True):
            self.add_module(name, factor)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The names of the layers in sequence."""
        return tuple(name for name in NAMES if name in self._modules)

    @property
    def factors(self) -> tuple[nn.Module, ...]:
        """The layers in sequence."""
        return tuple(self._modules[name] for name in self.factor_names)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The number of channels between each layer that has weights and the next one."""
        weighted = [factor for factor in self.factors if not isinstance(factor, Reordered)]
        return tuple(Geometry.of(factor).shape[0] for factor in weighted[:-1])

    @property
    def rank(self) -> int:
        """The smallest of `ranks`; without any, the smaller side of the dense weight."""
        return min(self.ranks, default=min(self.geometry.shape[:2]))

    def dense(self) -> Tensor:
        """Return the weight of the one dense layer that the factors stand for."""
        return reduce(in_sequence, map(full_weight, self.factors))

    def dense_bias(self) -> Tensor | None:
        """Return the bias of the last layer plus what the earlier biases add to the output; None if there is none."""
        return reduce(_with_bias, self.factors, None)

    @property
    def bias(self) -> Tensor | None:
        """The bias of the dense layer."""
        return self.dense_bias()

    def forward(self, input: Tensor) -> Tensor:
        """Run the layers one after the other."""
        return reduce(lambda x, factor: factor(x), self.factors, self.act(input))

    def stored_weight(self) -> dict[str, Part]:
        """Return nothing: a file stores the factors as the layers that they are."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return the number of factors, unless it is two."""
        count = len(self.factors)
        return {} if count == DEFAULT_COUNT else {"factors": count}

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Factored":
        """Rebuild the layer around empty places that the file's entries for its factors fill."""
        return around_places(cls, geometry, cls.declared_layers(settings))

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: Mapping[str, Declared]) -> None:
        """Raise `ValueError` unless a file declares a number of factors and nothing else."""
        only(settings, "factors")
        only(parts)
        need(geometry.groups == 1, "a factorization needs an ungrouped layer")

    @classmethod
    def declared_layers(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the factors that `settings` from a file declare."""
        return names_of(settings.get("factors", DEFAULT_COUNT))

    @classmethod
    def check_layers(cls, geometry: Geometry, layers: Sequence[tuple[Geometry, bool]]) -> None:
        """Raise `ValueError` unless the factors in sequence equal one layer of `geometry`."""
        need_chain(geometry, layers)

    def macs(self, positions: int) -> int:
        """Return the multiply-accumulates of all layers, at equal numbers of positions."""
        return sum(
            factor.macs(positions) if isinstance(factor, Form) else positions * weight_of(factor).numel()
            for factor in self.factors
        )


def around_places(kind: type[AnyForm], geometry: Geometry, names: Iterable[str]) -> AnyForm:
    """Return a form of a `kind` whose layers are still empty places of these `names`, as a file is read."""
    form = kind.__new__(kind)
    Form.__init__(form, geometry, None)
    for name in names:
        form.add_module(name, nn.Identity())
    return form


def names_of(count: Any) -> tuple[str, ...]:
    """Return the names of `count` factors; raise `ValueError` for a number that no form has."""
    need(type(count) is int and 2 <= count <= len(NAMES), f"{count!r} factors; allowed are 2 to {len(NAMES)}")
    return NAMES[:count]


def check_chain(geometry: Geometry, factors: Sequence[nn.Module]) -> None:
    """Raise `CompressionError` unless `factors` in sequence can stand for one layer of `geometry`."""
    scaled = [type(factor).__name__ for factor in factors if isinstance(factor, Form) and factor.scales_output]
    if scaled:
        raise CompressionError(f"factors need dense weights; {', '.join(scaled)} scale their outputs as well")
    try:
        need_chain(geometry, [(Geometry.of(factor), bias_of(factor) is not None) for factor in factors])
    except ValueError as error:
        raise CompressionError(f"these factors do not stand for one layer of {geometry}: {error}") from error


def need_chain(geometry: Geometry, factors: Sequence[tuple[Geometry, bool]]) -> None:
    """Raise `ValueError` unless layers in sequence, each a geometry and whether it has a bias, equal one of `geometry`.

    A bias before padding would reach the output everywhere but at the border, which no dense layer does.
    """
    made = composed(*(factor for factor, _ in factors))
    need(made == geometry, f"in sequence they are {made}")
    padded = [index for index, (factor, _) in enumerate(factors) if factor.padding != (0, 0)]
    in_front = factors[: max(padded, default=0)]
    early = [name for name, (_, biased) in zip(names_of(len(factors)), in_front, strict=False) if biased]
    need(not early, f"{', '.join(early)} has a bias before padding")


def composed(*factors: Geometry) -> Geometry:
    """Return the geometry of one layer that computes what layers of these geometries do in sequence, without bias.

    Along each axis of an image at most one of them may have more than kernel size 1, stride 1 and no padding: zeros
    between two layers are not those around the image. Raises `ValueError` for any other chain.
    """
    first = factors[0]
    last = factors[-1]
    need(all(factor.kind == first.kind for factor in factors), "they are not of one kind")
    for before, after in pairwise(factors):
        inside = after.shape[1] * after.groups
        need(before.shape[0] == inside, f"{before.shape[0]} channels meet a layer that takes {inside}")
    shape = (last.shape[0], first.shape[1] * first.groups)
    if first.kind == "linear":
        return Geometry("linear", shape)
    axes = [_along(axis, factors) for axis in (0, 1)]
    window, stride, padding, dilation = zip(*axes, strict=True)
    return Geometry("conv2d", shape + window, stride, padding, dilation)


def _along(axis: int, factors: tuple[Geometry, ...]) -> tuple[int, int, int, int]:
    """Return what a chain of convolutions does along one axis: kernel size, stride, padding and dilation."""
    alone = (1, 1, 0, 1)
    each = [(g.shape[2 + axis], g.stride[axis], g.padding[axis], g.dilation[axis]) for g in factors]
    wide = [one for one in each if one != alone]
    need(len(wide) <= 1, f"more than one of them is wide, strided, padded or dilated along axis {axis}")
    return wide[0] if wide else alone


def most_channels(geometry: Geometry) -> int:
    """Return how many channels factors of a layer of `geometry` may have: no more than any factorization needs.

    A bank of filters for each input has as many for each as suffice for every filter.
    """
    out, inside, *window = geometry.shape
    return max(full_rank(geometry.shape), inside * full_rank((out, *window)), out, inside)


def full_rank(sizes: Sequence[int]) -> int:
    """Return a rank that suffices for every tensor of these `sizes`: one term for each entry of all axes but one.

    >>> full_rank((50, 20, 5, 5))
    500
    """
    return math.prod(sizes) // max(sizes)


def linear_pair(geometry: Geometry, rank: int) -> tuple[Geometry, Geometry]:
    """Return the geometries of two linear layers in sequence that stand for one of `geometry`."""
    out, inside = geometry.shape
    return Geometry("linear", (rank, inside)), Geometry("linear", (out, rank))


def vertical_horizontal_pair(geometry: Geometry, rank: int) -> tuple[Geometry, Geometry]:
    """Return the geometries of a vertical and a horizontal convolution that stand for one of `geometry`."""
    out, inside = geometry.shape[:2]
    return along_axis(geometry, 0, (rank, inside)), along_axis(geometry, 1, (out, rank))


def along_axis(geometry: Geometry, axis: int, channels: tuple[int, int], groups: int = 1) -> Geometry:
    """Return the part of a convolution along one axis, 0 vertical or 1 horizontal: kernel, stride, padding, dilation.

    `channels` are the first two numbers of its shape, (out, in / groups).
    """
    return Geometry(
        "conv2d",
        channels + _at(axis, geometry.shape[2:], 1),
        _at(axis, geometry.stride, 1),
        _at(axis, geometry.padding, 0),
        _at(axis, geometry.dilation, 1),
        groups,
    )


def _at(axis: int, pair: tuple[int, ...], elsewhere: int) -> tuple[int, int]:
    """Return the number of `pair` that belongs to `axis`, in its place beside one that stands for nothing."""
    return (pair[0], elsewhere) if axis == 0 else (elsewhere, pair[1])


def pointwise(out: int, inside: int) -> Geometry:
    """Return the geometry of a 1x1 convolution."""
    return Geometry("conv2d", (out, inside, 1, 1))


def full_weight(layer: nn.Module) -> Tensor:
    """Return the dense weight of a layer or form without groups: zeros between channels of different groups."""
    weight = weight_of(layer)
    groups = Geometry.of(layer).groups
    if groups == 1:
        return weight
    out, inside, *window = weight.shape
    blocks = weight.reshape(groups, out // groups, inside, *window)
    diagonal = torch.eye(groups, dtype=weight.dtype, device=weight.device)
    spread = torch.einsum("gh,goi...->gohi...", diagonal, blocks)
    return spread.reshape(out, groups * inside, *window)


def in_sequence(first: Tensor, second: Tensor) -> Tensor:
    """Return the weight of two layers in sequence, `first` then `second`; each axis is wide in one alone.

    The product of two matrices, or for convolutions the sum over r of second[n, r, i, j] * first[r, c, k, l].
    """
    if first.ndim == 2:
        return second @ first
    out, _, *late = second.shape
    _, inside, *early = first.shape
    # Of i and k one is always 0, and so of j and l: their pairs are the positions of the whole kernel.
    weight = torch.einsum("nrij,rckl->ncikjl", second, first)
    return weight.reshape(out, inside, late[0] * early[0], late[1] * early[1])


def bias_of(layer: nn.Module) -> Tensor | None:
    """Return the bias of an ordinary layer, or that of the dense layer of a form; None if there is none."""
    return layer.dense_bias() if isinstance(layer, Form) else cast("Tensor | None", layer.bias)


def _with_bias(before: Tensor | None, layer: nn.Module) -> Tensor | None:
    """Return the bias after `layer` where the bias before it is `before`; None stands for none."""
    own = bias_of(layer)
    if before is None:
        return own
    weight = full_weight(layer)
    # A constant input meets every kernel position, so that it is multiplied by their sum.
    passed = weight.reshape(*weight.shape[:2], -1).sum(2)
    return passed @ before if own is None else passed @ before + own
