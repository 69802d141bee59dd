"""Tucker decomposition along the two axes of channels, of one weight or of many at once."""

import torch
from torch import Tensor

from compedu.methods.low_rank.shared.rank import Ranks
from compedu.methods.low_rank.shared.svd import leading

SWEEPS = 10  # of the alternation, at most; the first already comes close
ENOUGH = 1e-7  # relative growth of the cores in a sweep below which it ends


def tucker_2(weights: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Return V (..., C, inputs), the core (..., outputs, inputs, height, width) and U (..., N, outputs).

    The ranks are (inputs, outputs), and the three are in the order of the layers in sequence. weights[n, c] ~
    sum_{a, b} U[n, a] V[c, b] core[a, b] for each of `weights` (..., N, C, height, width), with orthonormal columns in
    U and V. Each is in turn the leading singular vectors while the other stays, so that the error never rises
    (De Lathauwer, De Moor, Vandewalle 2000, On the best rank-1 and rank-(R1, ..., RN) approximation of higher-order
    tensors).
    """
    inputs, outputs = ranks
    v = leading(inputs_gram(weights), inputs)
    held = 0.0  # the square of the cores: what they do not hold is the error
    sweeps = 0
    while True:
        seen = torch.einsum("...nchw,...cb->...nbhw", weights, v)
        u = leading(outputs_gram(seen), outputs)
        v = leading(inputs_gram(torch.einsum("...nchw,...na->...achw", weights, u)), inputs)
        before = held
        held = float(torch.einsum("...nbhw,...na->...abhw", seen, u).square().sum())
        sweeps += 1
        if sweeps == SWEEPS or held <= before * (1 + ENOUGH):
            break
    return v, torch.einsum("...nchw,...na,...cb->...abhw", weights, u, v), u


def inputs_gram(weights: Tensor) -> Tensor:
    """Return the inner products (..., C, C) of the inputs of `weights` (..., N, C, height, width)."""
    return torch.einsum("...nchw,...ndhw->...cd", weights, weights)


def outputs_gram(weights: Tensor) -> Tensor:
    """Return the inner products (..., N, N) of the outputs of `weights` (..., N, C, height, width)."""
    return torch.einsum("...nchw,...mchw->...nm", weights, weights)
