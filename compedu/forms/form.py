"""The base of all compressed layers, and the shape of the dense layer each of them stands for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms.parts import Floats, Part


@dataclass(frozen=True)
class Geometry:
    """Kind and shape of a dense layer: `shape` is (out, in) or (out, in / groups, kernel height, kernel width)."""

    kind: str
    shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, layer: nn.Module) -> "Geometry":
        """Return the geometry of an `nn.Linear`, an `nn.Conv2d` or a form; raise `Skip` for layers with none."""
        if isinstance(layer, Form):
            return layer.geometry
        if isinstance(layer, nn.Linear):
            return cls("linear", tuple(layer.weight.shape))
        if not isinstance(layer, nn.Conv2d):
            raise Skip(f"{type(layer).__name__} is neither a linear nor a convolutional layer")
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise Skip(f"its padding ({layer.padding!r}, {layer.padding_mode}) is not a number of zeros")
        return cls("conv2d", tuple(layer.weight.shape), layer.stride, layer.padding, layer.dilation, layer.groups)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Run the dense layer with `weight` of `shape` on `x`: (N, in) or (N, in, height, width)."""
        if self.kind == "linear":
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """Return the ordinary torch layer of this geometry that holds `weight` and `bias` (both are cloned).

        The clones are contiguous: a transposed or sliced weight gives other last bits, and no file keeps strides.
        """
        out, inside = max(self.shape[0], self.groups), max(self.shape[1], 1)  # torch makes no layer without channels
        options = {"bias": bias is not None, "dtype": weight.dtype}
        if self.kind == "linear":
            made = nn.utils.skip_init(nn.Linear, inside, out, **options)
        else:
            made = nn.utils.skip_init(
                nn.Conv2d,
                inside * self.groups,
                out,
                self.shape[2:],
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
                **options,
            )
        vars(made).update(self.attributes)
        made.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
        made.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        return made

    @property
    def attributes(self) -> dict[str, Any]:
        """What networks ask of torch's own layer of this geometry, by name."""
        out, inside, *window = self.shape
        if self.kind == "linear":
            return {"in_features": inside, "out_features": out}
        return {
            "in_channels": inside * self.groups,
            "out_channels": out,
            "kernel_size": tuple(window),
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": "zeros",
            "transposed": False,
            "output_padding": (0, 0),
        }

    @property
    def per_output(self) -> tuple[int, ...]:
        """The shape (out, 1, ...) of one number per output channel, to broadcast against the kernel."""
        return (self.shape[0],) + (1,) * (len(self.shape) - 1)


class Form(nn.Module, ABC):
    """A compressed layer: `forward(x)` equals the dense layer with kernel `dense()` applied to `act(x)`.

    `geometry` is that of the dense layer, whose attributes (`in_features`, `kernel_size`, ...) it has too, `act` an
    identity or an activation quantizer. `weight` is the dense kernel in every form: torch's own fast paths, and
    networks that read a layer's weight, get what the layer means.
    """

    def __init__(self, geometry: Geometry, bias: Tensor | None):
        super().__init__()
        self.geometry = geometry
        self.act: nn.Module = nn.Identity()
        self.carried: tuple[str, ...] = ()  # attributes that the user kept at the layer in whose place it stands
        vars(self).update(geometry.attributes)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the dense kernel that this layer means, of shape `geometry.shape`."""

    @property
    def weight(self) -> Tensor:
        """The dense kernel, as `dense()` makes it."""
        return self.dense()

    def dense_bias(self) -> Tensor | None:
        """Return the bias that goes with `dense()`, or None."""
        return self.bias

    def dense_layer(self) -> nn.Module:
        """Return the ordinary layer that this one stands for, with tensors of its own."""
        return self.geometry.layer(self.dense(), self.dense_bias())

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer on `input`, which torch calls so too: (N, in) or (N, in, height, width)."""
        return self.geometry.apply(self.act(input), self.dense(), self.bias)

    def stored(self) -> dict[str, Part]:
        """Return all that a file must hold to rebuild this layer bit by bit."""
        parts, bias = self.stored_kernel(), self._parameters["bias"]
        if bias is not None:
            parts["bias"] = Floats(bias.detach(), "bias")
        return parts

    @abstractmethod
    def stored_kernel(self) -> dict[str, Part]:
        """Return what a file must hold of the kernel alone."""

    def settings(self) -> dict[str, Any]:
        """Return the small values beside the parts that are needed to rebuild this layer."""
        return {}

    @classmethod
    @abstractmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Form":
        """Rebuild the layer from what `settings` and `stored` gave."""

    def macs(self, positions: int) -> int:
        """Return the multiply-accumulates that this layer needs for `positions` output positions as it runs itself."""
        return positions * self.dense().numel()

    def extra_repr(self) -> str:
        """Show the shape of the dense layer in the printed model."""
        return f"{self.geometry.kind} {tuple(self.geometry.shape)}"


class LatentForm(Form):
    """A form with a parameter of the kernel's shape that is not yet the kernel: training moves it, `dense()` reads it.

    In a state dict it is called `weight` as in the dense layer; its name here is `latent`.
    """

    def __init__(self, geometry: Geometry, latent: Tensor, bias: Tensor | None):
        super().__init__(geometry, bias)
        self._parameters["weight"] = nn.Parameter(latent)

    @property
    def latent(self) -> nn.Parameter:
        """The parameter behind the kernel."""
        return self._parameters["weight"]


def precise(tensor: Tensor) -> Tensor:
    """Return `tensor` in single precision or better: squares and sums of half-precision numbers vanish or overflow."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def trained_weight(layer: nn.Module) -> nn.Parameter:
    """Return the parameter that trains in an ordinary layer or a form with latent weights."""
    return layer.latent if isinstance(layer, LatentForm) else layer.weight


def kernel_of(layer: nn.Module) -> Tensor:
    """Return the dense kernel of an ordinary layer or of a form."""
    return layer.dense() if isinstance(layer, Form) else layer.weight
