"""What all methods share that round weights to evenly spaced levels: knobs, folding, scales, rounded activations."""

from collections.abc import Mapping
from typing import ClassVar, cast

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, Form, Geometry, Masked, Quantized, mask_of, precise, weight_of
from compedu.forms.quantized import MOST_BITS, top_code
from compedu.knobs import PerLayer, knob, method
from compedu.methods.calibration import calibration_knob
from compedu.methods.layer_method import LayerByLayer
from compedu.methods.layers import compressible, given_value
from compedu.methods.quantization.shared.affine import affine_grid, best_affine_grid
from compedu.methods.quantization.shared.bit_budget import budgeted_bits, with_bits
from compedu.methods.quantization.shared.calibration import input_ranges
from compedu.methods.quantization.shared.folding import fold
from compedu.methods.quantization.shared.scales import best_scale, largest_scale, sign_scale
from compedu.methods.quantization.shared.weight_rows import clipped, group_of, rows_of
from compedu.methods.task import Task


@method
class WeightQuantization(LayerByLayer):
    """A method that rounds the weights of layers to evenly spaced levels, and optionally their inputs.

    Subclasses choose the codes, given the grid: `scaled` has the nearest ones.
    """

    family: ClassVar[str] = "quantization"
    accepts: ClassVar[tuple[type[Form], ...]] = (Masked,)
    writes: ClassVar[bool] = False
    # a budget spends what it has with fewer leftovers since version 1
    version: ClassVar[int] = 2
    # these say how much is shared out, not what it costs
    unscanned: ClassVar[tuple[str, ...]] = ("bits", "budget", "code_bytes")

    bits: PerLayer[int] = knob(
        default=8, help="bits per weight", low=1, high=MOST_BITS, slider_range=(1, 8), per_layer=True
    )
    scales: str = knob(
        default="channel",
        help="one scale per output channel, one per layer, or one per group of inputs of each output",
        choices=("channel", "tensor", "group"),
    )
    clipping: str = knob(
        default="max",
        help="from two bits on: the levels reach to the largest weight, to the percentile that `weight_coverage` "
        "says, or to the value of least mean squared error",
        choices=("max", "percentile", "mse"),
    )
    grid: str = knob(
        default="symmetric",
        help="levels around zero, or from the smallest weight to the largest, with a zero-point",
        choices=("symmetric", "affine"),
    )
    group_size: int = knob(
        default=64, help="inputs that share a scale, with scales='group'", low=2, slider_range=(8, 256), log=True
    )
    weight_coverage: float = knob(
        default=0.99,
        help="with clipping='percentile': fraction of the weights of a scale inside its range",
        low=0.5,
        high=1,
        slider_range=(0.9, 1),
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
    budget: str = knob(
        default="uniform",
        help="the same bits for all layers; or at most as many together, spent where each byte lowers the measured "
        "loss most: 8 bits for a layer at most, and none that bring nothing",
        choices=("uniform", "sensitivity"),
    )
    code_bytes: int = knob(
        default=0,
        help="with budget='sensitivity': bytes that all codes may take; 0: as many as with `bits` for all layers",
        low=0,
        unit="bytes",
    )
    calibration_images: int = calibration_knob(
        "training images that show the range of the activations, and the loss to budget='sensitivity', at most"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.budget != "uniform" and isinstance(self.bits, Mapping):
            raise ValueError(
                f"{type(self).__name__}.bits must be one number when budget is {self.budget!r}, got {self.bits!r}"
            )
        if self.budget == "uniform" and self.code_bytes:
            raise ValueError(
                f"{type(self).__name__}.code_bytes is {self.code_bytes}, yet budget='uniform' gives each layer its "
                "`bits`; set budget='sensitivity', or leave code_bytes at 0"
            )

    def compress(self, task: Task) -> nn.Module:
        """Prepare the network, share out the bits, then round activations and weights."""
        self.prepare(task)
        if self.budget == "uniform":
            return self.round_prepared(task)
        return with_bits(self, budgeted_bits(self, task)).round_prepared(task)

    def round_prepared(self, task: Task) -> nn.Module:
        """Calibrate activations on the prepared network in floating point, then round its weights layer by layer."""
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
        fold(task)

    def scaled(self, name: str, layer: nn.Module) -> Quantized:
        """Return the layer with its grid, and the trained weights as latent ones; a mask stays."""
        bits = given_value(self.bits, name)
        geometry = Geometry.of(layer)
        weight = weight_of(layer).detach()
        mask = mask_of(layer)
        group = group_of(geometry.shape, self.scales, self.group_size)
        rows = precise(rows_of(weight, self.scales, group))
        scale, zero_point = self.grid_of(rows, rows_of(mask, self.scales, group), bits)
        shape = () if self.scales == "tensor" else geometry.per_output
        if group is not None:
            shape = len(weight), -1
        zero_point = None if zero_point is None else zero_point.view(shape)
        bias = cast("Tensor | None", layer.bias)
        return Quantized(geometry, weight, scale.view(shape), bits, bias, mask, zero_point=zero_point, group=group)

    def grid_of(self, rows: Tensor, kept: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
        """Return the scale of each row (rows, weights), (rows, 1), and on affine grids its zero-point."""
        if bits == 1:
            if self.grid == "affine":
                raise CompressionError(
                    f"{type(self).__name__}: an affine grid of 1 bit would be 0 and one level; give 2 bits or more, or "
                    "grid='symmetric', whose two levels are -scale and +scale"
                )
            return sign_scale(rows, kept), None
        if self.clipping == "percentile":
            rows = clipped(rows, kept, self.weight_coverage, self.grid == "symmetric")
        if self.grid == "affine":
            if self.clipping == "mse":
                return best_affine_grid(rows, bits)
            return affine_grid(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), bits)
        return (best_scale if self.clipping == "mse" else largest_scale)(rows, top_code(bits)), None


def is_quantized(layer: nn.Module) -> bool:
    """Tell whether the weights of `layer` are quantized."""
    return isinstance(layer, Quantized)
