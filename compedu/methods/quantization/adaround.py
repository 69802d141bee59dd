"""AdaRound: whether each weight is rounded up or down is learned, so that the layer's outputs change least."""

import torch
from torch import Tensor

from compedu.forms import Quantized
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.input_moments import InputMoments
from compedu.methods.quantization.shared.calibrated_rounding import CalibratedRounding, Levels

STRETCH = (-0.1, 1.1)  # gamma and zeta of the rectified sigmoid (section 3.3), which thereby reaches 0 and 1
SHARPNESS = (20.0, 2.0)  # beta, from the first to the last step: weights near the middle are decided last
UNDECIDED = 0.2  # share of the steps before any weight is drawn to a side
RATE = 0.05  # Adam's learning rate; the paper's is smaller, for many more steps


def rectified_sigmoid(v: Tensor) -> Tensor:
    """Return h(v) = clip(sigmoid(v) (zeta - gamma) + gamma, 0, 1) (equation 23).

    >>> rectified_sigmoid(torch.tensor([-9.0, 0.0, 9.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    low, high = STRETCH
    return (v.sigmoid() * (high - low) + low).clamp(0, 1)


def start(share: Tensor) -> Tensor:
    """Return v with h(v) = `share`, 0..1: the rounding is then undecided, and the weight the trained one."""
    low, high = STRETCH
    return -((high - low) / (share - low) - 1).log()


def pull(h: Tensor, beta: float) -> Tensor:
    """Return the derivative of 1 - |2 h - 1|^beta, which draws h to 0 or 1 (equation 24)."""
    away = 2 * h - 1
    return -2 * beta * away.sign() * away.abs() ** (beta - 1)


def learned_codes(rows: Tensor, second: Tensor, levels: Levels, steps: int, strength: float) -> Tensor:
    """Return the codes of rows (groups, rows, n), each rounded up or down, for inputs with E[x x^T] = `second`.

    Minimized is E[||(W - W') x||^2], divided by that of rounding to nearest, plus `strength` times the mean of
    1 - |2 h - 1|^beta over the weights of a group (equations 21 and 24). Weights that are undecided at the end, with h
    between 0 and 1, go to the nearer side.
    """
    step = 2 if levels.signs else 1  # between two codes
    position = rows / levels.scale
    down = levels.low if levels.signs else position.floor().clamp(levels.low, levels.high - step)
    v = start(((position - down) / step).clamp(0, 1))
    nearest = rows - levels.values(levels.nearest(rows))
    usual = ((nearest @ second) * nearest).sum((1, 2), keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    adam = torch.optim.Adam([v], lr=RATE)
    for index in range(steps):
        h = rectified_sigmoid(v)
        change = rows - levels.values((down + step * h) * levels.kept)
        along = -2 * (change @ second) * levels.scale * step * levels.kept / usual
        progress = (index / steps - UNDECIDED) / (1 - UNDECIDED)
        if progress >= 0:
            beta = SHARPNESS[1] + (SHARPNESS[0] - SHARPNESS[1]) * (1 - progress)
            along += strength * pull(h, beta) / rows[0].numel()
        inside = (h > 0) & (h < 1)
        slope = v.sigmoid() * (1 - v.sigmoid()) * (STRETCH[1] - STRETCH[0]) * inside
        v.grad = along * slope
        adam.step()
    return (down + step * (rectified_sigmoid(v) >= 0.5)) * levels.kept


@method
class AdaRound(CalibratedRounding):
    r"""Learn for each weight whether it is rounded up or down, so that the outputs of its layer change least.

    $\hat w = s\,(\lfloor w / s \rfloor + h(v))$ with the rectified sigmoid $h$; $v$ minimizes
    $\mathrm{E}[\lVert (W - \hat W) x \rVert^2] + \lambda \sum (1 - |2 h(v) - 1|^\beta)$ over the inputs $x$ of the
    layer, with falling $\beta$, which draws every $h$ to 0 or 1; what is undecided at the end goes to the nearer side.
    The first term is divided by the error of rounding to nearest, the sum by the number of weights. Scales are those
    of the trained weights. A row that comes out no better than by rounding to nearest is rounded to nearest. Batch
    normalization is folded into its layer first.
    Stored: the codes, $b$ bits each; the scales; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; layers that no image reaches, or whose moments take more than
    512 MiB; forms other than masked ones.
    Paper: Nagel, Amjad, van Baalen, Louizos, Blankevoort 2020, Up or down? Adaptive rounding for post-training
    quantization, arXiv:2004.10568, section 3; here with the moments of all calibration images at once, and with the
    inputs of the rounded network on both sides, and without the activation behind the layer.
    """

    bits: PerLayer[int] = inherited(CalibratedRounding, "bits")
    steps: int = knob(default=200, help="steps of Adam for each layer", low=1, slider_range=(50, 2000), log=True)
    strength: float = knob(
        default=30.0,
        help="how strongly each weight is drawn to one of its two levels",
        low=0,
        slider_range=(1, 1000),
        log=True,
    )

    def codes(self, form: Quantized, moments: InputMoments, levels: Levels) -> Tensor:
        """Return the codes of the weights of `form`, (groups, rows, n)."""
        single = levels.changed(lambda tensor: tensor if tensor.dtype == torch.bool else tensor.float())
        rows = moments.rows(form.latent.detach()).float()
        # Only ratios of the moments count. A power of two keeps all their digits within the range of single precision.
        mean = moments.second.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        unit = torch.where(mean > 0, 2.0 ** mean.log2().floor(), torch.ones_like(mean))
        return learned_codes(rows, (moments.second / unit).float(), single, self.steps, self.strength).double()
