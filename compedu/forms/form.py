"""The base class of all compressed layers, and the geometry of the dense layer each of them stands for."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.forms.declared import Parts
from compedu.forms.facts import FormFacts
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
            raise Skip(f"its padding ({layer.padding!r}, {layer.padding_mode}) is not a number of zeros, like 1")
        return cls("conv2d", tuple(layer.weight.shape), layer.stride, layer.padding, layer.dilation, layer.groups)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Run the dense layer with `weight` of `shape` on `x`: (N, in) or (N, in, height, width)."""
        if self.kind == "linear":
            return F.linear(x, weight, bias)
        return F.conv2d(
            x, weight, bias, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups
        )

    def layer(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """Return the ordinary torch layer of this geometry that holds `weight` and `bias` (both are cloned).

        The clones are contiguous: a transposed or sliced weight gives other last bits, and files keep no strides.
        """
        # torch refuses to build a layer without channels; the weight assigned below may have none.
        out = max(self.shape[0], self.groups)
        inside = max(self.shape[1], 1)
        options = {"bias": bias is not None, "dtype": weight.dtype}
        if self.kind == "linear":
            made = nn.utils.skip_init(nn.Linear, inside, out, **options)
        else:
            made = nn.utils.skip_init(
                nn.Conv2d,
                inside * self.groups,
                out,
                kernel_size=self.shape[2:],
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                **options,
            )
        vars(made).update(self.attributes)
        made.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
        made.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        return made

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of torch's own layer of this geometry, which networks may read, by name."""
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
        """The shape (out, 1, ...) of one number per output channel, to broadcast against the weight."""
        return (self.shape[0],) + (1,) * (len(self.shape) - 1)

    @property
    def per_channel(self) -> tuple[int, ...]:
        """The shape (-1,) or (-1, 1, 1) of one number per output channel, to broadcast against the output."""
        return (-1,) + (1,) * (len(self.shape) - 2)


class Form(FormFacts, nn.Module, ABC):
    """A compressed layer: `forward(x)` equals the dense layer with weight `dense()` applied to `act(x)`.

    A form may also multiply that result, before the bias, by a factor that depends on its input: `output_scale`.
    `geometry` is that of the dense layer, whose attributes (`in_features`, `kernel_size`, ...) it has too, `act` an
    identity or an activation quantizer. `weight` is the dense weight in every form without an output scale: torch's own
    fast paths, and networks that read a layer's weight, get what the layer computes with.
    """

    def __init__(self, geometry: Geometry, bias: Tensor | None):
        super().__init__()
        self.geometry = geometry
        self.act: nn.Module = nn.Identity()
        self.carried: tuple[str, ...] = ()  # attributes that the user set on the layer that it replaces
        vars(self).update(geometry.attributes)
        # Not by torch's register_parameter, which refuses the name where a form has a property `bias`.
        self._parameters["bias"] = None if bias is None else nn.Parameter(bias.detach().clone())

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the dense weight that this layer stands for, of shape `geometry.shape`."""

    @property
    def weight(self) -> Tensor:
        """The dense weight, as `dense()` returns it; `CompressionError` where an output scale belongs to it."""
        if self.scales_output:
            raise CompressionError(
                f"the weight of {type(self).__name__} is read by itself, but its output scale is part of what the "
                "layer computes; call the layer, or read `dense()` where the weight alone is meant"
            )
        return self.dense()

    def output_scale(self, x: Tensor) -> Tensor:
        """Return the factor that multiplies the result for `x`, the output of `act`; it broadcasts against the output.

        A form that has one overrides this, as XNOR-Net's with its map of local means (Rastegari et al. 2016, section
        3.2, arXiv:1603.05279). Callers check `scales_output` first.
        """
        return x.new_ones(())

    @property
    def scales_output(self) -> bool:
        """Whether this layer is more than a dense one: it has an `output_scale` of its own."""
        return type(self).output_scale is not Form.output_scale

    def dense_bias(self) -> Tensor | None:
        """Return the bias of the dense layer, or None."""
        return self.bias

    def dense_layer(self) -> nn.Module:
        """Return the ordinary layer that this one stands for, with tensors of its own.

        With an output scale no ordinary layer computes the same: it is then a `Decoded` one.
        """
        if self.scales_output:
            decoded = Decoded(self)
            decoded.act = nn.Identity()
            return decoded
        return self.geometry.layer(self.dense(), self.dense_bias())

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer on `input`, named as in torch's layers: (N, in) or (N, in, height, width)."""
        x = self.act(input)
        if not self.scales_output:
            return self.geometry.apply(x, self.dense(), self.dense_bias())
        y = self.geometry.apply(x, self.dense(), None) * self.output_scale(x)
        bias = self.dense_bias()
        return y if bias is None else y + bias.view(self.geometry.per_channel)

    def stored(self) -> dict[str, Part]:
        """Return all that a file must hold to rebuild this layer bit for bit."""
        parts = self.stored_weight()
        bias = self._parameters["bias"]
        if bias is not None:
            parts["bias"] = Floats(bias.detach(), "bias")
        return parts

    @abstractmethod
    def stored_weight(self) -> dict[str, Part]:
        """Return what a file must hold of the weight alone."""

    def settings(self) -> dict[str, Any]:
        """Return the small values that are needed, besides the parts, to rebuild this layer."""
        return {}

    @classmethod
    @abstractmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Form":
        """Rebuild the layer from what `settings` and `stored` returned."""

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: Parts) -> torch.dtype | None:
        """Raise `ValueError` unless a file declares the settings and parts of such a form; return its weight's type.

        Anyone may have written the file, and nothing of it is decoded yet (helpers: `compedu.forms.declared`).
        """
        raise ValueError(f"{cls.__name__} does not say what it stores; give it a `check_declared`")

    @classmethod
    def declared_layers(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the layers inside such a form, which the checked `settings` declare."""
        return ()

    @classmethod
    def check_layers(cls, geometry: Geometry, layers: Sequence[tuple[Geometry, bool]]) -> None:
        """Raise `ValueError` unless the `declared_layers`, each a geometry and whether it has a bias, fit together."""
        if layers:
            raise ValueError(f"{cls.__name__} does not say which layers stand for it; give it a `check_layers`")

    def macs(self, positions: int) -> int:
        """Return the multiply-accumulates of this layer, as it runs itself, for `positions` output positions.

        An output scale multiplies each output once; a form adds what computing the scale takes.
        """
        scaled = self.geometry.shape[0] if self.scales_output else 0
        return positions * (self.dense().numel() + scaled)

    def extra_repr(self) -> str:
        """Show the shape of the dense layer in the printed model."""
        return f"{self.geometry.kind} {tuple(self.geometry.shape)}"


class LatentForm(Form):
    """A form with a parameter of the weight's shape that is not the weight: it is trained, and `dense()` reads it.

    In a state dict it is called `weight` as in the dense layer; here it is `latent`.
    """

    def __init__(self, geometry: Geometry, latent: Tensor, bias: Tensor | None):
        super().__init__(geometry, bias)
        self._parameters["weight"] = nn.Parameter(latent)

    @property
    def latent(self) -> nn.Parameter:
        """The parameter behind the weight."""
        return self._parameters["weight"]


class Unstored(Form):
    """A form that takes a layer's place while a network is examined or deployed; no file ever holds it."""

    def stored_weight(self) -> dict[str, Part]:
        """Raise `CompressionError`."""
        raise CompressionError(f"{type(self).__name__} only stands in for a layer; save the network it was made from")

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Unstored":
        """Raise `CompressionError`."""
        raise CompressionError(f"{cls.__name__} only stands in for a layer; no file holds one")


class StandIn(Unstored):
    """What a form must compute, by the law of all forms: its dense weight on `act(x)`, its output scale, its bias."""

    def __init__(self, form: Form):
        super().__init__(form.geometry, None)
        self.form = form
        self.act = form.act

    @property
    def scales_output(self) -> bool:
        """Whether the form has an output scale."""
        return self.form.scales_output

    def output_scale(self, x: Tensor) -> Tensor:
        """Return the output scale of the form."""
        return self.form.output_scale(x)

    def dense(self) -> Tensor:
        """Return the dense weight of the form."""
        return self.form.dense()

    def dense_bias(self) -> Tensor | None:
        """Return the bias of the form."""
        return self.form.dense_bias()

    @property
    def bias(self) -> Tensor | None:
        """The bias of the form."""
        return self.dense_bias()


class Decoded(StandIn):
    """A form whose weight is decoded once, with the same `act`, output scale and bias."""

    def __init__(self, form: Form):
        super().__init__(copy.deepcopy(form))
        self.decoded = nn.Parameter(form.dense().detach().clone(memory_format=torch.contiguous_format))

    def dense(self) -> Tensor:
        """Return the decoded weight."""
        return self.decoded


def precise(tensor: Tensor) -> Tensor:
    """Return `tensor` in single precision or better: squares and sums in half precision underflow or overflow."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def trained_weight(layer: nn.Module) -> nn.Parameter:
    """Return the parameter that is trained in an ordinary layer or a form with latent weights."""
    return layer.latent if isinstance(layer, LatentForm) else layer.weight


def input_of(layer: nn.Module, given: Tensor) -> Tensor:
    """Return what the weight of an ordinary layer or of a form multiplies for the input `given`."""
    return layer.act(given) if isinstance(layer, Form) else given


def weight_of(layer: nn.Module) -> Tensor:
    """Return the dense weight of an ordinary layer or of a form."""
    return layer.dense() if isinstance(layer, Form) else layer.weight
