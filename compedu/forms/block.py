"""Blocks: ordinary layers in a fixed arrangement that take the place of one layer, without a dense weight.

A form computes what its dense layer does; a block computes something else, which is trained instead. Its layers are
ordinary ones, which methods find and compress. A file holds a block's class, geometry and settings, and its layers as
it holds any others.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compedu.forms.declared import need, only
from compedu.forms.factored import vertical_horizontal_pair
from compedu.forms.facts import FormFacts, free_numbers_of
from compedu.forms.form import Form, Geometry
from compedu.forms.walk import outside_forms
from compedu.reproducible import seeded

DEEPEST = 8  # further layers that a block of a file may have


class Block(FormFacts, nn.Module, ABC):
    """Ordinary layers that take what a layer of `geometry` takes and give results of the same shape.

    The arrangement follows from class, geometry and `settings` alone; the block itself has no parameters. It has the
    attributes (`out_channels`, ...) of the layer that it replaces.
    """

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.geometry = geometry
        vars(self).update(geometry.attributes)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the numbers and strings, besides the geometry, from which the arrangement of the layers is rebuilt."""

    @classmethod
    @abstractmethod
    def restore(cls, geometry: Geometry, settings: Mapping[str, Any]) -> "Block":
        """Return the block with layers of any weights, which a file fills; channels may have been removed from these.

        Geometry and settings come from a file that anyone may have written: `ValueError` for what is impossible, before
        anything is allocated whose size they decide.
        """

    def free_numbers(self) -> int:
        """Return how many weights the layers of the block have, or free numbers where these are forms."""
        inside = (layer for _, layer in outside_forms(self))
        return sum(free_numbers_of(layer) for layer in inside if isinstance(layer, (Form, nn.Linear, nn.Conv2d)))

    @classmethod
    def drawn(cls, geometry: Geometry, seed: int = 0, **settings: Any) -> "Block":
        """Return the block with torch's default initial weights, drawn from `seed`; random streams stay."""
        with seeded(seed):
            return cls.restore(geometry, settings)

    def extra_repr(self) -> str:
        """Show what the block is made from in the printed model."""
        settings = "".join(f", {name}={value}" for name, value in self.settings().items())
        return f"{self.geometry.kind} {tuple(self.geometry.shape)}{settings}"


class Separable(Block):
    """A depthwise convolution, batch norm and ReLU, then a pointwise one (Howard et al. 2017, arXiv:1704.04861)."""

    def __init__(self, geometry: Geometry):
        need_convolution(geometry)
        super().__init__(geometry)
        out, inside, *window = geometry.shape
        options = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation}
        self.depthwise = nn.Conv2d(inside, inside, tuple(window), groups=inside, bias=False, **options)
        self.norm = nn.BatchNorm2d(inside)
        self.relu = nn.ReLU()
        self.pointwise = nn.Conv2d(inside, out, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Return the block's output (N, out, height, width) for (N, in, height, width)."""
        return self.pointwise(self.relu(self.norm(self.depthwise(input))))

    def settings(self) -> dict[str, Any]:
        """Return nothing: the geometry decides everything."""
        return {}

    @classmethod
    def restore(cls, geometry: Geometry, settings: Mapping[str, Any]) -> "Separable":
        """Return the block with layers of any weights."""
        only(settings)
        return cls(geometry)


class Fire(Block):
    """A pointwise convolution to few channels and ReLU, then a pointwise and a wide one, each for half the outputs.

    `squeeze` is the number of channels between them (Iandola et al. 2016, section 3.2, arXiv:1602.07360).
    """

    def __init__(self, geometry: Geometry, squeeze: int):
        need_convolution(geometry)
        out, inside, *window = geometry.shape
        fits = type(squeeze) is int and 1 <= squeeze <= max(inside, out)
        need(fits, f"{squeeze!r} squeeze channels; allowed are 1 to {max(inside, out)}")
        need(out >= 2, "a single output cannot be split into two halves")
        sides = zip(window, geometry.padding, geometry.dilation, strict=True)
        same = all(2 * padding == dilation * (side - 1) for side, padding, dilation in sides)
        need(same, "a pointwise convolution next to one with this padding gives another size")
        super().__init__(geometry)
        self.squeeze = nn.Conv2d(inside, squeeze, 1)
        self.relu = nn.ReLU()
        self.narrow = nn.Conv2d(squeeze, out // 2, 1, geometry.stride)
        self.wide = nn.Conv2d(
            squeeze, out - out // 2, tuple(window), geometry.stride, geometry.padding, geometry.dilation
        )
        self.channels = squeeze

    def forward(self, input: Tensor) -> Tensor:
        """Return the block's output (N, out, height, width) for (N, in, height, width)."""
        x = self.relu(self.squeeze(input))
        return torch.cat([self.narrow(x), self.wide(x)], dim=1)

    def settings(self) -> dict[str, Any]:
        """Return the number of squeeze channels."""
        return {"squeeze": self.channels}

    @classmethod
    def restore(cls, geometry: Geometry, settings: Mapping[str, Any]) -> "Fire":
        """Return the block with layers of any weights."""
        only(settings, "squeeze")
        return cls(geometry, settings.get("squeeze"))


class NormalizedFactors(Block):
    """Two layers with `rank` channels and batch norm between them, so that deep stacks of them can be trained.

    Two linear ones for inputs (N, in) or tokens (N, T, in), or a vertical and a horizontal convolution (Tai et al.
    2016, section 4, arXiv:1511.06067).
    """

    def __init__(self, geometry: Geometry, rank: int):
        need(geometry.groups == 1, "a factorization needs an ungrouped layer")
        out, inside, *window = geometry.shape
        most = max(geometry.shape[:2]) * max(window, default=1)
        need(type(rank) is int and 1 <= rank <= most, f"rank {rank!r}; allowed are 1 to {most}")
        super().__init__(geometry)
        if geometry.kind == "linear":
            self.first = nn.Linear(inside, rank, bias=False)
            self.norm: nn.Module = nn.BatchNorm1d(rank)
            self.second: nn.Module = nn.Linear(rank, out)
        else:
            vertical, horizontal = vertical_horizontal_pair(geometry, rank)
            self.first = _convolution(vertical, bias=False)
            self.norm = nn.BatchNorm2d(rank)
            self.second = _convolution(horizontal, bias=True)
        self.rank = rank

    @property
    def ranks(self) -> tuple[int, ...]:
        """The number of channels between the two layers."""
        return (self.rank,)

    def forward(self, input: Tensor) -> Tensor:
        """Return the block's output: (N, out) or (N, T, out), or that of a convolution for images."""
        x = self.first(input)
        if self.geometry.kind == "linear":
            # Batch norm takes channels along axis 1, where only inputs without tokens have them already.
            return self.second(self.norm(x.transpose(1, -1)).transpose(1, -1))
        return self.second(self.norm(x))

    def settings(self) -> dict[str, Any]:
        """Return the rank."""
        return {"rank": self.rank}

    @classmethod
    def restore(cls, geometry: Geometry, settings: Mapping[str, Any]) -> "NormalizedFactors":
        """Return the block with layers of any weights."""
        only(settings, "rank")
        return cls(geometry, settings.get("rank"))


class Deepened(Block):
    """A layer, then `depth` times ReLU, with a batch norm before it if `normalized`, and a further layer behind it.

    The further layers have the window, dilation and groups of the first and as many inputs as outputs, so that sizes
    stay (Chen, Goodfellow, Shlens 2016, arXiv:1511.05641). Whatever followed the layer follows the block.
    """

    def __init__(self, geometry: Geometry, normalized: Any, depth: Any):
        need(type(normalized) is bool, f"normalized is {normalized!r}; allowed are True and False")
        need(type(depth) is int and 1 <= depth <= DEEPEST, f"depth {depth!r}; allowed are 1 to {DEEPEST}")
        super().__init__(geometry)
        norm = nn.BatchNorm1d if geometry.kind == "linear" else nn.BatchNorm2d
        self.layer = _ordinary(geometry)
        self.norms = nn.ModuleList(norm(geometry.shape[0]) if normalized else nn.Identity() for _ in range(depth))
        self.relu = nn.ReLU()
        self.further = nn.ModuleList(_ordinary(same_size(geometry)) for _ in range(depth))
        self.normalized = normalized

    def forward(self, input: Tensor) -> Tensor:
        """Return the block's output, of the shape that the layer gives."""
        x = self.layer(input)
        for norm, further in zip(self.norms, self.further, strict=True):
            x = further(self.relu(norm(x)))
        return x

    def settings(self) -> dict[str, Any]:
        """Return whether there are batch norms, and the number of further layers."""
        return {"normalized": self.normalized, "depth": len(self.further)}

    @classmethod
    def restore(cls, geometry: Geometry, settings: Mapping[str, Any]) -> "Deepened":
        """Return the block with layers of any weights."""
        only(settings, "normalized", "depth")
        return cls(geometry, settings.get("normalized"), settings.get("depth"))


BLOCKS: tuple[type[Block], ...] = (Separable, Fire, NormalizedFactors, Deepened)


def same_size(geometry: Geometry) -> Geometry:
    """Return the geometry of a layer from the outputs of one of `geometry` to as many of the same size.

    Raises `ValueError` for an even window, around whose middle no padding is the same on both sides.

    >>> same_size(Geometry("conv2d", (8, 3, 5, 5), stride=(2, 2)))
    Geometry(kind='conv2d', shape=(8, 8, 5, 5), stride=(1, 1), padding=(2, 2), dilation=(1, 1), groups=1)
    """
    out, _, *window = geometry.shape
    if not window:
        return Geometry("linear", (out, out))
    need(all(side % 2 for side in window), f"a window of {' x '.join(map(str, window))} has no middle")
    high, wide = (dilation * (side // 2) for dilation, side in zip(geometry.dilation, window, strict=True))
    shape = (out, out // geometry.groups, *window)
    return Geometry("conv2d", shape, padding=(high, wide), dilation=geometry.dilation, groups=geometry.groups)


def need_convolution(geometry: Geometry) -> None:
    """Raise `ValueError` unless `geometry` is that of an ungrouped convolution."""
    need(geometry.kind == "conv2d" and geometry.groups == 1, "this block takes the place of an ungrouped convolution")


def _ordinary(geometry: Geometry) -> nn.Module:
    out, inside = geometry.shape[:2]
    return nn.Linear(inside, out) if geometry.kind == "linear" else _convolution(geometry, bias=True)


def _convolution(geometry: Geometry, bias: bool) -> nn.Conv2d:
    out, inside, height, width = geometry.shape
    return nn.Conv2d(
        inside * geometry.groups, out, (height, width), geometry.stride, geometry.padding, geometry.dilation,
        geometry.groups, bias,
    )  # fmt: skip
