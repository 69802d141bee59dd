"""CReLU: a convolution learns half of its filters, the other half are their negatives."""

from typing import ClassVar

import torch  # noqa: F401  the doctests of this file use it
from torch import Tensor, nn

from compedu.forms import CReLUFilters, Geometry
from compedu.graph import find_channels, followed_by_relu
from compedu.knobs import inherited, knob, method
from compedu.methods.compact_filters.shared.pairing import can_be_reordered, pairing_order, reorder_channels
from compedu.methods.initialization import initialize
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.replace_then_train import ReplaceThenTrain
from compedu.methods.task import Task


def half_difference(filters: Tensor) -> Tensor:
    """Return the base whose stack [base, -base] is the least-squares fit to `filters` (n, ...), n even.

    >>> half_difference(torch.tensor([1.0, 4.0, -3.0, 0.0])).tolist()
    [2.0, 2.0]
    """
    first, second = filters.chunk(2)
    # ||base - first||^2 + ||base + second||^2 is least at the mean of first and -second.
    return (first - second) / 2


@method
class CReLU(ReplaceThenTrain):
    r"""Learn half of the filters of convolutions before a ReLU and use their negatives as the other half.

    $y = [\mathrm{ReLU}(W x + b), \mathrm{ReLU}(-(W x + b))]$: as many feature maps from half of the filters; a
    batch normalization in between keeps its scale and shift for each map. The whole network is trained.
    Stored: the base filters and their biases, at full precision.
    Skips: linear layers; convolutions in groups, with an odd number of filters, or whose output is read by anything
    but a ReLU, directly or through batch normalization; layers that are already compressed.
    Paper: Shang, Sohn, Almeida, Lee 2016, Understanding and improving convolutional neural networks via concatenated
    rectified linear units, arXiv:1603.05201, section 2. Starting from paired trained filters is not in the paper.
    """

    family: ClassVar[str] = "compact_filters"

    start: str = knob(
        default="paired",
        help="where training starts: paired keeps the trained weights and pairs each filter with the most opposite one "
        "(the base is half of their difference), scratch initializes the whole network again",
        choices=("paired", "scratch"),
    )
    epochs: int = inherited(
        ReplaceThenTrain, "epochs", help="passes over the training images; 0 shows the effect of pairing alone"
    )
    layers: str = inherited(SelectiveMethod, "layers", default="early")

    def __post_init__(self):
        super().__post_init__()
        if self.start == "scratch" and self.epochs == 0:
            raise ValueError("CReLU.epochs must be at least 1 when start is 'scratch', got 0: nothing would be learned")

    @property
    def needs(self) -> str:
        """Training images; without training one image, to follow the channels."""
        return "training" if self.epochs else "calibration"

    def chosen(self, task: Task) -> dict[str, nn.Module]:
        """Return the layers that can be tied, after the network is initialized again or its filters are paired."""
        layers = self.tieable(task)
        task.refuse_if_nothing_done(len(layers))
        if self.start == "scratch":
            initialize(task.model, self.seed, "CReLU(start='scratch')", "use start='paired'")
        else:
            pair_filters(task, layers)
        return layers

    def tieable(self, task: Task) -> dict[str, nn.Module]:
        """Return the selected layers that can be tied; the others are skipped by name, with the reason."""
        before_relu = followed_by_relu(task.model)
        layers = {}
        for name, layer in task.selected_layers().items():
            if reason := self.obstacle(layer) or why_not(layer, name in before_relu):
                task.skip(name, reason)
            else:
                layers[name] = layer
        return layers

    def compress_layer(self, name: str, layer: nn.Module) -> CReLUFilters:
        """Return the layer with half of its filters."""
        half = half_difference if self.start == "paired" else first_half
        bias = None if layer.bias is None else half(layer.bias.detach())
        return CReLUFilters(Geometry.of(layer), half(layer.weight.detach()), bias)


def first_half(filters: Tensor) -> Tensor:
    """Return the first half of freshly drawn `filters`; half the difference would have less variance."""
    return filters.chunk(2)[0]


def why_not(layer: nn.Module, before_relu: bool) -> str:
    """Return why an ordinary `layer` cannot be tied, "" where it can."""
    geometry = Geometry.of(layer)
    if geometry.kind != "conv2d":
        return "is not a convolution"
    if geometry.groups > 1:
        return f"is a convolution in {geometry.groups} groups"
    if geometry.shape[0] % 2:
        return f"has an odd number of filters ({geometry.shape[0]}), so one would have no partner"
    return "" if before_relu else "its output is not read by a ReLU alone, which would separate the two halves again"


def pair_filters(task: Task, layers: dict[str, nn.Module]) -> None:
    """Reorder the channels of the task's network so that filter i and i + n / 2 of each layer are opposites.

    Channels that cannot be reordered, or that another layer has reordered, keep their order.
    """
    channels = find_channels(task.source, task.data.example)
    for group in channels.groups:
        for name, layer in layers.items():
            if can_be_reordered(group, name, len(layer.weight)):
                reorder_channels(task.model, group, pairing_order(layer.weight))
                break
