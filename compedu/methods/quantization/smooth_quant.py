"""SmoothQuant: outlier channels of the activations shrink, the weights that read them grow, then both are rounded."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.forms import Form, Geometry, weight_of
from compedu.graph.answers import remembered
from compedu.graph.known_code import structure_of
from compedu.graph.own_hooks import own_attributes
from compedu.graph.rescaling import largest_by_input, rescaled
from compedu.graph.scaling import Scalable, scalable_channels
from compedu.knobs import PerLayer, inherited, knob, method, value_for
from compedu.methods.calibration import calibration_set
from compedu.methods.quantization.linear import LinearQuantization
from compedu.methods.quantization.shared.calibration import BATCH, watch
from compedu.methods.quantization.shared.folding import quantizes
from compedu.methods.task import Task

LEAST = 1e-5  # a smaller factor, or one above 1 / LEAST, is that of a channel that hardly occurs, and may overflow


def smoothing_factors(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """Return s = inputs^alpha / weights^(1 - alpha) for the largest absolute values of each channel (equation 4).

    It is 1 for a channel without inputs or weights, and where it would be outside of 1e-5..1e5.

    >>> smoothing_factors(torch.tensor([16.0, 1.0, 0.0]), torch.tensor([0.25, 1.0, 3.0]), 0.5).tolist()
    [8.0, 1.0, 1.0]
    """
    factors = inputs**alpha / weights ** (1 - alpha)
    usable = (inputs > 0) & (weights > 0) & (factors >= LEAST) & (factors <= 1 / LEAST)
    return torch.where(usable, factors, torch.ones_like(factors))


@method
class SmoothQuant(LinearQuantization):
    r"""Divide each channel of the activations by a factor, multiply the weights that read it, then round both.

    $s_j = \max |X_j|^\alpha / \max |W_j|^{1 - \alpha}$ for each input channel $j$; as
    $X W = (X\,\mathrm{diag}(s)^{-1})\,(\mathrm{diag}(s)\,W)$, nothing changes before the rounding. The division goes
    into what makes the channel: a normalization with a factor for each channel, or a linear or convolutional layer
    with only ReLU, pooling, dropout or reshaping behind it, whose filter and bias are divided. All layers that read a
    channel share its $s_j$, by the largest of their weights. $s_j = 1$ for channels without inputs or weights. Divided
    filters of rare channels become large: with one scale per layer they take the codes of all others. Rounding,
    scales and the folding of batch normalization are those of linear quantization.
    Stored: the codes, $b$ bits each; the scales; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; forms other than masked ones. Layers whose inputs come from
    or also go to anything else, as the network's input, GELU, attention or a shortcut, are rounded but not smoothed.
    Paper: Xiao, Lin, Seznec, Wu, Demouth, Han 2023, SmoothQuant: Accurate and efficient post-training quantization for
    large language models, arXiv:2211.10438, section 4; between layers: Nagel, van Baalen, Blankevoort, Welling 2019,
    Data-free quantization through weight equalization and bias correction, arXiv:1906.04721, section 4.1, where the
    filter's largest weight stands for its output.
    """

    alpha: float = knob(
        default=0.5,
        help="strength: at 0 all channels get equal weights, at 1 equal activations, in between both come closer",
        low=0,
        high=1,
        slider_range=(0, 1),
    )
    bits: PerLayer[int] = inherited(LinearQuantization, "bits")
    activation_bits: int = inherited(LinearQuantization, "activation_bits", default=8)

    @property
    def needs(self) -> str:
        """Training images, without their labels, that show the largest activation of each channel."""
        return "calibration"

    def prepare(self, task: Task) -> None:
        """Fold batch norm, then move scales from the activations into the weights; note where they stay."""
        super().prepare(task)
        layers = {name: layer for name, layer in task.selection()[0].items() if self._rounds(name, layer)}
        images, _ = calibration_set(task.data, self.calibration_images)
        inputs = largest_inputs(task.model, layers, task.data, images)
        example = task.data.example
        try:
            found = remembered(
                task.source,
                ("scalable channels", tuple(layers), structure_of(task.model)),
                task.model,
                example,
                lambda: scalable_channels(task.model, layers, example),
            )
            task.model = rescaled(task.model, found, self.factors(found, layers, inputs), example)
        except CompressionError as reason:
            task.skip("(network)", f"no scales are moved from activations into weights: {reason}")
            return
        for name, reason in found.obstacles.items():
            task.skip(name, reason)

    def factors(self, found: Scalable, layers: Mapping[str, nn.Module], inputs: dict[str, Tensor]) -> Tensor:
        """Return s of each channel that was `found`, (count,), given the largest `inputs` of the layers."""
        weights = {name: largest_by_input(weight_of(layers[name]), Geometry.of(layers[name])) for name in found.readers}
        return smoothing_factors(found.largest(inputs), found.largest(weights), self.alpha)

    def _rounds(self, name: str, layer: nn.Module) -> bool:
        """Tell whether the weights of `layer` will be rounded, and nothing of the user's may depend on them."""
        rounded = not self.obstacle(layer) and value_for(self.bits, name) is not None
        return rounded and not (isinstance(layer, Form) and quantizes(layer)) and not own_attributes(layer)


def largest_inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], data: Dataset, images: Tensor
) -> dict[str, Tensor]:
    """Return for each of the `layers` of `model` the largest absolute value of each input channel on `images`.

    Layers that the images do not reach are left out.
    """
    largest: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        channels = x.movedim(-1 if Geometry.of(layers[name]).kind == "linear" else -3, 0)
        here = channels.flatten(1).abs().amax(1)
        largest[name] = torch.maximum(largest[name], here) if name in largest else here

    watch(model, layers, data, images.split(BATCH), note)
    return largest
