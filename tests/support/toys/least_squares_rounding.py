"""Least-squares rounding: weights are rounded one after the other, and those that follow make up for the error."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import Skip
from compedu.forms import Geometry, Quantized
from compedu.knobs import knob, method
from compedu.methods.calibrated_method import CalibratedMethod
from compedu.methods.input_moments import InputMoments


def rounded_in_order(rows: Tensor, scale: Tensor, top: int, hessian: Tensor) -> Tensor:
    """Return the codes of `rows` (rows, n) for a `scale` (rows, 1), each column rounded after those before it.

    The columns that are left minimize the error d^T H d given those that are rounded, `hessian` is H (n, n): the upper
    Cholesky factor of its inverse holds what they need (Frantar, Alistarh 2022, arXiv:2208.11580; GPTQ of Frantar et
    al. 2022, arXiv:2210.17323, section 3).
    """
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    rows = rows.clone()
    codes = torch.empty_like(rows)
    for place in range(rows.shape[1]):
        codes[:, place] = torch.round(rows[:, place] / scale[:, 0]).clamp(-top, top)
        error = (rows[:, place] - codes[:, place] * scale[:, 0]) / factor[place, place]
        rows[:, place:] -= error[:, None] * factor[place, place:]
    return codes


@method
class LeastSquaresRounding(CalibratedMethod):
    r"""Round weights in order, where those that follow make up for the error at what the layer gives.

    $\min_{\hat w}\; (\hat w - w)(\mathrm{E}[x x^\top] + \lambda I)(\hat w - w)^\top$ over the weights that are not
    rounded yet, after each that is.
    Stored: the codes and the scale of each output.
    Skips: layers that are not linear or convolutional; layers that no image reaches or that read zeros alone; forms.
    Paper: none; made for a test, after Frantar et al. 2022, GPTQ, arXiv:2210.17323.
    """

    family: ClassVar[str] = "quantization"

    bits: int = knob(default=4, help="bits of a weight", low=2, high=8, slider_range=(2, 8))
    damping: float = knob(
        default=0.01,
        help="added to the moments, as a fraction of their mean diagonal",
        low=1e-4,
        high=10,
        slider_range=(1e-3, 1),
        log=True,
    )

    def compress_calibrated(self, name: str, layer: nn.Module, moments: InputMoments) -> Quantized:
        """Return the layer with rounded weights."""
        level = moments.second.diagonal(dim1=1, dim2=2).mean()
        if not level > 0:
            raise Skip("reads zeros alone, so that nothing says which error counts")
        hessians = moments.second + self.damping * level * torch.eye(moments.second.shape[-1])
        top = 2 ** (self.bits - 1) - 1
        rows = moments.rows(layer.weight.detach()).double()
        scales = (rows.abs().amax(2, keepdim=True) / top).float().double()
        scales = torch.where(scales > 0, scales, 1)
        codes = torch.stack([rounded_in_order(r, s, top, h) for r, s, h in zip(rows, scales, hessians, strict=True)])
        geometry = Geometry.of(layer)
        weight, scale = (codes * scales).view(geometry.shape), scales.view(geometry.per_output)
        return Quantized(geometry, weight.to(layer.weight.dtype), scale.float(), self.bits, layer.bias)
