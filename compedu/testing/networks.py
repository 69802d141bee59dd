"""Small networks of many kinds, and a few images, that the laws try methods on."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compedu.datasets import DATASETS
from compedu.datasets.dataset import Dataset
from compedu.networks import build


@cache
def data() -> Dataset:
    """A few real digits, 28 x 28."""
    return DATASETS["digits"]().shortened(train=96, validation=32, test=32)


def tiny() -> Dataset:
    """A dozen of these digits: for laws that call often."""
    return data().shortened(train=12, validation=8, test=8)


def misfit() -> Dataset:
    """Digits of another size than the networks here take."""
    return DATASETS["digits"](size=19).shortened(train=64, validation=8, test=8)


def lively(model: nn.Module) -> nn.Module:
    """Give batch norms statistics as after training; fresh ones are nearly the identity."""
    generator = torch.Generator().manual_seed(0)
    for norm in [module for module in model.modules() if isinstance(module, _BatchNorm)]:
        nn.init.normal_(norm.running_mean, 0, 0.2, generator)
        nn.init.uniform_(norm.running_var, 0.5, 2.0, generator)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator)
    return model.eval()


def plain() -> nn.Module:
    """A small LeNet-5."""
    return build("lenet5(size=28, width=0.4)", seed=1)


def normalized() -> nn.Module:
    """A network with batch norms and shortcuts."""
    return lively(build("resnet(size=28, width=0.5, blocks=1)", seed=1))


def normalized_linear() -> nn.Module:
    """A network of linear layers with batch norms behind them, which has no spec."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        hidden = nn.Linear(784, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.BatchNorm1d(16)
        return lively(nn.Sequential(nn.Flatten(), *hidden, nn.ReLU(), nn.Linear(16, 10)))


NETWORKS = (plain, normalized, normalized_linear)


class Odd(nn.Module):
    """A network that is none of ours, with layers that few methods can handle."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.grouped = nn.Conv2d(8, 16, 3, groups=2)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.wrapped = nn.Conv2d(16, 8, 3, padding=1, padding_mode="circular")
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.prelu = nn.PReLU(8)
        self.fc = nn.Linear(8, 12)
        self.head = nn.Linear(12, 10)
        self.gain = nn.Parameter(torch.ones(1))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.gain)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.relu(self.grouped(self.relu(self.norm(self.stem(x))))))
        x = self.prelu(self.up(self.wrapped(x))).mean((2, 3))
        return self.head(self.relu(self.fc(x))) * self.gain


class Attentive(nn.Module):
    """A small vision transformer, whose fast path reads weights without calling layers, and a layer read by itself."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 7, 7)
        self.relu = nn.ReLU()
        self.spread = nn.Conv2d(8, 8, 1)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.again = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(self.relu(self.patch(x))).flatten(2).transpose(1, 2)
        x = self.again(self.encoder(x).mean(1))
        return self.head(self.relu(torch.nn.functional.linear(x, self.again.weight, self.again.bias)))


def attentive() -> nn.Module:
    """The same vision transformer at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Attentive().eval()


class Tied(nn.Module):
    """A network in which two layers are one and the same weight."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5, stride=4)
        self.relu = nn.ReLU()
        self.first = nn.Linear(144, 144)
        self.second = nn.Linear(144, 144)
        self.head = nn.Linear(144, 10)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x)).flatten(1)
        return self.head(self.relu(self.second(self.relu(self.first(x)))))
