"""Small networks that are hard to follow, with weights and batch norms far from anything that would hide an error."""

import torch
import torch.nn.functional as F
from torch import nn

from compedu.forms import Geometry, Masked


class Network(nn.Module):
    """Layers by name and a forward given as a function of (network, x); batch norms are far from the identity."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.body = forward
        generator = torch.Generator().manual_seed(0)
        for tensor in [*self.parameters(), *(b for b in self.buffers() if b.is_floating_point())]:
            tensor.data = torch.rand(tensor.shape, generator=generator) + (0.5 if tensor.dim() == 1 else -0.5)
        self.eval()

    def forward(self, x):
        return self.body(self, x)


def conv(inputs: int, outputs: int, groups: int = 1, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, **options)


def images(channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, 6, 6, generator=torch.Generator().manual_seed(1))


def head(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3))


def plain() -> Network:
    return Network(
        lambda net, x: net.fc(head(net.relu(net.norm(net.second(net.first(x).relu()))))),
        first=conv(3, 8),
        second=conv(8, 6),
        norm=nn.BatchNorm2d(6),
        relu=nn.ReLU(),
        fc=nn.Linear(6, 4),
    )


def masked(layer: nn.Conv2d) -> Masked:
    return Masked(Geometry.of(layer), layer.weight, torch.ones_like(layer.weight, dtype=torch.bool), layer.bias)


STRUCTURES = {
    "residual": (
        lambda net, x: net.fc(head(_residual(net, net.a(x)).relu())),
        {"a": conv(3, 8), "b": conv(8, 5), "c": conv(5, 8), "fc": nn.Linear(8, 4)},
    ),
    "joined, then normalized": (
        lambda net, x: net.fc(head(net.norm(torch.cat([net.a(x), net.b(x)], 1)).relu())),
        {"a": conv(3, 5), "b": conv(3, 7), "norm": nn.BatchNorm2d(12), "fc": nn.Linear(12, 4)},
    ),
    "joined, then added": (
        lambda net, x: net.fc(head(torch.cat([net.a(x), net.b(x)], 1) + net.c(x))),
        {"a": conv(3, 4), "b": conv(3, 5), "c": conv(3, 9), "fc": nn.Linear(9, 4)},
    ),
    "flattened with its places": (
        lambda net, x: net.fc(torch.flatten(F.max_pool2d(net.a(x).relu(), 2), 1)),
        {"a": conv(3, 5), "fc": nn.Linear(45, 4)},
    ),
    "depthwise": (
        lambda net, x: net.c(net.norm(net.b(net.a(x))).relu()),
        {"a": conv(3, 6), "b": conv(6, 6, groups=6), "norm": nn.BatchNorm2d(6), "c": conv(6, 4)},
    ),
    "grouped": (
        lambda net, x: net.c(net.b(net.a(x).relu()).relu()),
        {"a": conv(3, 8), "b": conv(8, 12, groups=4), "c": conv(12, 4)},
    ),
    "grouped behind a join": (
        lambda net, x: net.c(net.g(torch.cat([net.a(x), net.b(x)], 1)).relu()),
        {"a": conv(3, 6), "b": conv(3, 6), "g": conv(12, 8, groups=2), "c": conv(8, 4)},
    ),
    "grouped behind an uneven join": (
        lambda net, x: net.c(net.g(torch.cat([net.a(x), net.b(x)], 1)).relu()),
        {"a": conv(3, 8), "b": conv(3, 4), "g": conv(12, 8, groups=2), "c": conv(8, 4)},
    ),
    "depthwise with a multiplier": (
        lambda net, x: net.c(net.b(net.a(x)).relu()),
        {"a": conv(3, 4), "b": conv(4, 12, groups=4), "c": conv(12, 4)},
    ),
    "fewer outputs than inputs in groups of one": (
        lambda net, x: net.c(net.b(net.a(x)).relu()),
        {"a": conv(3, 8), "b": conv(8, 4, groups=4), "c": conv(4, 5)},
    ),
    "per-channel PReLU": (
        lambda net, x: net.c(net.act(net.a(x))),
        {"a": conv(3, 6), "act": nn.PReLU(6), "c": conv(6, 4)},
    ),
    "squeeze and excitation": (
        lambda net, x: net.c(_excite(net, net.norm(net.a(x)))),
        {"a": conv(3, 8), "norm": nn.BatchNorm2d(8), "down": conv(8, 3), "up": conv(3, 8), "c": conv(8, 4)},
    ),
    "split in two": (
        lambda net, x: net.fc(_sum_of_halves(net, net.a(x).chunk(2, 1))),
        {"a": conv(3, 8), "b": conv(4, 6), "fc": nn.Linear(6, 4)},
    ),
    "flattened and averaged side by side": (
        lambda net, x: net.fc(torch.cat([net.a(x).relu().flatten(1), head(net.a2(x))], 1)),
        {"a": conv(3, 4), "a2": conv(3, 5), "fc": nn.Linear(149, 4)},
    ),
    "shuffled": (
        lambda net, x: net.c(_shuffle(net.a(x)).relu()),
        {"a": conv(3, 8), "c": conv(8, 4)},
    ),
    "halves that go different ways": (
        lambda net, x: net.c(_halves_apart(net, net.a(x).chunk(2, 1)).relu()),
        {"a": conv(3, 8), "b": conv(4, 5), "c": conv(9, 4)},
    ),
    "cut by a size that was asked for": (
        lambda net, x: net.c(_halves_apart(net, _split_in_two(net.a(x))).relu()),
        {"a": conv(3, 8), "b": conv(4, 5), "c": conv(9, 4)},
    ),
    "stacked, then interleaved": (
        lambda net, x: net.c(torch.stack([net.a(x), net.b(x)], 2).flatten(1, 2).relu()),
        {"a": conv(3, 4), "b": conv(3, 4), "c": conv(8, 4)},
    ),
    "side by side in space": (
        lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 3).relu()),
        {"a": conv(3, 5), "b": conv(3, 5), "c": conv(5, 4)},
    ),
    "side by side in space, then flattened": (
        lambda net, x: net.fc(torch.cat([net.a(x), net.b(x)], 3).relu().flatten(1)),
        {"a": conv(3, 5), "b": conv(3, 5), "fc": nn.Linear(360, 4)},
    ),
    "padded in space": (
        lambda net, x: net.c(F.pad(net.a(x), (1, 2, 0, 1)).relu()),
        {"a": conv(3, 5), "c": conv(5, 4)},
    ),
    "weighted by one map": (
        lambda net, x: net.c(_weighted(net, net.a(x))),
        {"a": conv(3, 5), "b": conv(5, 1), "c": conv(5, 4)},
    ),
    "channels last, hidden layer of a transformer": (
        lambda net, x: net.out(_hidden(net, net.norm(net.a(x).flatten(2).transpose(1, 2))).mean(1)),
        {
            "a": conv(3, 8),
            "norm": nn.LayerNorm(8),
            "up": nn.Linear(8, 12),
            "down": nn.Linear(12, 8),
            "out": nn.Linear(8, 4),
        },
    ),
    "reshaped by a size of its own": (
        lambda net, x: net.fc(_folded_back(net.a(x)).mean((2, 3))),
        {"a": conv(3, 8), "fc": nn.Linear(8, 4)},
    ),
    "normalized without scale": (
        lambda net, x: net.c(net.norm(net.a(x)).relu()),
        {"a": conv(3, 6), "norm": nn.BatchNorm2d(6, affine=False), "c": conv(6, 4)},
    ),
    "one channel": (
        lambda net, x: net.c(net.b(net.a(x)).relu()),
        {"a": conv(3, 6), "b": conv(6, 1), "c": conv(1, 4)},
    ),
}


def _residual(net, y):
    return y + net.c(net.b(y).relu())


def _excite(net, y):
    return y * torch.sigmoid(net.up(net.down(y.mean((2, 3), keepdim=True)).relu()))


def _shuffle(y):
    batch, channels, height, width = y.size()
    return y.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(batch, -1, height, width)


def _halves_apart(net, halves):
    return torch.cat([net.b(halves[0].relu()), halves[1]], 1)


def _split_in_two(y):
    return y.split(y.shape[1] // 2, 1)


def _weighted(net, y):
    return y * torch.sigmoid(net.b(y))


def _hidden(net, y):
    return y + net.down(F.dropout(F.gelu(net.up(y)), 0.1, net.training))


def _folded_back(y):
    batch, _, height, width = y.shape
    return y.reshape(batch, -1, height * width).reshape(batch, -1, height, width)


def _sum_of_halves(net, halves):
    return head(net.b(halves[0] + halves[1]).relu())
