"""One product timed against another: a circulant matrix by the fast Fourier transform, and the same matrix dense."""

from collections.abc import Callable

import torch

from compedu.deployment.kernels.fourier import FourierLayer
from compedu.forms import BlockCirculant, Geometry
from compedu.metrics.latency import Latency, Timing, time_networks


def time_circulant(side: int, timing: Timing, between: Callable[[], None] = lambda: None) -> Latency:
    """Return the time of a circulant product of `side` by FFT, against the dense product with the same matrix.

    The inputs are `timing.batch_size` vectors drawn from `timing.seed`. O(n log n) against O(n^2) operations (Cheng et
    al. 2015, arXiv:1502.03436, section 3); this shows from which n on they save time as well.
    """
    draw = torch.Generator().manual_seed(timing.seed)
    columns = torch.randn(1, 1, side, generator=draw) / side**0.5
    form = BlockCirculant(Geometry("linear", (side, side)), columns, None)
    x = torch.randn(timing.batch_size, side, generator=draw)
    dense = tuple(form.geometry.layer(form.dense(), None) for _ in range(2))
    return time_networks(FourierLayer(form), x, dense, timing, between)
