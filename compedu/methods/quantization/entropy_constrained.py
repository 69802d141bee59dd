"""Entropy-constrained quantization: codes that cost few bits after entropy coding, for little rise of the loss."""

import math
import sys
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from compedu.datasets.objectives import CLASSIFICATION
from compedu.errors import CompressionError, Skip
from compedu.evaluation import refuse_misfit, refuse_probabilities
from compedu.forms import Form, Geometry, Masked, Quantized, mask_of, precise, weight_of
from compedu.forms.quantized import MOST_BITS, top_code
from compedu.graph.copying import inference_copy
from compedu.knobs import knob, method, seed_knob
from compedu.methods.calibration import calibration_knob, calibration_set
from compedu.methods.curvature import UNREACHED, curvature_diagonals, curvature_knob
from compedu.methods.last_result import last_result
from compedu.methods.layer_method import LayerByLayer
from compedu.methods.layers import compressible
from compedu.methods.quantization.shared.folding import fold
from compedu.methods.task import Task

KILOBYTE = 8000  # bits
ROUNDS = 50  # of choosing codes and counting them, at most
SETTLED = 1e-3  # share of the codes that still change in a round after which there is no other
NEARER = 3  # codes towards zero that a weight may take instead of the nearest one, besides zero


def best_step(curvature: float, price: float) -> float:
    """Return the step at which a finer one would save as much loss as it costs in bits, at `price` nats per bit.

    At a fine step, n weights of mean `curvature` h lose n h step^2 / 24 by rounding, and take n log2(1 / step) bits
    more or less (Gish, Pierce 1968, Asymptotically efficient quantizing): the derivatives are equal at
    step^2 = 12 price / (h ln 2).
    """
    return math.sqrt(12 * price / (curvature * math.log(2)))


def code_costs(codes: Tensor, top: int) -> Tensor:
    """Return the bits of each code from -`top` to `top` by its share in `codes`, (2 top + 1,).

    Each is counted once more than it occurs, so that one that does not occur costs many bits, but not infinitely many.
    """
    counts = torch.bincount((codes + top).reshape(-1), minlength=2 * top + 1).double() + 1
    return counts.sum().log2() - counts.log2()


def constrained_codes(steps: Tensor, losses: Tensor, price: float, top: int) -> Tensor:
    """Return integer codes of `steps` (n,), in -`top`..`top`, that cost little: losses (code - step)^2 + price bits.

    Choosing the codes for given bits and counting the bits for given codes take turns; neither raises the sum (Chou,
    Lookabaugh, Gray 1989, Entropy-constrained vector quantization). A weight takes the nearest code, one of the next
    few towards zero, the one beyond, or zero.
    """
    nearest = steps.round().clamp(-top, top)
    codes = nearest.long()
    for _ in range(ROUNDS):
        bits = code_costs(codes, top)
        least = losses.new_full(losses.shape, math.inf)
        chosen = codes
        for towards in (*range(-1, NEARER + 1), top):
            tried = steps.sign() * (nearest.abs() - towards).clamp(0, top)
            cost = losses * (tried - steps) ** 2 + price * bits[tried.long() + top]
            better = cost < least
            least = torch.where(better, cost, least)
            chosen = torch.where(better, tried.long(), chosen)
        moved = float((chosen != codes).double().mean()) if codes.numel() else 0.0
        codes = chosen
        if moved < SETTLED:
            break
    return codes


@method
class EntropyConstrainedQuantization(LayerByLayer):
    r"""Round weights so that loss and entropy-coded bytes together are least, at one exchange rate for all layers.

    Minimized is $\tfrac{1}{2} \sum_i h_i (w_i - s\,q_i)^2 - \lambda \sum_i \log_2 p(q_i)$ with the curvature $h_i$ of
    the loss along each weight and the share $p(q)$ of each code in its layer. $\lambda$ is `price`, per bit; the step
    of a layer follows from it and the layer's mean curvature, $s^2 = 12 \lambda / (\bar h \ln 2)$, so that no layer
    could give bits to another with a gain; but it is at most the largest weight, which codes of 16 bits must
    reach. Codes of weights that matter little move towards more frequent ones. `damping` adds a share of $\bar h$ to
    each $h_i$ first: a trained network's loss hardly changes along single weights, and rises along many together. At a
    high price all codes of a layer may become 0. Batch normalization is folded into its layer first.
    Stored: the codes, entropy-coded; one scale for each layer; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; layers that no image reaches; forms other than masked ones.
    Paper: Choi, El-Khamy, Lee 2017, Towards the limit of network quantization, arXiv:1612.01543, sections 3 and 4; here
    with evenly spaced levels, which the paper finds near the optimum (section 4.2), and a step for each layer.
    """

    family: ClassVar[str] = "quantization"
    accepts: ClassVar[tuple[type[Form], ...]] = (Masked,)
    writes: ClassVar[bool] = False

    price: float = knob(
        default=1e-7,
        help="how much the loss may rise for each kilobyte that the codes get shorter",
        low=0,
        high=1e3,
        open="low",
        slider_range=(1e-9, 1e-4),
        log=True,
        unit="nats",
    )
    damping: float = knob(
        default=0.3,
        help="added to the curvature of each weight, as a share of the mean of its layer",
        low=0,
        high=1e3,
        slider_range=(0, 1),
    )
    calibration_images: int = calibration_knob("training images that the curvature of the loss is measured on")
    curvature: str = curvature_knob()
    seed: int = seed_knob("seed of the choice of training images and of the sampled labels")

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: the curvature is that of the cross entropy."""
        return (CLASSIFICATION,)

    @property
    def needs(self) -> str:
        """Training images, for the curvature."""
        return "calibration"

    def compress(self, task: Task) -> nn.Module:
        """Fold batch norm, then choose the codes of each layer."""
        fold(task)
        refuse_misfit(task.model, task.data)
        refuse_probabilities(task.model, task.data)
        self.curvatures(task)
        return LayerByLayer.compress(self, task)

    def curvatures(self, task: Task) -> dict[str, Tensor]:
        """Return the curvature of the loss along each weight of the folded network, measured once for a network."""
        key = (task.digest, task.data.digest, self.calibration_images, self.curvature, self.seed)

        def measure() -> dict[str, Tensor]:
            x, y = calibration_set(task.data, self.calibration_images, self.seed)
            model = inference_copy(task.model)
            layers = {name: layer for name, layer in compressible(model)[0].items() if not self.obstacle(layer)}
            return curvature_diagonals(model, layers, x, y, self.curvature, self.seed)

        return last_result(task.source, "curvatures for codes", key, measure, largest=sys.maxsize)

    def form_for(self, task: Task, name: str, layer: nn.Module) -> Quantized:
        """Return the layer with the codes that cost least."""
        curvature = self.curvatures(task).get(name)
        if curvature is None:
            raise Skip(UNREACHED)
        if not bool(curvature.isfinite().all()):
            raise CompressionError(
                f"the curvature of the loss along the weights of layer {name!r} is not finite on the images of "
                f"{task.data.name!r}: look for an operation that grows without bound, or for images that do"
            )
        weight = weight_of(layer).detach()
        mask = mask_of(layer)
        kept = weight[mask].double()
        curvature = curvature[mask].double()
        curvature = curvature + self.damping * curvature.mean()
        scale = precise(weight).new_tensor(self.step(kept, curvature))
        steps = kept / scale
        losses = curvature * scale.double() ** 2 / 2
        codes = constrained_codes(steps, losses, self.price / KILOBYTE, int(largest(steps).ceil()))
        bits = next(bits for bits in range(2, MOST_BITS + 1) if top_code(bits) >= int(largest(codes)))
        rounded = torch.zeros_like(weight)
        rounded[mask] = (codes * scale).to(weight.dtype)
        bias = cast("Tensor | None", layer.bias)
        return Quantized(Geometry.of(layer), rounded, scale, bits, bias, mask)

    def step(self, kept: Tensor, curvature: Tensor) -> float:
        """Return the step for the `kept` weights of a layer: at most the largest of them, which 16 bits must reach."""
        end = float(largest(kept))
        if end == 0:
            return 1.0  # no weights, or zeros alone: the code is 0 whatever the step
        mean = float(curvature.mean())
        if mean == 0:
            raise Skip("the loss does not change with its weights on the training images, so no step can be chosen")
        return min(max(best_step(mean, self.price / KILOBYTE), end / (top_code(MOST_BITS) - 1)), end)


def largest(values: Tensor) -> Tensor:
    """Return the largest absolute value, 0 if there is none."""
    return values.abs().amax() if values.numel() else values.new_zeros(())
