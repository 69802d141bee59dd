"""Random, reproducible augmentation of training images: shifts by a few pixels, horizontal flips."""

import torch
from torch import Tensor


def shifted(x: Tensor, by: int, seed: int) -> Tensor:
    """Return images (N, channels, height, width), each shifted by up to `by` pixels along both axes; edges repeat."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randint(0, 2 * by + 1, (len(x), 2), generator=generator) - by
    rows = (moves[:, :1] + torch.arange(x.shape[2])).clamp(0, x.shape[2] - 1)
    columns = (moves[:, 1:] + torch.arange(x.shape[3])).clamp(0, x.shape[3] - 1)
    return x[torch.arange(len(x))[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mirrored(x: Tensor, seed: int) -> Tensor:
    """Return images (N, channels, height, width), about half of them flipped horizontally."""
    swap = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < 0.5
    return torch.where(swap[:, None, None, None], x.flip(3), x)
