"""Truncated singular value decomposition: each layer becomes two in sequence, with few channels in between."""

from typing import Any, ClassVar

from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.forms import Factored, Geometry
from compedu.forms.factored import vertical_horizontal_pair
from compedu.knobs import PerLayer, knob, knobs, method
from compedu.methods.layer_method import LayerMethod, SelectiveMethod
from compedu.methods.layers import given_value
from compedu.methods.low_rank.shared.rank import break_even, largest_saving_rank, rank_from, rank_knob
from compedu.methods.low_rank.shared.svd import factors
from compedu.methods.low_rank.shared.vertical_horizontal import unfolded, vertical_horizontal


def as_matrix(weight: Tensor) -> Tensor:
    """Return the matrix whose rank is reduced: a linear weight (out, in) itself, that of a convolution unfolded."""
    return weight if weight.ndim == 2 else unfolded(weight)


def factored(geometry: Geometry, weight: Tensor, bias: Tensor | None, rank: int) -> Factored:
    """Return the two layers of that `rank` in sequence whose product is the least-squares fit to `weight`.

    A linear layer becomes a first (rank, in) and a second (out, rank), a convolution a vertical and a horizontal one.
    """
    if geometry.kind == "linear":
        second, first = factors(weight, rank)
        pair = Geometry("linear", tuple(first.shape)), Geometry("linear", tuple(second.shape))
    else:
        first, second = vertical_horizontal(weight, rank)
        pair = vertical_horizontal_pair(geometry, rank)
    return Factored(geometry, pair[0].layer(first, None), pair[1].layer(second, bias))


@method
class TruncatedSVD(LayerMethod):
    r"""Replace every weight matrix by the closest one of low rank, as two layers in sequence.

    $W \approx U_r S_r V_r^\top$ with the $r$ largest singular values; the first layer is $\sqrt{S_r} V_r^\top$, the
    second $U_r \sqrt{S_r}$. For a convolution, $W$ is its weight as a matrix (in * height, out * width), and the layers
    are a vertical and a horizontal convolution. It saves parameters only if $r (m + n) < m n$ for an $m \times n$
    matrix.
    Stored: the two factors at full precision.
    Skips: layers where a fractional rank is not below break-even, unless `allow_larger`; grouped
    convolutions; layers that are already compressed. An integer rank that saves nothing raises `CompressionError`.
    Paper: Denton, Zaremba, Bruna, LeCun, Fergus 2014, Exploiting linear structure within convolutional networks,
    arXiv:1404.0736, section 3; convolutions Tai, Xiao, Zhang, Wang, E 2016, arXiv:1511.06067, section 3.
    """

    family: ClassVar[str] = "low_rank"
    identity_settings: ClassVar[dict[str, Any]] = {"rank": 1.0, "allow_larger": True}
    writes: ClassVar[bool] = False

    rank: PerLayer[float | int] = rank_knob(
        default=0.25,
        help="rank kept in each layer, as a fraction of its full rank",
        slider_range=(0.01, 0.75),
        log=True,
    )
    allow_larger: bool = knob(default=False, help="also factorize layers that have more parameters afterwards")
    # The last layer has one row per class: at low rank it cannot separate all classes, which would mask the rest.
    layers: str = knob(default="-last", help=knobs(SelectiveMethod)["layers"].help)

    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the layer as two layers in sequence."""
        geometry = Geometry.of(layer)
        value = given_value(self.rank, name)
        if geometry.groups > 1:
            raise Skip(f"is a convolution in {geometry.groups} groups; two layers in sequence would mix them")
        rows, columns = as_matrix(layer.weight).shape
        return factored(geometry, layer.weight.detach(), layer.bias, self.checked_rank(name, value, rows, columns))

    def checked_rank(self, name: str, value: float | int, rows: int, columns: int) -> int:
        """Return the rank for `value` and layer `name`; refuse one that saves nothing.

        Raises `Skip` for a fraction, and `CompressionError` for an integer, which was meant for this very layer.
        """
        full = min(rows, columns)
        rank = rank_from(value, full)
        if rank > full:
            raise CompressionError(f"{self!r}: {name}: rank {rank} is above its full rank; choose at most {full}")
        largest = largest_saving_rank(rows, columns)
        if self.allow_larger or rank <= largest:
            return rank
        reason = (
            f"rank {rank} is not below its break-even rank {break_even(rows, columns):.1f}: two layers of "
            f"{rank * (rows + columns)} weights instead of {rows * columns}; "
            + (f"choose at most rank {largest}" if largest else "no rank saves anything here")
            + ", or set allow_larger=True"
        )
        if type(value) is int:
            raise CompressionError(f"{self!r}: {name}: {reason}")
        raise Skip(f"{reason} ({value!r} of its full rank {full})")
