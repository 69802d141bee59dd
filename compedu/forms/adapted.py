"""Low-rank adapters: a layer that is frozen, and beside it a small trained change of its weight."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms.declared import Declared, need, only
from compedu.forms.factored import (
    around_places,
    bias_of,
    composed,
    full_weight,
    in_sequence,
    linear_pair,
    pointwise,
)
from compedu.forms.facts import free_numbers_of
from compedu.forms.form import Form, Geometry, weight_of
from compedu.forms.parts import Part

PARTS = ("base", "down", "up")


class Adapted(Form):
    """A `base` that no training moves, plus alpha / rank times the product of the trained `down` and `up`.

    The base is an ordinary layer or a form and holds the bias; `down` reduces the inputs to `rank` channels with the
    kernel window of the layer, `up` expands these to the outputs, 1 x 1; neither has a bias. The weight is that of the
    base plus the scaled product (Hu et al. 2021, section 4.1, arXiv:2106.09685). Inputs are rounded by the form's own
    `act` alone. The parts are not in sequence, so they are not `factors`, and no further method takes them apart.
    """

    base: nn.Module
    down: nn.Module
    up: nn.Module

    def __init__(self, geometry: Geometry, base: nn.Module, down: nn.Module, up: nn.Module, alpha: float):
        super().__init__(geometry, None)
        if isinstance(base, Form) and (base.scales_output or not isinstance(base.act, nn.Identity)):
            raise CompressionError(
                f"the base of adapters must be a dense weight; this {type(base).__name__} scales its outputs or rounds "
                "its inputs: give the rounding to `act` of the whole layer instead"
            )
        try:
            made = [(Geometry.of(part), bias_of(part) is not None) for part in (base, down, up)]
            self.check_layers(geometry, made)
        except ValueError as error:
            raise CompressionError(f"these parts do not stand for one layer of {geometry}: {error}") from error
        self.alpha = alpha
        for name, part in zip(PARTS, (base, down, up), strict=True):
            self.add_module(name, part)
        self.base.requires_grad_(False)

    def train(self, mode: bool = True) -> "Adapted":
        """Switch the mode, and freeze the base, also one that a file has just put in its place.

        Every training, method and load of a file switches the mode first.
        """
        self.base.requires_grad_(False)
        return super().train(mode)

    @property
    def rank(self) -> int:
        """The number of channels between `down` and `up`: the rank of the change, not of the weight."""
        return Geometry.of(self.down).shape[0]

    def dense(self) -> Tensor:
        """Return the weight of the base plus alpha / rank times the product."""
        change = in_sequence(full_weight(self.down), full_weight(self.up))
        return weight_of(self.base) + self.alpha / self.rank * change

    def dense_bias(self) -> Tensor | None:
        """Return the bias of the base."""
        return bias_of(self.base)

    @property
    def bias(self) -> Tensor | None:
        """The bias of the base."""
        return self.dense_bias()

    def forward(self, input: Tensor) -> Tensor:
        """Run the base, and beside it `down` and `up`, and add both."""
        x = self.act(input)
        low = Geometry.of(self.down).apply(x, weight_of(self.down), None)
        change = Geometry.of(self.up).apply(low, weight_of(self.up), None)
        return self.geometry.apply(x, weight_of(self.base), self.dense_bias()) + self.alpha / self.rank * change

    def stored_weight(self) -> dict[str, Part]:
        """Return nothing: a file stores the parts as the layers that they are."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return alpha."""
        return {"alpha": self.alpha}

    def free_numbers(self) -> int:
        """Return the numbers of the base, codes included, and of both adapters."""
        return sum(free_numbers_of(part) for part in (self.base, self.down, self.up))

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Adapted":
        """Rebuild the layer around empty places that the file's entries for its parts fill."""
        form = around_places(cls, geometry, PARTS)
        form.alpha = settings["alpha"]
        return form

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: Mapping[str, Declared]) -> None:
        """Raise `ValueError` unless a file declares alpha and nothing else."""
        only(settings, "alpha")
        only(parts)
        alpha = settings.get("alpha")
        allowed = "allowed are finite floats above 0"
        need(type(alpha) is float and 0 < alpha < float("inf"), f"an alpha of {alpha!r}; {allowed}")

    @classmethod
    def declared_layers(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the parts."""
        return PARTS

    @classmethod
    def check_layers(cls, geometry: Geometry, layers: Sequence[tuple[Geometry, bool]]) -> None:
        """Raise `ValueError` unless base, down and up, each a geometry and whether it has a bias, fit `geometry`."""
        need(geometry.groups == 1, "adapters need an ungrouped layer")
        (base, _), (down, early), (up, late) = layers
        need(base == geometry, f"the base is {base}")
        made = composed(down, up)
        need(made == geometry, f"down and up in sequence are {made}")
        need(not early and not late, "down or up has a bias")

    def macs(self, positions: int) -> int:
        """Return the multiply-accumulates of base, down and up."""
        return positions * sum(weight_of(part).numel() for part in (self.base, self.down, self.up))

    def extra_repr(self) -> str:
        """Show shape, rank and alpha in the printed model."""
        return f"{super().extra_repr()}, rank={self.rank}, alpha={self.alpha}"


def adapter_pair(geometry: Geometry, rank: int) -> tuple[Geometry, Geometry]:
    """Return the geometries of `down` and `up` for a layer of `geometry`."""
    if geometry.kind == "linear":
        return linear_pair(geometry, rank)
    out, *read = geometry.shape
    return replace(geometry, shape=(rank, *read)), pointwise(out, rank)
