"""Signs of the weights, times a map of local means of the input: a form with an output scale."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.forms import Codes, Floats, Form, Geometry, declared
from compedu.knobs import knob, method
from compedu.methods import LayerMethod


class LocalMeans(Form):
    """A dense layer with kernel scale * sign, whose output is multiplied by the mean absolute input of its window."""

    def __init__(self, geometry: Geometry, signs: Tensor, scale: Tensor, bias: Tensor | None):
        super().__init__(geometry, bias)
        self.scale = nn.Parameter(scale.detach().clone())
        self.register_buffer("signs", signs.to(torch.int8))

    def dense(self) -> Tensor:
        return self.signs * self.scale.reshape(self.geometry.per_output)

    def output_scale(self, x: Tensor) -> Tensor:
        g = self.geometry
        if g.kind == "linear":
            return x.abs().mean(-1, keepdim=True)
        means = x.abs().mean(1, keepdim=True)
        box = torch.full((1, 1, *g.shape[2:]), 1 / (g.shape[2] * g.shape[3]), dtype=x.dtype, device=x.device)
        return F.conv2d(means, box, None, g.stride, g.padding, g.dilation)

    @property
    def levels(self) -> int:
        return 2

    def codes(self) -> Tensor:
        return self.signs

    def stored_weight(self) -> dict:
        return {
            "signs": Codes((self.signs + 1) // 2, 1, signed=False),
            "scale": Floats(self.scale.detach(), "codebook"),
        }

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping, parts: declared.Parts) -> torch.dtype:
        declared.only(settings)
        declared.only(parts, "signs", "scale", "bias")
        declared.need(declared.codes(parts, "signs", 1, signed=False) == geometry.shape, "signs of another shape")
        out = geometry.shape[0]
        return declared.bias(parts, "bias", out, declared.floats(parts, "scale", (out,)))

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict, parts: dict) -> "LocalMeans":
        return cls(geometry, 2 * parts["signs"] - 1, parts["scale"], parts.get("bias"))


@method
class SignsAndLocalMeans(LayerMethod):
    r"""Replace every kernel by its signs, and multiply the output by local means of the input.

    $y = K(x) (\alpha\,\mathrm{sign}(w) * x) + b$.
    Stored: one bit a weight, one scale a filter.
    Skips: grouped convolutions, layers that are already compressed.
    Paper: after Rastegari et al. 2016, arXiv:1603.05279, section 3.2.
    """

    family: ClassVar[str] = "quantization"

    gain: float = knob(default=1.0, help="factor on all scales", low=0.1, high=10, slider_range=(0.5, 2.0))

    def compress_layer(self, name: str, layer: nn.Module) -> LocalMeans:
        weight = layer.weight.detach()
        scale = self.gain * weight.abs().flatten(1).mean(1)
        return LocalMeans(Geometry.of(layer), torch.where(weight < 0, -1, 1), scale, layer.bias)
