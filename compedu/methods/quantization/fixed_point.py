"""Fixed point: weights of a word and a fraction length, rounded to nearest or at random, after or during training."""

import zlib
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from compedu.forms import Form, Geometry, Masked, Quantized, mask_of, precise, weight_of
from compedu.forms.quantized import MOST_BITS, top_code
from compedu.hashing import uniform
from compedu.knobs import PerLayer, inherited, knob, method, seed_knob
from compedu.methods.layer_method import LayerByLayer
from compedu.methods.layers import given_value
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod

BEFORE_TRAINING = -1  # the step whose random numbers round the trained weights


def stochastic_codes(steps: Tensor, *seeds: int) -> Tensor:
    """Return `steps` (any shape) rounded up with the probability of their fractional part, otherwise down.

    The expectation over seeds is `steps` itself (Gupta et al. 2015, section 3). The numbers come from a hash of the
    place of a weight and the `seeds`, so that they are the same on every machine.
    """
    low = steps.floor()
    up = uniform(steps.numel(), *seeds).view(steps.shape) < (steps - low).double()
    return low + up.to(steps.dtype)


@method
class FixedPoint(LayerByLayer):
    r"""Round weights to numbers with a fixed number of binary places, the same in all layers of equal `bits`.

    With word length $b$ and $i$ integer bits, sign included, the step is $\epsilon = 2^{-(b - i)}$; a weight becomes
    $\lfloor w / \epsilon \rfloor\,\epsilon$ or the next number above it: the nearer one, or at random the upper one
    with probability $w / \epsilon - \lfloor w / \epsilon \rfloor$, so that $\mathrm{E}[\hat w] = w$ within the range.
    Weights beyond the last number are moved to it; the lowest number of two's complement, $-2^{i - 1}$, is left out, as
    in all codes. Batch norms stay as they are.
    Stored: the codes, $b$ bits each; one scale for each layer; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Gupta, Agrawal, Gopalakrishnan, Narayanan 2015, Deep learning with limited numerical precision,
    arXiv:1502.02551, section 3; here of the weights alone.
    """

    family: ClassVar[str] = "quantization"
    accepts: ClassVar[tuple[type[Form], ...]] = (Masked,)
    writes: ClassVar[bool] = False

    bits: PerLayer[int] = knob(
        default=8, help="word length: bits of a weight", low=2, high=MOST_BITS, slider_range=(2, 16), per_layer=True
    )
    integer_bits: int = knob(
        default=1,
        help="how many of them, the sign included, are before the binary point; with 1 the numbers lie between -1 and "
        "1; beyond `bits`, or below 0, the point lies outside of the word",
        low=-16,
        high=16,
        slider_range=(-2, 4),
    )
    rounding: str = knob(
        default="nearest",
        help="to the nearest number, or up or down at random, right on average",
        choices=("nearest", "stochastic"),
    )
    rounding_seed: int = seed_knob("seed of rounding='stochastic'")

    def form_for(self, task: Task, name: str, layer: nn.Module) -> Quantized:
        """Return the layer with rounded weights."""
        bits = given_value(self.bits, name)
        weight = weight_of(layer).detach()
        scale = precise(weight).new_tensor(2.0 ** (self.integer_bits - bits))
        bias = cast("Tensor | None", layer.bias)
        form = Quantized(Geometry.of(layer), weight, scale, bits, bias, mask_of(layer))
        self.round(name, form, BEFORE_TRAINING)
        return form

    @torch.no_grad()
    def round(self, name: str, form: Quantized, step: int) -> None:
        """Move the latent weights of the layer `name` to numbers of its grid; `step` is that of a training."""
        top = top_code(form.bits)
        steps = precise(form.latent) / form.scale
        if self.rounding == "stochastic":
            codes = stochastic_codes(steps, self.rounding_seed, zlib.crc32(name.encode()), step)
        else:
            codes = torch.round(steps)
        form.latent.copy_(codes.clamp_(-top, top) * form.scale)


@method
class FixedPointTraining(TrainingMethod, FixedPoint):
    r"""Train with weights that are fixed-point numbers at every step: each update is rounded as well.

    $w \leftarrow \mathrm{Round}(w - \Delta w)$ with the rounding of `FixedPoint`. Rounded to nearest, an update of less
    than half a step leaves a weight where it is, however often it is repeated; rounded at random it arrives on average.
    There are no weights of higher precision in the background, as other methods keep them. Batch norms, biases,
    activations, gradients and the optimizer's averages stay in floating point.
    Stored: the codes, $b$ bits each; one scale for each layer; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Gupta, Agrawal, Gopalakrishnan, Narayanan 2015, Deep learning with limited numerical precision,
    arXiv:1502.02551, sections 3 and 4, where activations and gradients are rounded too, and plain gradient descent
    makes the updates; here they are Adam's.
    """

    writes: ClassVar[bool] = True

    bits: PerLayer[int] = inherited(FixedPoint, "bits")
    integer_bits: int = inherited(FixedPoint, "integer_bits")
    rounding: str = inherited(FixedPoint, "rounding", default="stochastic")
    epochs: int = inherited(TrainingMethod, "epochs", default=3)

    def compress(self, task: Task) -> nn.Module:
        """Round the network, then train it, and round the weights of this call after every step."""
        earlier = {name for name, _ in _quantized(task.model)}
        model = FixedPoint.compress(self, task)
        made = [(name, form) for name, form in _quantized(model) if name not in earlier]

        def round_all(network: nn.Module, step: int) -> None:
            for name, form in made:
                self.round(name, form, step)

        return self.train(model, task.data, after_step=round_all)


def _quantized(model: nn.Module) -> list[tuple[str, Quantized]]:
    """Return the quantized layers with their names."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Quantized)]
