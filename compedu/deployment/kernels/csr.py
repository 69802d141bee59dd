"""Pruned linear layers in compressed sparse rows: only the kept weights are multiplied."""

import warnings

from torch import Tensor, nn

NAME = "float32 CSR sparse"
MAX_DENSITY = 0.1
MIN_WEIGHTS = 2**17


def pays(weight: Tensor) -> bool:
    """Return whether a linear layer with `weight` (out, in) runs sparse: a fixed rule of shape and density.

    Measured on one thread on layers of 2^18 to 2^24 weights (benchmarks/RESULTS.md): at batch 64 they run 1.5 to 2.3
    times as fast as dense ones at 10 % density, and 1.9 to 4.1 times at 5 %. At batch 1, where the call itself costs
    most, 0.6 to 1.2 times at 10 %; from 2^20 weights on they gain at 5 %, below only at 2 %.
    """
    return weight.numel() >= MIN_WEIGHTS and int(weight.count_nonzero()) <= MAX_DENSITY * weight.numel()


class SparseLinear(nn.Module):
    """A linear layer with its weight (out, in) in compressed sparse rows; inputs (..., in) to outputs (..., out)."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        with warnings.catch_warnings():
            # torch warns once in each process that the layout is a beta feature.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
            self.rows = weight.detach().to_sparse_csr()
        self.bias = None if bias is None else bias.detach().clone()

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output for `input`."""
        columns = input.reshape(-1, input.shape[-1]).t()
        y = (self.rows @ columns).t().reshape(*input.shape[:-1], -1)
        return y if self.bias is None else y + self.bias
