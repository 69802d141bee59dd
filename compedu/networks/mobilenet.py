"""MobileNet for small images: depthwise and pointwise convolutions in turn (Howard et al. 2017, arXiv:1704.04861)."""

from torch import Tensor, nn

from compedu.networks.width import scaled

STEM = 32
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1), (512, 2), (512, 1))  # channels, stride


class Separable(nn.Module):
    """A depthwise 3x3 convolution, then a 1x1 convolution over all channels; batch norm and ReLU after both."""

    def __init__(self, inside: int, out: int, stride: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False)
        self.norm1 = nn.BatchNorm2d(inside)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(inside, out, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; the side is divided by the stride."""
        x = self.relu1(self.norm1(self.depthwise(x)))
        return self.relu2(self.norm2(self.pointwise(x)))


class MobileNet(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes): a stem and eight separable blocks."""

    def __init__(self, channels: int, classes: int, width: float):
        super().__init__()
        inside = scaled(STEM, width)
        self.conv = nn.Conv2d(channels, inside, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(inside)
        self.relu = nn.ReLU()
        sequence = []
        for maps, stride in BLOCKS:
            sequence.append(Separable(inside, scaled(maps, width), stride))
            inside = scaled(maps, width)
        self.blocks = nn.Sequential(*sequence)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(inside, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        x = self.blocks(self.relu(self.norm(self.conv(x))))
        return self.fc(self.flatten(self.pool(x)))


def mobilenet(size: int = 32, channels: int = 1, classes: int = 10, width: float = 1.0) -> MobileNet:
    """Return a MobileNet of eight separable blocks for images of any `size`; `width` scales all layers."""
    return MobileNet(channels, classes, width)
