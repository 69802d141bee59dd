"""Bi-clustering: channels are divided into clusters on both sides, and each block between two is of low rank."""

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from compedu.forms import Factored, Geometry, Reordered, weight_of
from compedu.forms.factored import most_channels, pointwise
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.low_rank.shared.convolution_factors import ConvolutionFactorization
from compedu.methods.low_rank.shared.equal_clusters import equal_clusters
from compedu.methods.low_rank.shared.rank import Ranks
from compedu.methods.low_rank.shared.svd import leading
from compedu.methods.low_rank.shared.tucker_2 import tucker_2


def channel_clusters(slices: Tensor, count: int, rank: int) -> Tensor:
    """Return `count` clusters of equal size of channels, (count, size), each near a subspace of dimension `rank`.

    `slices` (channels, numbers) are the weights of each channel. A cluster keeps of a channel what lies in the subspace
    of the first `rank` singular vectors of its channels, of which half as many as there are channels count at most: the
    whole space would keep all of every one.
    """
    channels = len(slices)
    rank = min(rank, max(1, channels // count // 2))
    gram = slices @ slices.T

    def kept(clusters: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(gram[clusters[:, :, None], clusters[:, None, :]])
        values = values[:, -rank:, None]
        products = vectors[:, :, -rank:].mT @ gram[clusters]  # of the unscaled bases with all channels
        there = values > 1e-12 * values.amax()
        return torch.where(there, products.square() / values, 0).sum(1).T

    # Channels of different subspaces that do not overlap are orthogonal in the common row space (Costeira, Kanade
    # 1998, A multibody factorization method for independently moving objects): the start that this gives is then exact.
    basis = leading(gram, min(count * rank, (channels + 1) // 2))
    common = basis @ basis.T
    size = common.diagonal().clamp(min=1e-12)
    return equal_clusters(common.square() / (size[:, None] * size), count, kept)


def block_factors(blocks: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Return a basis (..., C, K1), a core (..., K2, K1, height, width) and a basis (..., N, K2) near `blocks`.

    `blocks` (..., N, C, height, width) are each the core times both bases, a Tucker decomposition of the two channel
    axes at the ranks (K1, K2); the three parts have equal norms, but for the ranks.
    """
    inputs, core, outputs = tucker_2(blocks, ranks)
    root = core.flatten(-4).norm(dim=-1)[..., None, None] ** (1 / 3)
    root = torch.where(root > 0, root, 1)
    return inputs * root, core / root[..., None, None].square(), outputs * root


@dataclass(frozen=True, eq=False)
class Blocks:
    """The clusters of the input and of the output channels of a layer, (clusters, size) each."""

    inputs: Tensor
    outputs: Tensor

    def of(self, weight: Tensor) -> Tensor:
        """Return the blocks (G, H, N / H, C / G, height, width) of `weight` between G input and H output clusters."""
        return weight[self.outputs[None, :, :, None], self.inputs[:, None, None, :]]


@method
class BiclusteredSVD(ConvolutionFactorization):
    r"""Divide input and output channels into clusters, and give each block between two clusters a low rank of its own.

    $W_{gh} \approx S_{gh} \times_1 B_{gh} \times_2 A_{gh}$ for the weights $W_{gh}$ from input cluster $g$ to output
    cluster $h$, of equal sizes; $A_{gh}$ and $B_{gh}$ have as many columns as the ranks of inputs and outputs. Channels
    are in one cluster whose weights lie near one subspace. The layers in sequence are a pointwise convolution in groups
    of inputs, one with the window of the filters in a group for each block, and a pointwise one in groups of outputs;
    channels are put in the order of their clusters before, between and behind. One cluster on each side is a Tucker
    decomposition of the channels.
    Stored: the factors at full precision, and the orders of channels, of few bits each.
    Skips: layers where a fractional rank is not below break-even, unless `allow_larger`; channels that do not divide
    into the clusters; clusters so many that more channels lie between the layers than any layer of low rank needs;
    linear layers and 1x1 convolutions; grouped convolutions; layers that are already compressed. An integer rank that
    saves nothing raises `CompressionError`.
    Paper: Denton, Zaremba, Bruna, LeCun, Fergus 2014, Exploiting linear structure within convolutional networks,
    arXiv:1404.0736, section 3.
    """

    rank: PerLayer[float | int] = inherited(
        ConvolutionFactorization,
        "rank",
        help="ranks of each block, of its inputs and of its outputs, as a fraction of its full ranks",
    )
    input_clusters: int = knob(
        default=2, help="clusters of input channels; must divide their number", low=1, slider_range=(1, 8)
    )
    output_clusters: int = knob(
        default=2, help="clusters of output channels; must divide their number", low=1, slider_range=(1, 8)
    )

    def clusters(self, weight: Tensor, ranks: Ranks) -> Blocks:
        """Return the clusters of the channels of `weight` for blocks of these ranks."""
        inside, outside = ranks
        weight = weight.double()
        return Blocks(
            channel_clusters(weight.transpose(0, 1).flatten(1), self.input_clusters, inside * self.output_clusters),
            channel_clusters(weight.flatten(1), self.output_clusters, outside * self.input_clusters),
        )

    def factored(self, layer: nn.Module, ranks: Ranks) -> Factored:
        """Return the layers in sequence near `layer`, with the orders of channels between them."""
        geometry = Geometry.of(layer)
        weight = weight_of(layer).detach()
        found = self.clusters(weight, ranks)
        first, second, third = (
            one.layer(made.to(weight.dtype), None)
            for one, made in zip(self.chain(geometry, ranks), self.in_blocks(weight, found, ranks), strict=True)
        )
        bias = cast("Tensor | None", layer.bias)
        if bias is not None:
            third.bias = nn.Parameter(bias.detach()[found.outputs.flatten()])
        steps = (
            found.inputs.flatten(), first, second, self.by_outputs(ranks[1]), third, found.outputs.flatten().argsort(),
        )  # fmt: skip
        reordered = (as_layer(step, weight.dtype) if isinstance(step, Tensor) else step for step in steps)
        return Factored(geometry, *(step for step in reordered if step is not None))

    def impossible(self, geometry: Geometry, ranks: Ranks) -> str:
        """Say that more channels would lie between the layers than a layer of any rank needs, "" if not."""
        widest = max(one.shape[0] for one in self.chain(geometry, ranks))
        most = most_channels(geometry)
        if widest <= most:
            return ""
        return (
            f"{self.input_clusters} x {self.output_clusters} blocks of ranks {', '.join(map(str, ranks))} have "
            f"{widest} channels between its layers, more than the {most} that a layer of this shape of any rank "
            "needs; choose fewer clusters or a lower rank"
        )

    def by_outputs(self, rank: int) -> Tensor:
        """Return the order of the channels behind the blocks in which those of one output cluster lie together."""
        shape = (self.input_clusters, self.output_clusters, rank)
        return torch.arange(math.prod(shape)).view(shape).transpose(0, 1).flatten()

    def factors(self, weight: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the weights of the three convolutions for channels in the order of their clusters."""
        return self.in_blocks(weight, self.clusters(weight, ranks), ranks)

    def in_blocks(self, weight: Tensor, found: Blocks, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the weights of the three convolutions, in double precision."""
        inputs, core, outputs = block_factors(found.of(weight.double()), ranks)
        first, second, third = self.chain(geometry_of(weight), ranks)
        return (
            inputs.transpose(2, 3).reshape(first.shape),  # (G, H, K1, C / G)
            core.reshape(second.shape),  # (G, H, K2, K1, height, width)
            outputs.permute(1, 2, 0, 3).reshape(third.shape),  # (H, N / H, G, K2)
        )

    def chain(self, geometry: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """Return the three convolutions: in groups of inputs, in a group for each block, in groups of outputs."""
        out, inside, *window = geometry.shape
        blocks = self.input_clusters * self.output_clusters
        inputs, outputs = ranks
        return (
            Geometry("conv2d", (blocks * inputs, inside // self.input_clusters, 1, 1), groups=self.input_clusters),
            replace(geometry, shape=(blocks * outputs, inputs, *window), groups=blocks),
            Geometry("conv2d", (out, self.input_clusters * outputs, 1, 1), groups=self.output_clusters),
        )

    def full_ranks(self, geometry: Geometry) -> Ranks:
        """Return the largest ranks of the inputs and of the outputs of a block."""
        out, inside, *window = geometry.shape
        outputs = out // self.output_clusters
        inputs = inside // self.input_clusters
        pixels = math.prod(window)
        return min(inputs, outputs * pixels), min(outputs, inputs * pixels)

    def break_even(self, geometry: Geometry) -> float:
        """Return the rank, that of inputs and of outputs, at which the three layers are as large as the dense one."""
        out, inside, *window = geometry.shape
        sides = self.output_clusters * inside + self.input_clusters * out
        core = self.input_clusters * self.output_clusters * math.prod(window)
        return (math.sqrt(sides**2 + 4 * core * math.prod(geometry.shape)) - sides) / (2 * core)

    def unsuited(self, geometry: Geometry) -> str:
        """Say why a layer does not divide into blocks, "" if it does."""
        if reason := ConvolutionFactorization.unsuited(self, geometry):
            return reason
        out, inside = geometry.shape[:2]
        for side, channels, clusters in (("input", inside, self.input_clusters), ("output", out, self.output_clusters)):
            if channels % clusters:
                allowed = ", ".join(str(one) for one in range(1, channels + 1) if channels % one == 0)
                return (
                    f"its {channels} {side} channels do not divide into {clusters} clusters of equal size; choose "
                    f"{side}_clusters from {allowed}"
                )
        return ""


def geometry_of(weight: Tensor) -> Geometry:
    """Return the geometry of a convolution with this weight and no stride or padding."""
    return Geometry("conv2d", tuple(weight.shape))


def as_layer(order: Tensor, dtype: torch.dtype) -> Reordered | None:
    """Return the layer that brings channels in `order`, None where they are in it already."""
    channels = len(order)
    if torch.equal(order, torch.arange(channels)):
        return None
    return Reordered(pointwise(channels, channels), order, dtype)
