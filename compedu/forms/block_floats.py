"""Weights in number formats of a few bits: the value of a code times the scale of the block of weights around it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compedu.forms import declared
from compedu.forms.form import Geometry, precise
from compedu.forms.masked import mask_from, positions
from compedu.forms.number_formats import FORMATS, NumberFormat
from compedu.forms.parts import Codes, Part
from compedu.forms.rounded import Rounded, blocks_shape, over_blocks
from compedu.knobs import LARGEST


class BlockFloats(Rounded):
    """A dense layer with weight scale * value, the value one of a number format's, the scale that of a block.

    The weights of an output, (in * kernel height * kernel width) numbers, are cut into blocks of `block`; the last one
    may be shorter. `scale` is float32 of shape (out, blocks). `format` names one of `FORMATS`. Weights outside an
    optional `mask` are exactly zero. `latent` holds the latent weights that fine-tuning moves; the scales stay.
    """

    def __init__(
        self,
        geometry: Geometry,
        weight: Tensor,
        scale: Tensor,
        format: str,
        block: int,
        bias: Tensor | None,
        mask: Tensor | None = None,
    ):
        super().__init__(geometry, weight, scale, bias, mask)
        self.format = format
        self.block = block

    @property
    def number_format(self) -> NumberFormat:
        """The number format."""
        return FORMATS[self.format]

    def in_units(self) -> Tensor:
        """Return the latent weights divided by their scales, in single precision or better: half would round them."""
        return precise(self.latent.detach()) / self.weight_scales()

    def codes(self) -> Tensor:
        """Return the code of each weight, int16, of the weight's shape: its place among the values of the format."""
        codes = self.number_format.nearest(self.in_units())
        return torch.where(self.mask, codes, self.number_format.zero).to(torch.int16)

    def dense(self) -> Tensor:
        """Return scale * value; gradients reach the latent weights by the straight-through estimator."""
        rounded = RoundToValues.apply(precise(self.latent), self.weight_scales(), self.number_format)
        return (rounded * self.mask).to(self.latent.dtype)

    def weight_scales(self) -> Tensor:
        """Return the scale of each weight, of the weight's shape."""
        return over_blocks(self.scale, self.geometry.shape, self.block)

    def stored_weight(self) -> dict[str, Part]:
        """Return the codes of the kept weights, their positions unless all are kept, and the scales."""
        codes = Codes(self.codes()[self.mask], self.number_format.bits, signed=False)
        return {"codes": codes} | positions(self.mask) | {"scale": self.number_format.scale.part(self.scale)}

    def settings(self) -> dict[str, Any]:
        """Return format and block, and the type of the decoded weights where it is not float32."""
        return {"format": self.format, "block": self.block} | declared.type_setting(self.latent.dtype)

    @property
    def levels(self) -> int:
        """How many values a code has."""
        return len(self.number_format.values)

    @property
    def level_values(self) -> Tensor:
        """The values of the format."""
        return self.number_format.table(self.scale.dtype)

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check format and block, the codes of the kept weights, their positions and their scales."""
        declared.only(settings, "format", "block", "dtype")
        declared.only(parts, "codes", "positions", "scale", "bias")
        name = settings.get("format", "")
        declared.need(isinstance(name, str) and name in FORMATS, f"weights in the format {name!r}")
        block = settings.get("block", 0)
        declared.need(type(block) is int and 1 <= block <= LARGEST, f"blocks of {block!r} weights")
        dtype = declared.declared_type(settings)
        numbers = FORMATS[name]
        declared.kept(geometry.shape, parts, "codes", declared.codes(parts, "codes", numbers.bits, signed=False))
        numbers.scale.check(parts, "scale", blocks_shape(geometry.shape, block))
        return declared.bias(parts, "bias", geometry.shape[0], dtype)

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "BlockFloats":
        """Rebuild the layer; the latent weights are the rounded ones.

        Raises `ValueError` for a code without a value, a scale that is none, and a weight beyond its type.
        """
        numbers = FORMATS[settings["format"]]
        block = settings["block"]
        dtype = declared.declared_type(settings)
        codes = parts["codes"].long()
        last = len(numbers.values) - 1
        declared.need(not bool((codes > last).any()), f"a code above {last}, the last of {numbers.name}")
        scale = numbers.scale.read(parts["scale"])
        mask = mask_from(parts, geometry.shape)
        values = torch.zeros(geometry.shape, dtype=torch.promote_types(dtype, torch.float32))
        values[mask] = numbers.table(values.dtype)[codes]
        weight = (values * over_blocks(scale, geometry.shape, block)).to(dtype)
        declared.need(bool(weight.isfinite().all()), f"a weight too large for {dtype}")
        return cls(geometry, weight, scale, numbers.name, block, parts.get("bias"), mask)

    def extra_repr(self) -> str:
        """Show shape, format and block in the printed model."""
        return f"{super().extra_repr()}, {self.format}, block={self.block}"


class RoundToValues(torch.autograd.Function):
    """Round each weight to the nearest value of a format times its scale; the gradient passes where none is clipped.

    The straight-through estimator of Bengio, Leonard and Courville (2013, arXiv:1308.3432) with clipping, as on a
    uniform grid. What is no number stays none.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, scale: Tensor, numbers: NumberFormat) -> Tensor:
        units = weight / scale
        ctx.save_for_backward(numbers.in_range(units))
        values = numbers.table(units.dtype)[numbers.nearest(units)]
        return torch.where(units.isnan(), units, values) * scale

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (inside,) = ctx.saved_tensors
        (gradient,) = grad_outputs
        return gradient * inside, None, None
