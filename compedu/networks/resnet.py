"""The residual network for small images of He et al. (2016, section 4.2, arXiv:1512.03385), 20 layers by default."""

from torch import Tensor, nn

from compedu.networks.width import scaled


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; a 1x1 convolution on the shortcut where the shape changes."""

    def __init__(self, inside: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != out:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; the side is divided by the stride."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes): three stages of `blocks` residual blocks."""

    def __init__(self, channels: int, classes: int, width: float, blocks: int):
        super().__init__()
        maps = [scaled(16 * 2**stage, width) for stage in range(3)]
        self.conv = nn.Conv2d(channels, maps[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(maps[0])
        self.relu = nn.ReLU()
        inside = maps[0]
        for stage, out in enumerate(maps, start=1):
            sequence = []
            for index in range(blocks):
                sequence.append(Block(inside, out, 2 if stage > 1 and index == 0 else 1))
                inside = out
            setattr(self, f"stage{stage}", nn.Sequential(*sequence))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(inside, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        x = self.relu(self.norm(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(self.flatten(self.pool(x)))


def resnet(size: int = 32, channels: int = 1, classes: int = 10, width: float = 1.0, blocks: int = 3) -> ResNet:
    """Return a residual network of 6 * `blocks` + 2 layers for images of any `size`; `width` scales all stages."""
    return ResNet(channels, classes, width, blocks)
