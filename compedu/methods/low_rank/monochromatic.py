"""Monochromatic filters: each filter of a convolution sees one color, and few colors serve all filters."""

import math
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import Factored, Geometry, Reordered, weight_of
from compedu.forms.factored import pointwise
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.layer_method import LayerMethod, SelectiveMethod
from compedu.methods.layers import given_value
from compedu.methods.low_rank.shared.equal_clusters import equal_clusters
from compedu.methods.low_rank.shared.svd import leading
from compedu.methods.low_rank.shared.unsuited import grouped, not_wide


def leading_color(filters: Tensor) -> Tensor:
    """Return the unit vectors (..., C) whose products with `filters` (..., count, C, pixels) are largest, all together.

    They are the first left singular vectors of the filters side by side.
    """
    return leading(torch.einsum("...mcs,...mds->...cd", filters, filters), 1)[..., 0]


def monochromatic(weight: Tensor, colors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return clusters (colors, size) of filters, a color (colors, C) for each, and the filters (colors, size, pixels).

    `weight` is (N, C, height, width), `colors` divides N. Filter n of cluster k is near color[k] filter[k, n]^T, the
    projection on its color, which is the best one for the filters of the cluster. Color and filters of a cluster have
    equal norms, so that their gradients are of one scale in training. In double precision.
    """
    filters = weight.double().flatten(2)

    def kept(clusters: Tensor) -> Tensor:
        return torch.einsum("kc,ncs->nks", leading_color(filters[clusters]), filters).square().sum(2)

    own = torch.linalg.svd(filters, full_matrices=False)[0][:, :, 0]  # the color of each filter alone
    clusters = equal_clusters((own @ own.T).square(), colors, kept)
    color = leading_color(filters[clusters])
    projected = torch.einsum("kc,kmcs->kms", color, filters[clusters])
    norm = projected.flatten(1).norm(dim=1).sqrt()
    norm = torch.where(norm > 0, norm, 1)
    return clusters, color * norm[:, None], projected / norm[:, None, None]


@method
class MonochromaticFilters(LayerMethod):
    r"""Let each filter of a convolution see its input channels as one mixture of them, a color, shared by many filters.

    $W_n \approx c_{k(n)} f_n^\top$ for the matrix $W_n$ (channels, pixels) of filter $n$. The filters are divided into
    clusters of equal size, in turn with the colors: $c_k$ is the first left singular vector of the filters of cluster
    $k$ side by side, $f_n = W_n^\top c_{k(n)}$ the projection. Begun several times at filters that differ most in
    their own colors, $\min \sum_n \lVert W_n - c_{k(n)} f_n^\top \rVert^2$ with nothing drawn at random. The layers in
    sequence are a pointwise convolution to the colors, a convolution in as many groups, and the order of the filters.
    Stored: colors and filters at full precision, and the order of the filters, of few bits each.
    Skips: layers of one input channel, such as the first one for gray images; numbers of filters that do not divide
    into so many colors; numbers of colors that save nothing; linear layers and 1x1 convolutions; grouped convolutions;
    layers that are already compressed.
    Paper: Denton, Zaremba, Bruna, LeCun, Fergus 2014, Exploiting linear structure within convolutional networks,
    arXiv:1404.0736, section 3.3, where the colors of single filters are clustered; fitting in turn lowers the error.
    """

    family: ClassVar[str] = "low_rank"
    writes: ClassVar[bool] = False
    # For gray images the first layer has one channel; two colors divide the filters of most layers.
    tried_with: ClassVar[dict[str, Any]] = {"layers": "conv", "colors": 2}

    colors: PerLayer[int] = knob(
        default=4,
        help="mixtures of the input channels, of which each filter sees one; must divide the number of filters",
        low=1,
        slider_range=(1, 32),
        per_layer=True,
    )
    layers: str = inherited(SelectiveMethod, "layers", default="first")

    def obstacle(self, layer: nn.Module) -> str:
        """Return why no filter of `layer` has a color, "" if they have."""
        geometry = Geometry.of(layer)
        if reason := LayerMethod.obstacle(self, layer) or not_wide(geometry) or grouped(geometry, "a color"):
            return reason
        return "has one input channel, so that all its filters see one color" if geometry.shape[1] == 1 else ""

    def compress_layer(self, name: str, layer: nn.Module) -> Factored:
        """Return a pointwise convolution to the colors, the filters in groups, and their order."""
        geometry = Geometry.of(layer)
        colors = given_value(self.colors, name)
        refuse_colors(geometry, colors)
        weight = weight_of(layer).detach()
        out, inside, *window = geometry.shape
        clusters, color, filters = monochromatic(weight, colors)
        members = clusters.flatten()
        mixing = pointwise(colors, inside)
        filtering = replace(geometry, shape=(out, 1, *window), groups=colors)
        bias = cast("Tensor | None", layer.bias)
        return Factored(
            geometry,
            mixing.layer(color[:, :, None, None].to(weight.dtype), None),
            filtering.layer(filters.reshape(filtering.shape).to(weight.dtype), None if bias is None else bias[members]),
            Reordered(pointwise(out, out), members.argsort(), weight.dtype),
        )


def refuse_colors(geometry: Geometry, colors: int) -> None:
    """Raise `Skip` with the numbers that are allowed unless `colors` divide the filters and save weights."""
    out, inside, *window = geometry.shape
    dense = math.prod(geometry.shape)
    made = {one: one * inside + out * math.prod(window) for one in range(1, out + 1) if out % one == 0}
    saving = [str(one) for one, numbers in made.items() if numbers < dense]
    advice = f"choose colors from {', '.join(saving)}" if saving else "no number of colors saves anything here"
    if colors not in made:
        raise Skip(f"its {out} filters do not divide into {colors} clusters of equal size; {advice}")
    if made[colors] >= dense:
        raise Skip(f"{colors} colors make {made[colors]} weights instead of {dense}; {advice}")
