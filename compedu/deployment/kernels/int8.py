"""The int8 engine: oneDNN's quantized operators on plain uint8 and int8 tensors. The only file that names them."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial, reduce
from pathlib import Path

import torch
from torch import Tensor

from compedu.deployment.kernels.product import Grid, Product, Window
from compedu.forms import Geometry

NAME = "int8 onednn"
SIMULATED = "simulated"
IMAGE_SIZES = 8  # for which a layer keeps its packed weights
_FLAGS = {"avx512_vnni", "avx_vnni"}  # instructions that accumulate 8-bit products in 32 bits


@dataclass(frozen=True)
class Capability:
    """Which engine runs integer layers on this machine, and why."""

    name: str
    reason: str


@cache
def available() -> Capability:
    """Return whether this machine runs int8 products natively; otherwise "simulated", with the reason.

    Without VNNI the sum of two products saturates at 16 bits: wrong numbers, not only slow ones. Hence the check.
    """
    if not torch.backends.mkldnn.is_available():
        return Capability(SIMULATED, "this build of torch has no oneDNN")
    if not has_vnni():
        return Capability(SIMULATED, f"this {platform.machine()} processor has no VNNI instructions for 8-bit products")
    if not sums_exactly():
        return Capability(SIMULATED, "oneDNN's 8-bit products saturate here: the check with the largest codes failed")
    return Capability(NAME, "VNNI instructions found, and the largest products are exact")


def has_vnni() -> bool:
    """Return whether the processor has instructions that accumulate 8-bit products in 32 bits."""
    if torch.cpu._is_vnni_supported():
        return True
    listing = Path("/proc/cpuinfo")
    return listing.exists() and not _FLAGS.isdisjoint(listing.read_text(encoding="utf-8").split())


def sums_exactly() -> bool:
    """Return whether products of the largest codes are summed without saturation."""
    geometry = Geometry("linear", (16, 64))
    size = 64
    weights = torch.full(geometry.shape, 127, dtype=torch.int8)
    run = OneDNN().product(Product(geometry, weights, torch.ones(1), None, Grid(1.0, 0)))
    return bool((run(torch.full((4, size), 255, dtype=torch.uint8)) == 255 * 127 * size).all())


class OneDNN:
    """Integer products and pooling by oneDNN; activations in channels-last order."""

    name = NAME

    def product(self, p: Product) -> Callable[..., Tensor]:
        """Return the function that runs `p` on uint8 codes; with `p.adds` its second argument may be overwritten."""
        if p.geometry.kind == "linear":
            return _linear(p)
        return _adding_convolution(p) if p.adds else _with_or_without_batch(_convolution(p))

    def max_pool(self, w: Window) -> Callable[[Tensor], Tensor]:
        """Return the function that takes the largest code in each window."""
        pool = torch.ops.quantized.max_pool2d.default
        options = (list(w.kernel), list(w.stride), list(w.padding), list(w.dilation), w.ceil_mode)
        plain = w.padding == (0, 0) and w.dilation == (1, 1) and not w.ceil_mode

        def run(codes: Tensor) -> Tensor:
            # torch's kernel is slow where the channels do not fill its vectors, and on large tensors (up to 8 times).
            sliced = plain and (codes.shape[1] % 32 or codes.numel() >= 2**20)
            return _max_of_slices(codes, w) if sliced else pool(codes, *options)

        return _with_or_without_batch(run)


def _with_or_without_batch(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `run`, which takes images (N, channels, height, width), for a single image as well."""
    return lambda codes: run(codes) if codes.dim() == 4 else run(codes[None])[0]


def _max_of_slices(codes: Tensor, w: Window) -> Tensor:
    """Return the largest code in each window without padding: over the rows of each window, then over its columns."""
    for side in (0, 1):
        count = (codes.shape[side + 2] - w.kernel[side]) // w.stride[side] + 1
        span = (count - 1) * w.stride[side] + 1
        slices = [
            codes[:, :, i : i + span : w.stride[0]] if side == 0 else codes[:, :, :, i : i + span : w.stride[1]]
            for i in range(w.kernel[side])
        ]
        codes = reduce(torch.maximum, slices)
    return codes


def _linear(p: Product) -> Callable[[Tensor], Tensor]:
    multiply = torch.ops.onednn.qlinear_pointwise.default
    weights = torch.ops.onednn.qlinear_prepack(p.codes, None)
    zeros = _zeros(p)
    output = _output(p)
    after = _after(p)

    # oneDNN's operators declare most of their arguments positional: input, its scale and zero-point, weight, its scales
    # and zero-points, bias, the output's scale, zero-point and type, then the fused operation.
    def run(x: Tensor) -> Tensor:
        return multiply(x, p.source.scale, p.source.zero_point, weights, p.scales, zeros, p.bias, *output, *after, "")

    return run


def _convolution(p: Product) -> Callable[[Tensor], Tensor]:
    convolve = torch.ops.onednn.qconv2d_pointwise.default
    operands, settings, after = _convolved(p)

    def run(x: Tensor) -> Tensor:
        return convolve(x, *operands(x), *settings, *after, "")

    return run


def _adding_convolution(p: Product) -> Callable[[Tensor, Tensor], Tensor]:
    convolve = torch.ops.onednn.qconv2d_pointwise.binary
    operands, settings, after = _convolved(p)

    def run(x: Tensor, other: Tensor) -> Tensor:
        other = other.contiguous(memory_format=torch.channels_last)
        return convolve(x, *operands(x), other, *settings, 1.0, 0, "sum", 1.0, *after, "")

    return run


def _convolved(p: Product) -> tuple[Callable[[Tensor], tuple], tuple, tuple]:
    """Return the arguments of oneDNN's convolution: input grid and weight; bias, geometry and output; what is fused.

    The first are a function of the input. An addend comes between the first and the second group.
    """
    grid = (p.source.scale, p.source.zero_point)
    scales = (p.scales, _zeros(p))
    packed = lru_cache(IMAGE_SIZES)(partial(_packed, p))

    def operands(x: Tensor) -> tuple:
        return (*grid, packed(*x.shape[2:]), *scales)

    return operands, (p.bias, *_place(p.geometry), *_output(p)), _after(p)


def _packed(p: Product, height: int, width: int) -> Tensor:
    """Return the weights in the memory layout that the kernel reads for images of this size.

    In any other layout, oneDNN would convert them at each call.
    """
    # Layouts depend on the size of the images, not on their number. But weights whose inputs have a zero-point hold
    # their sums too, and torch keeps oneDNN's answer by shape only, so that one kind would get the layout of the other.
    # Hence each asks with a number of its own.
    images = 2 if p.source.zero_point else 1
    shape = [images, p.geometry.shape[1] * p.geometry.groups, height, width]
    grid = (p.source.scale, p.source.zero_point)
    return torch.ops.onednn.qconv_prepack(p.codes, p.scales, *grid, *_place(p.geometry), shape)


def _place(g: Geometry) -> tuple[list[int], list[int], list[int], int]:
    return list(g.stride), list(g.padding), list(g.dilation), g.groups


def _zeros(p: Product) -> Tensor:
    """Return the zero-points of the weights: all zero, as the grid is symmetric."""
    return torch.zeros(len(p.scales), dtype=torch.int32)


def _output(p: Product) -> tuple[float, int, torch.dtype]:
    return (1.0, 0, torch.float32) if p.target is None else (p.target.scale, p.target.zero_point, torch.uint8)


def _after(p: Product) -> tuple[str, list[float]]:
    """Return the name and arguments of the operation fused with the product."""
    low, high = p.bounds()
    if high is not None:
        return "hardtanh", [low, high]
    return ("none", []) if low is None else ("relu", [])
