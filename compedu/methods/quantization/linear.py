"""Linear quantization: weights, and optionally activations, become integers times a scale."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, Form, Geometry, Masked, Quantized, mask_of, precise, weight_of
from compedu.graph import fold_batch_norm
from compedu.graph.answers import remembered
from compedu.graph.copying import shared_copy
from compedu.graph.folding import refuse_noticed_folding
from compedu.graph.own_hooks import has_hooks
from compedu.knobs import PerLayer, knob, method
from compedu.methods.calibration import calibration_knob
from compedu.methods.layer_method import LayerMethod
from compedu.methods.layers import compressible, given_value, replace_layer
from compedu.methods.quantization.shared.calibration import input_ranges
from compedu.methods.task import Task

# Clipping points that the search tries, as fractions of the largest weight: evenly spaced down to a half, then in
# equal ratios, for far outliers.
CLIPPINGS = tuple(1 - step / 40 for step in range(1, 20)) + tuple(0.5 * 0.85**step for step in range(20))


def sign_scale(rows: Tensor, kept: Tensor) -> Tensor:
    """Return for each row (rows, weights) the mean |w| of its `kept` weights, (rows, 1); 0 if none is kept.

    It minimizes ||w - alpha sign(w)|| (Rastegari et al. 2016, section 3.1, arXiv:1603.05279).

    >>> sign_scale(torch.tensor([[1.0, -3.0]]), torch.tensor([[True, True]])).tolist()
    [[2.0]]
    """
    return (rows.abs() * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


def largest_scale(rows: Tensor, top: int) -> Tensor:
    """Return for each row (rows, weights) the scale that gives its largest absolute weight the code `top`, (rows, 1).

    >>> largest_scale(torch.tensor([[0.5, -1.27]]), 127).tolist()
    [[0.009999999776482582]]
    """
    scale = rows.abs().amax(1, keepdim=True) / top
    return torch.where(scale > 0, scale, torch.ones_like(scale))  # a row of zeros has no scale of its own


def best_scale(rows: Tensor, top: int) -> Tensor:
    """Return for each row (rows, weights) a scale of small squared error ||w - scale * code||^2, (rows, 1).

    The best of several clipping points is refined by alternating: codes by rounding, then the least-squares scale
    <w, code> / <code, code> for these codes; neither step increases the error.

    >>> best_scale(torch.tensor([[1.0, 1.0, -1.0, 1.0, 1.5]]), 1).tolist()
    [[1.100000023841858]]
    """
    largest = largest_scale(rows, top)
    scale = largest
    least = squared_error(rows, largest, top)
    for clipping in CLIPPINGS:
        error = squared_error(rows, largest * clipping, top)
        scale = torch.where(error < least, largest * clipping, scale)
        least = torch.minimum(error, least)
    for _ in range(4):  # alternating least squares
        codes = rounded(rows, scale, top)
        power = (codes * codes).sum(1, keepdim=True)
        scale = torch.where(power > 0, (rows * codes).sum(1, keepdim=True) / power.clamp(min=1), scale)
    return scale


def rounded(rows: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return the nearest codes in -top..top, as floats."""
    return torch.round(rows / scale).clamp_(-top, top)


def squared_error(rows: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return ||w - scale * code||^2 for each row, (rows, 1)."""
    return (rows - scale * rounded(rows, scale, top)).square_().sum(1, keepdim=True)


@method
class LinearQuantization(LayerMethod):
    r"""Round weights, and optionally activations, to evenly spaced levels.

    $\hat w = s\,q$ with $q = \mathrm{clip}(\mathrm{round}(w / s), -q_{\max}, q_{\max})$, $q_{\max} = 2^{b-1} - 1$; with
    one bit $\hat w = s\,\mathrm{sign}(w)$ and $s = \mathrm{mean}\,|w|$. Activations: $\hat x = s\,(q - z)$ with
    $q = \mathrm{clip}(\mathrm{round}(x / s) + z, 0, 2^b - 1)$. Batch normalization is folded into its layer first.
    Stored: the codes, $b$ bits each; the scales; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-only
    inference, arXiv:1712.05877, sections 2 and 3; Vanhoucke, Senior, Mao 2011, Improving the speed of neural networks
    on CPUs; one bit: Rastegari et al. 2016, arXiv:1603.05279, section 3.1.
    """

    family: ClassVar[str] = "quantization"
    accepts: ClassVar[tuple[type[Form], ...]] = (Masked,)
    writes: ClassVar[bool] = False

    bits: PerLayer[int] = knob(default=8, help="bits per weight", low=1, high=8, slider_range=(1, 8), per_layer=True)
    scales: str = knob(
        default="channel", help="one scale per output channel or one per layer", choices=("channel", "tensor")
    )
    clipping: str = knob(
        default="max",
        help="from two bits on: the largest code stands for the largest weight, "
        "or for the value of least mean squared error",
        choices=("max", "mse"),
    )
    activation_bits: int = knob(
        default=0,
        help="bits per activation; 0 leaves activations in floating point",
        choices=(0, 2, 3, 4, 5, 6, 7, 8),
    )
    coverage: float = knob(
        default=1.0,
        help="fraction of a layer's inputs inside the range of its activation codes; 1 covers smallest to largest",
        low=0.5,
        high=1,
        slider_range=(0.99, 1),
    )
    calibration_images: int = calibration_knob("training images that show the range of the activations, at most")

    @property
    def needs(self) -> str:
        """Weights alone, or training images to calibrate the activations."""
        return "weights" if self.activation_bits == 0 else "calibration"

    def compress(self, task: Task) -> nn.Module:
        """Fold batch norm, calibrate activations on the float network, then round the weights layer by layer."""
        task.open_attentions()
        fold(task)
        if self.activation_bits == 0:
            return LayerMethod.compress(self, task)
        layers = {name: layer for name, layer in compressible(task.model)[0].items() if not is_quantized(layer)}
        ranges = input_ranges(task.model, layers, task.data, self.calibration_images, self.coverage)
        unrounded = task.obstacles(layers, rounding=True)
        model = LayerMethod.compress(self, task)
        for name in layers:
            layer = model.get_submodule(name)
            if is_quantized(layer) and name in unrounded:
                task.skip(name, f"its activations stay in floating point: {unrounded[name]}")
            elif is_quantized(layer) and name in ranges:
                layer.act = ActivationQuantizer.for_range(*ranges[name], self.activation_bits)
            elif is_quantized(layer):
                task.skip(name, "its activations stay in floating point: no calibration image reaches it")
        return model

    def compress_layer(self, name: str, layer: nn.Module) -> Quantized:
        """Return the layer with quantized weights; a mask stays."""
        bits = given_value(self.bits, name)
        geometry = Geometry.of(layer)
        weight = weight_of(layer).detach()
        mask = mask_of(layer)
        rows = weight.reshape((1, -1) if self.scales == "tensor" else (len(weight), -1))
        scale = self.scale_of(precise(rows), mask.reshape(rows.shape), bits)
        shape = () if self.scales == "tensor" else geometry.per_output
        return Quantized(geometry, weight, scale.view(shape), bits, layer.bias, mask)

    def scale_of(self, rows: Tensor, kept: Tensor, bits: int) -> Tensor:
        """Return the scale of each row (rows, weights), (rows, 1)."""
        if bits == 1:
            return sign_scale(rows, kept)
        return (largest_scale if self.clipping == "max" else best_scale)(rows, 2 ** (bits - 1) - 1)


def is_quantized(layer: nn.Module) -> bool:
    """Tell whether the weights of `layer` are quantized."""
    return isinstance(layer, Quantized)


def fold(task: Task) -> None:
    """Fold the batch norms of the task's network into ordinary and masked layers, or note why they stay."""
    if not any(isinstance(module, _BatchNorm) for module in task.model.modules()):
        return
    model = shared_copy(task.model)
    masks = {
        name: layer.mask for name, layer in model.named_modules() if type(layer) is Masked and not quantizes(layer)
    }
    for name in masks:
        layer = model.get_submodule(name)
        model = replace_layer(model, name, layer.dense_layer())
    try:
        remembered(task.source, ("folding", "ordinary"), model, None, lambda: refuse_noticed_folding(model))
        model = fold_batch_norm(model)
    except CompressionError as reason:
        task.skip("(network)", f"batch normalization is not folded into the layers: {reason}")
        return
    for name, norm in model.named_modules():
        if isinstance(norm, _BatchNorm) and has_hooks(norm):
            task.skip(name, "is not folded into the layer before it: its forward hooks would see other values")
    for name, mask in masks.items():  # folding scales whole filters, so zeros stay zero
        layer = model.get_submodule(name)
        model = replace_layer(model, name, Masked(Geometry.of(layer), layer.weight, mask, layer.bias))
    task.model = model


def quantizes(layer: Form) -> bool:
    """Tell whether `layer` rounds its input."""
    return isinstance(layer.act, ActivationQuantizer)
