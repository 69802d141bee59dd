"""LeNet-300-100: two hidden linear layers (LeCun et al. 1998, section III; the size that pruning papers use)."""

from torch import Tensor, nn

from compedu.networks.width import scaled


class LeNet300(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes) through 300 and 100 hidden units."""

    def __init__(self, size: int, channels: int, classes: int, width: float):
        super().__init__()
        first = scaled(300, width)
        second = scaled(100, width)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(channels * size * size, first)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(first, second)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(second, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        x = self.relu1(self.fc1(self.flatten(x)))
        return self.fc3(self.relu2(self.fc2(x)))


def lenet300(size: int = 28, channels: int = 1, classes: int = 10, width: float = 1.0) -> LeNet300:
    """Return LeNet-300-100 for images of `size` x `size` pixels; `width` scales the hidden layers."""
    return LeNet300(size, channels, classes, width)
