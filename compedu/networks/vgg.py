"""A VGG network for small images: pairs of 3x3 convolutions with batch norm (Simonyan and Zisserman 2015)."""

from collections import OrderedDict

from torch import Tensor, nn

from compedu.networks.width import scaled

STAGES = (32, 64, 128, 224)  # channels of the four stages at width 1: about one million weights


class VGG(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes); each stage halves the side."""

    def __init__(self, channels: int, classes: int, width: float):
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, maps in enumerate((scaled(maps, width) for maps in STAGES), start=1):
            for step in (1, 2):
                layers[f"conv{stage}_{step}"] = nn.Conv2d(channels, maps, 3, padding=1, bias=False)
                layers[f"norm{stage}_{step}"] = nn.BatchNorm2d(maps)
                layers[f"relu{stage}_{step}"] = nn.ReLU()
                channels = maps
            if stage < len(STAGES):
                layers[f"pool{stage}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        return self.fc(self.flatten(self.pool(self.features(x))))


def vgg(size: int = 32, channels: int = 1, classes: int = 10, width: float = 1.0) -> VGG:
    """Return a VGG network of eight convolutions for images of `size` >= 8 pixels; `width` scales all stages."""
    if size < 8:
        raise ValueError(f"vgg.size must be at least 8 (three poolings), got {size}")
    return VGG(channels, classes, width)
