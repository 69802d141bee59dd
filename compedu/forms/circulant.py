"""Products with block-circulant weights in the frequency domain, where each circulant block is diagonal."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compedu.forms.form import Geometry


def padded(size: int, block: int) -> int:
    """Return `size` rounded up to a multiple of `block`."""
    return -(-size // block) * block


def circulant_index(block: int) -> Tensor:
    """Return the (block, block) table of (i - j) mod block: which entry of the first column is at (i, j)."""
    steps = torch.arange(block)
    return (steps[:, None] - steps[None, :]) % block


def frequency_weight(columns: Tensor, geometry: Geometry) -> Tensor:
    """Return the weight for the transformed input: one real matrix for each of f = block // 2 + 1 frequencies.

    `columns` (p, q * places, block) are the first columns of the blocks, p rows of q blocks at each kernel position.
    A complex product is a real one on pairs, so a linear layer gets (f, 2q, 2p), a convolution
    (f * 2p, 2q, kernel height, kernel width): one group for each frequency. Half precision becomes single.
    """
    spectrum = torch.fft.rfft(columns.to(transformable(columns.dtype)))
    window = geometry.shape[2:]
    # The transform of a circulant matrix is diagonal (Cheng et al. 2015, section 3): its entries are the transform of
    # the first column. A real column has a symmetric one, of which f = block // 2 + 1 entries suffice.
    # Reordered to f, p, window, q.
    spectrum = spectrum.reshape(len(columns), *(window or (1,)), -1, spectrum.shape[-1]).movedim(-1, 0)
    real = spectrum.real
    imaginary = spectrum.imag
    # (a + ib)(x + iy) = (ax - by) + i(bx + ay): one row for the real output, one for the imaginary.
    rows = torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)
    weight = torch.cat(rows, 1).movedim(-1, 2)  # f, 2p, 2q, window
    return (
        weight.flatten(2).transpose(1, 2).contiguous()
        if geometry.kind == "linear"
        else weight.flatten(0, 1).contiguous()
    )


def frequency_product(x: Tensor, weight: Tensor, geometry: Geometry, block: int) -> Tensor:
    """Return the layer's output without bias: transform, product at each frequency, transform back.

    `x` is (..., in) or (N, in, height, width), `weight` from `frequency_weight`. The transform runs over the channels,
    so that each pixel of an image is transformed once, however many kernel positions read it.
    """
    given = x.dtype
    out = geometry.shape[0]
    places = (0, 0) * (len(geometry.shape) - 2)
    channels = -1 if geometry.kind == "linear" else 1
    x = F.pad(x.to(weight.dtype), (*places, 0, padded(geometry.shape[1], block) - geometry.shape[1]))
    spectrum = torch.view_as_real(torch.fft.rfft(x.unflatten(channels, (-1, block)), dim=2 if channels == 1 else -1))
    product = _linear if geometry.kind == "linear" else _convolution
    return product(spectrum, weight, geometry, block).to(given).narrow(channels, 0, out)


def _linear(spectrum: Tensor, weight: Tensor, geometry: Geometry, block: int) -> Tensor:
    """Multiply (..., q, f, 2) by (f, 2q, 2p) and transform back: (..., p * block)."""
    lead = spectrum.shape[:-3]
    pairs = spectrum.flatten(0, -4) if lead else spectrum.unsqueeze(0)  # n, q, f, 2
    y = torch.bmm(pairs.permute(2, 0, 3, 1).flatten(2), weight)  # f, n, 2p
    complex_y = torch.view_as_complex(y.unflatten(2, (2, -1)).permute(1, 3, 0, 2).contiguous())  # n, p, f
    return torch.fft.irfft(complex_y, n=block).reshape(*lead, -1)


def _convolution(spectrum: Tensor, weight: Tensor, geometry: Geometry, block: int) -> Tensor:
    """Convolve (N, q, f, height, width, 2) with (f * 2p, 2q, ...) by groups and transform back: (N, p * block, ...)."""
    frequencies = spectrum.shape[2]
    pairs = spectrum.permute(0, 2, 5, 1, 3, 4).flatten(1, 3)  # N, f * 2 * q, height, width
    y = F.conv2d(pairs, weight, None, geometry.stride, geometry.padding, geometry.dilation, groups=frequencies)
    y = y.unflatten(1, (frequencies, 2, -1)).permute(0, 3, 1, 4, 5, 2).contiguous()  # N, p, f, height, width, 2
    return torch.fft.irfft(torch.view_as_complex(y), n=block, dim=2).flatten(1, 2)


def transformable(dtype: torch.dtype) -> torch.dtype:
    """Return the precision to transform in: torch has no transform in half precision."""
    return torch.promote_types(dtype, torch.float32)
