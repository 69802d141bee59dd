"""What all methods share that round weights to evenly spaced levels: knobs, folding, scales, rounded activations."""

from typing import ClassVar, cast

from torch import Tensor, nn

from compedu.forms import ActivationQuantizer, Form, Geometry, Masked, Quantized, mask_of, precise, weight_of
from compedu.forms.quantized import top_code
from compedu.knobs import PerLayer, knob, method
from compedu.methods.calibration import calibration_knob
from compedu.methods.layer_method import LayerByLayer
from compedu.methods.layers import compressible, given_value
from compedu.methods.quantization.shared.calibration import input_ranges
from compedu.methods.quantization.shared.folding import fold
from compedu.methods.quantization.shared.scales import best_scale, largest_scale, sign_scale
from compedu.methods.task import Task


@method
class WeightQuantization(LayerByLayer):
    """A method that rounds the weights of layers to evenly spaced levels, and optionally their inputs.

    Subclasses choose the codes, given the scales: `scaled` has the nearest ones.
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

    def compress(self, task: Task) -> nn.Module:
        """Prepare the network, calibrate activations on it in floating point, then round the weights layer by layer."""
        self.prepare(task)
        if self.activation_bits == 0:
            return LayerByLayer.compress(self, task)
        layers = {name: layer for name, layer in compressible(task.model)[0].items() if not is_quantized(layer)}
        ranges = input_ranges(task.model, layers, task.data, self.calibration_images, self.coverage)
        unrounded = task.obstacles(layers, rounding=True)
        model = LayerByLayer.compress(self, task)
        for name in layers:
            layer = model.get_submodule(name)
            if is_quantized(layer) and name in unrounded:
                task.skip(name, f"its activations stay in floating point: {unrounded[name]}")
            elif is_quantized(layer) and name in ranges:
                layer.act = ActivationQuantizer.for_range(*ranges[name], self.activation_bits)
            elif is_quantized(layer):
                task.skip(name, "its activations stay in floating point: no calibration image reaches it")
        return model

    def prepare(self, task: Task) -> None:
        """Make the projections of attentions layers, and fold batch norm: what precedes calibration and rounding."""
        task.open_attentions()
        fold(task)

    def scaled(self, name: str, layer: nn.Module) -> Quantized:
        """Return the layer with its scales, and the trained weights as latent ones; a mask stays."""
        bits = given_value(self.bits, name)
        geometry = Geometry.of(layer)
        weight = weight_of(layer).detach()
        mask = mask_of(layer)
        rows = weight.reshape((1, -1) if self.scales == "tensor" else (len(weight), -1))
        scale = self.scale_of(precise(rows), mask.reshape(rows.shape), bits)
        shape = () if self.scales == "tensor" else geometry.per_output
        bias = cast("Tensor | None", layer.bias)
        return Quantized(geometry, weight, scale.view(shape), bits, bias, mask)

    def scale_of(self, rows: Tensor, kept: Tensor, bits: int) -> Tensor:
        """Return the scale of each row (rows, weights), (rows, 1)."""
        if bits == 1:
            return sign_scale(rows, kept)
        return (largest_scale if self.clipping == "max" else best_scale)(rows, top_code(bits))


def is_quantized(layer: nn.Module) -> bool:
    """Tell whether the weights of `layer` are quantized."""
    return isinstance(layer, Quantized)
