"""MUNGE: synthetic images without labels, drawn between each image and its nearest neighbor."""

import torch
from torch import Tensor

from compedu.errors import CompressionError
from compedu.methods.distillation.shared.features import at_least_single

HELD = 2**23  # distances in memory at a time: 32 MB of float32


def nearest_neighbors(x: Tensor) -> Tensor:
    """Return the index (N,) of the nearest other one of `x` (N, ...) for each, by Euclidean distance.

    Distances are computed a block of rows at a time, so that memory grows with N, not with its square; those that are
    equal up to rounding may change places. Raises `CompressionError` for fewer than two.
    """
    if len(x) < 2:
        raise CompressionError(f"a nearest neighbor needs two images or more, got {len(x)}: give more images")
    points = at_least_single(x.flatten(1))
    points = points - points.mean(0)  # distances stay; products of smaller numbers lose fewer digits
    squares = points.square().sum(1)
    rows = max(1, HELD // len(points))
    found = []
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        # |a - b|^2 = |a|^2 - 2 a b + |b|^2, without |a|^2, which is the same for all b
        distances = torch.addmm(squares, block, points.T, alpha=-2)
        place = torch.arange(len(block))
        distances[place, start + place] = torch.inf  # an image is not its own neighbor
        found.append(distances.argmin(1))
    return torch.cat(found)


def munge(x: Tensor, copies: int, exchange: float, divisor: float, patch: int, seed: int) -> Tensor:
    """Return `copies` synthetic images (copies * N, C, H, W) of each of the images `x` (N, C, H, W).

    With probability `exchange`, a patch of `patch` times `patch` pixels takes the values of the nearest neighbor, each
    drawn from a normal distribution around it whose standard deviation is the difference of both images there over
    `divisor`; all other pixels stay. Where both images agree, so do their synthetic ones. Values may leave the range of
    the images; in half precision they are drawn in float32 and rounded. Raises `CompressionError` for a single image.

    The attributes of the paper are pixels here, or patches (Bucila, Caruana, Niculescu-Mizil 2006, Model compression,
    KDD, algorithm MUNGE). The paper changes the neighbor in the same step, within the growing copy; here each image is
    drawn once, from the given ones, so that none depends on their order.
    """
    own = at_least_single(x)
    neighbors = own[nearest_neighbors(x)]
    deviations = (own - neighbors).abs() / divisor
    rows, columns = (torch.arange(size) // patch for size in x.shape[2:])
    generator = torch.Generator().manual_seed(seed)
    made = x.new_empty((copies, *x.shape))
    for copy in made:
        patches = torch.rand(len(x), 1, int(rows[-1]) + 1, int(columns[-1]) + 1, generator=generator)
        exchanged = (patches < exchange)[:, :, rows[:, None], columns]
        drawn = neighbors + deviations * torch.randn(x.shape, generator=generator, dtype=own.dtype)
        copy.copy_(torch.where(exchanged, drawn, own))
    return made.flatten(0, 1)
