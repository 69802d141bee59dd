"""Net2Wider: channels are copied, their readers share the weights out, and the wider network computes the same."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from compedu import hashing
from compedu.graph import ChannelGroup, find_channels
from compedu.knobs import PerLayer, knob, method, seed_knob
from compedu.methods.channel_method import ChannelMethod, example_input
from compedu.methods.task import Task


def widened(size: int, factor: float) -> int:
    """Return the smallest number of channels that is at least `factor` times `size`, with `factor` in decimal.

    >>> widened(10, 1.5), widened(10, 1.1), widened(3, 1.5)
    (15, 11, 5)
    """
    return math.ceil(Fraction(str(factor)) * size)


def copied_channels(size: int, count: int, seed: int, name: str) -> list[int]:
    """Return g of Chen et al. 2016: for each of `count` channels which of the `size` old ones it is.

    The first `size` are themselves, the others are drawn with replacement, by `seed` and the `name` of the group.

    >>> copied_channels(3, 3, 0, "conv1")
    [0, 1, 2]
    """
    drawn = hashing.uniform(count - size, seed, *name.encode()) * size
    return [*range(size), *drawn.long().tolist()]


def later_copies(made_from: Tensor) -> Tensor:
    """Return the places of `made_from` (channels,), integers, at which there is a number that also stands earlier.

    >>> later_copies(torch.tensor([0, 1, 2, 1, 1])).tolist()
    [3, 4]
    """
    first: dict[int, int] = {}
    numbers = made_from.tolist()
    return torch.tensor([place for place, one in enumerate(numbers) if first.setdefault(one, place) != place]).long()


def vary_copies(model: nn.Module, made_from: Mapping[str, Tensor], noise: float, seed: int) -> None:
    """Add normal noise to the weights that make the second and later copies of each channel, in place.

    `made_from` says of each layer which old output each new one is. The standard deviation is `noise` times the root
    mean square of the layer's weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, numbers in made_from.items():
        layer = model.get_submodule(name)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weight = layer.weight.detach()
            copies = later_copies(numbers).to(weight.device)
            drawn = torch.randn(len(copies), *weight.shape[1:], generator=generator).to(weight)
            weight[copies] += noise * weight.square().mean().sqrt() * drawn


@method
class Net2Wider(ChannelMethod):
    r"""Make layers wider by copying channels at random, such that the wider network computes what the given one does.

    $W'_j = W_{g(j)}$ with $g(j) = j$ for the $n$ old channels and drawn from them for the new ones; what reads them
    shares each weight out among the copies, $V'_{kj} = V_{k g(j)} / |\{i : g(i) = g(j)\}|$. Biases and batch
    normalizations are copied; layers that are added get the same copies. Equal copies get equal gradients: without
    dropout, `noise` on all copies but the first lets them differ when the network is trained on, but then it computes
    slightly something else. The network becomes larger: this is the start of a training, not a compression.
    Stored: the wider layers, dense, at full precision.
    Skips: the layers that produce the network's output; layers whose channels cannot be traced, or where the place of
    a copy would be unclear; forms of any kind. A network without model.spec, which gives the size of its images, is
    traced on one image: pass data too.
    Paper: Chen, Goodfellow, Shlens 2016, Net2Net, arXiv:1511.05641.
    """

    family: ClassVar[str] = "distillation"
    identity_settings: ClassVar[dict[str, Any]] = {"factor": 1.0}
    writes: ClassVar[bool] = False

    factor: PerLayer[float] = knob(
        default=1.5,
        help="how many times as many channels each layer gets, rounded up; f everywhere takes about f^2 the weights",
        low=1,
        high=8,
        slider_range=(1, 3),
        per_layer=True,
    )
    noise: float = knob(
        default=0.0,
        help="standard deviation of the noise on the weights of copies, relative to the layer's root mean square",
        low=0,
        high=1,
        slider_range=(0, 0.2),
    )
    seed: int = seed_knob("seed of the choice of channels and of the noise")

    @property
    def amount(self) -> PerLayer[float]:
        """The factor by which layers become wider."""
        return self.factor

    def compress(self, task: Task) -> nn.Module:
        """Copy channels in every group of coupled layers that is selected and can be widened."""
        channels = find_channels(task.source, example_input(task))
        further = (*channels.breaking, *channels.single)  # which cannot lose channels, but have copies
        groups = self.groups(task, channels, further)
        makers = {group.name: group.makers for group in groups}
        choice = {group.name: self.copies(group) for group in groups}
        made, obstacles = channels.choose_possible(task.model, choice)
        for name, reason in obstacles.items():
            del choice[name]
            for maker in makers[name]:
                task.skip(maker.layer, f"its channels cannot be copied: {reason}")
        task.refuse_if_nothing_done(len(choice))
        made = cast(nn.Module, made)
        if self.noise:
            vary_copies(made, channels.made_from(choice), self.noise, self.seed)
        return made

    def copies(self, group: ChannelGroup) -> list[int]:
        """Return for each channel of the wider `group` which of its channels it is."""
        factor = cast(float, self.value(group))  # groups without a value were left out
        return copied_channels(group.size, widened(group.size, factor), self.seed, group.name)
