"""Inception for small images: narrow branches side by side (Szegedy et al. 2015, arXiv:1409.4842, section 4)."""

import torch
from torch import Tensor, nn

from compedu.networks.width import scaled

# Channels of the branches of each block: 1x1 | 1x1 before 3x3, 3x3 | 1x1 before two 3x3, each 3x3 | 1x1 after pooling.
STAGES = (
    ((16, 16, 24, 8, 12, 12), (24, 24, 32, 12, 16, 16)),
    ((32, 32, 48, 16, 24, 24), (48, 40, 64, 16, 32, 32)),
    ((64, 48, 96, 24, 48, 48), (96, 64, 128, 32, 64, 64)),
)
STEM = 32


class ConvNorm(nn.Sequential):
    """A convolution without bias that keeps the image's size, batch norm, ReLU."""

    def __init__(self, inside: int, out: int, kernel_size: int):
        super().__init__()
        self.conv = nn.Conv2d(inside, out, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()


class Inception(nn.Module):
    """Four branches that read the same feature maps, concatenated: 1x1, 3x3, two 3x3 in place of one 5x5, pooling."""

    def __init__(self, inside: int, maps: tuple[int, ...]):
        super().__init__()
        one, before3, three, before5, five, pooled = maps
        self.one = ConvNorm(inside, one, 1)
        self.three = nn.Sequential(ConvNorm(inside, before3, 1), ConvNorm(before3, three, 3))
        self.five = nn.Sequential(ConvNorm(inside, before5, 1), ConvNorm(before5, five, 3), ConvNorm(five, five, 3))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvNorm(inside, pooled, 1))
        self.channels = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all branches, concatenated along the channels."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


class InceptionNet(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes): a stem, three stages of two Inception blocks."""

    def __init__(self, channels: int, classes: int, width: float):
        super().__init__()
        inside = scaled(STEM, width)
        self.stem = ConvNorm(channels, inside, 3)
        self.pool1 = nn.MaxPool2d(2)
        for stage, blocks in enumerate(STAGES, start=1):
            sequence = []
            for maps in blocks:
                sequence.append(Inception(inside, tuple(scaled(count, width) for count in maps)))
                inside = sequence[-1].channels
            setattr(self, f"stage{stage}", nn.Sequential(*sequence))
        self.pool2 = nn.MaxPool2d(2)
        self.pool3 = nn.MaxPool2d(2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(inside, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        x = self.pool2(self.stage1(self.pool1(self.stem(x))))
        x = self.stage3(self.pool3(self.stage2(x)))
        return self.fc(self.flatten(self.pool(x)))


def inception(size: int = 32, channels: int = 1, classes: int = 10, width: float = 1.0) -> InceptionNet:
    """Return an Inception network of six blocks for images of `size` >= 8 pixels; `width` scales all branches."""
    if size < 8:
        raise ValueError(f"inception.size must be at least 8 (three poolings), got {size}")
    return InceptionNet(channels, classes, width)
