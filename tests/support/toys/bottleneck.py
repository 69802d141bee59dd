"""A block of ordinary modules in the place of a linear layer: narrow, batch norm, ReLU, wide."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import Block, Geometry, declared
from compedu.knobs import knob, method
from compedu.methods import LayerMethod
from compedu.methods.low_rank.shared.svd import factors


class Bottleneck(Block):
    """Two linear layers with batch norm and ReLU between them."""

    def __init__(self, geometry: Geometry, width: int):
        declared.need(geometry.kind == "linear", "it takes the place of a linear layer")
        most = max(geometry.shape)
        declared.need(type(width) is int and 1 <= width <= most, f"width {width!r}; allowed are 1 to {most}")
        super().__init__(geometry)
        out, inside = geometry.shape
        self.narrow, self.norm, self.relu = nn.Linear(inside, width), nn.BatchNorm1d(width), nn.ReLU()
        self.wide = nn.Linear(width, out)
        self.width = width

    def forward(self, input: Tensor) -> Tensor:
        return self.wide(self.relu(self.norm(self.narrow(input))))

    def settings(self) -> dict[str, Any]:
        return {"width": self.width}

    @classmethod
    def restore(cls, geometry: Geometry, settings: Mapping[str, Any]) -> "Bottleneck":
        declared.only(settings, "width")
        return cls(geometry, settings.get("width"))


@method
class Bottlenecks(LayerMethod):
    r"""Replace every linear layer by a block with a narrow layer in it.

    $y = B\,\mathrm{relu}(\mathrm{norm}(A x))$ with $B A$ the nearest matrix of that rank.
    Stored: both layers and the batch norm at full precision.
    Skips: convolutions, layers that are too small, layers that are already compressed.
    Paper: none; made for a test.
    """

    family: ClassVar[str] = "compact_filters"

    width: int = knob(default=4, help="neurons in the middle", low=1, high=512, slider_range=(1, 8))

    def compress_layer(self, name: str, layer: nn.Module) -> Bottleneck:
        geometry = Geometry.of(layer)
        if geometry.kind != "linear" or self.width >= min(geometry.shape):
            raise Skip("is already narrow, or no linear layer")
        wide, narrow = factors(layer.weight.detach(), self.width)
        block = Bottleneck.drawn(geometry, width=self.width)
        block.narrow = Geometry("linear", tuple(narrow.shape)).layer(narrow, narrow.new_zeros(self.width))
        block.wide = Geometry("linear", tuple(wide.shape)).layer(wide, layer.bias)
        return block.to(layer.weight.dtype).eval()
