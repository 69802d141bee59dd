"""The same integer arithmetic in floating point: the reference for tests, and the fallback on other processors."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from compedu.deployment.kernels.product import Product, Window


class Simulated:
    """Integer products with sums in `dtype`: exact in float64, and in float32 up to sums of 2^24.

    Everything after the sum is float32 in the engine's order, so that its codes come out equal: times the input's
    scale, times the weight's scale, plus bias, plus values, clipped, rounded half to even.
    """

    def __init__(self, dtype: torch.dtype = torch.float32):
        self.dtype = dtype
        self.name = f"simulated int8, {str(dtype).removeprefix('torch.')} arithmetic"

    def product(self, p: Product) -> Callable[..., Tensor]:
        """Return the function that runs `p` on uint8 codes, with `p.adds` on a second argument too."""
        weights = p.codes.to(self.dtype)
        per_channel = (-1, *[1] * (len(p.geometry.shape) - 2))
        scales = p.scales.reshape(per_channel)
        bias = None if p.bias is None else p.bias.reshape(per_channel)
        low, high = p.bounds()

        def run(x: Tensor, other: Tensor | None = None) -> Tensor:
            sums = p.geometry.apply(x.to(self.dtype) - p.source.zero_point, weights, None)
            y = sums.to(torch.float32) * p.source.scale * scales
            y = y if bias is None else y + bias
            y = y if other is None else y + other
            y = y if low is None and high is None else y.clamp(low, high)
            return y if p.target is None else p.target.rounded(y)

        return run

    def max_pool(self, w: Window) -> Callable[[Tensor], Tensor]:
        """Return the function that takes the largest code in each window."""

        def run(codes: Tensor) -> Tensor:
            return F.max_pool2d(codes.float(), w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode).to(torch.uint8)

        return run
