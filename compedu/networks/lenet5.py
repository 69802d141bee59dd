"""LeNet-5 as pruning papers use it: 20 and 50 feature maps, 500 hidden units (Han et al. 2015, section 4.1)."""

from torch import Tensor, nn

from compedu.networks.width import scaled


class LeNet5(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes): two 5x5 convolutions, two linear layers."""

    def __init__(self, size: int, channels: int, classes: int, width: float):
        super().__init__()
        maps1 = scaled(20, width)
        maps2 = scaled(50, width)
        hidden = scaled(500, width)
        side = ((size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(channels, maps1, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(maps1, maps2, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(maps2 * side * side, hidden)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        return self.fc2(self.relu3(self.fc1(self.flatten(x))))


def lenet5(size: int = 28, channels: int = 1, classes: int = 10, width: float = 1.0) -> LeNet5:
    """Return LeNet-5 for images of `size` x `size` pixels (16 or more); `width` scales channels and hidden units."""
    if size < 16:
        raise ValueError(f"lenet5.size must be at least 16 (two 5x5 convolutions and two poolings), got {size}")
    return LeNet5(size, channels, classes, width)
