"""A code book: every weight is one of a few values in a table, and the file holds which."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.forms import Codes, Floats, Form, Geometry, declared
from compedu.knobs import knob, method
from compedu.methods import LayerMethod


class CodeBook(Form):
    """A dense layer with kernel table[codes]; `codes` are of `bits` bits, the table trains."""

    def __init__(self, geometry: Geometry, codes: Tensor, table: Tensor, bits: int, bias: Tensor | None):
        super().__init__(geometry, bias)
        self.bits = bits
        self.table = nn.Parameter(table.detach().clone())
        self.register_buffer("indices", codes.to(torch.int64))

    def dense(self) -> Tensor:
        return self.table[self.indices]

    @property
    def levels(self) -> int:
        return len(self.table)

    def codes(self) -> Tensor:
        return self.indices

    def stored_weight(self) -> dict:
        return {
            "codes": Codes(self.indices, self.bits, signed=False),
            "table": Floats(self.table.detach(), "codebook"),
        }

    def settings(self) -> dict[str, Any]:
        return {"bits": self.bits}

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping, parts: declared.Parts) -> torch.dtype:
        declared.only(settings, "bits")
        declared.only(parts, "codes", "table", "bias")
        bits = settings.get("bits")
        declared.need(type(bits) is int and 1 <= bits <= 8, f"codes of {bits!r} bits")
        shape = declared.codes(parts, "codes", bits, signed=False)
        declared.need(shape == geometry.shape, f"codes of shape {shape}")
        return declared.bias(parts, "bias", geometry.shape[0], declared.floats(parts, "table", (2**bits,)))

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict, parts: dict) -> "CodeBook":
        return cls(geometry, parts["codes"], parts["table"], settings["bits"], parts.get("bias"))


@method
class Quantiles(LayerMethod):
    r"""Replace every weight by the mean of its quantile.

    $\hat w = t_{q(w)}$ with $q$ the quantile of $w$ among $2^b$.
    Stored: the quantile of each weight, and the table of their means.
    Skips: layers that are not linear or convolutional; forms of any kind.
    Paper: none; made for a test.
    """

    family: ClassVar[str] = "quantization"

    bits: int = knob(default=2, help="bits of a code", low=1, high=8, slider_range=(1, 3))

    def compress_layer(self, name: str, layer: nn.Module) -> CodeBook:
        weight = layer.weight.detach()
        count = 2**self.bits
        order = weight.flatten().argsort(stable=True).argsort()
        codes = order * count // weight.numel()
        sums = torch.zeros(count, dtype=weight.dtype).index_add(0, codes, weight.flatten())
        table = sums / codes.bincount(minlength=count).clamp(min=1)
        return CodeBook(Geometry.of(layer), codes.reshape(weight.shape), table, self.bits, layer.bias)
