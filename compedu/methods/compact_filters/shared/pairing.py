"""Pairs of opposite filters: matched by their cosine, and moved to the positions where a form expects them."""

import torch
from torch import Tensor, nn

from compedu.graph import INPUT, ChannelGroup


def opposite_cosines(weight: Tensor) -> Tensor:
    """Return for each filter of `weight` (out, ...) the cosine to the filter most opposite to it, (out,).

    Near -1 where filters come in pairs of opposite phase (Shang et al. 2016, arXiv:1603.05201, section 2.1).
    """
    return _cosines(weight).amin(1)


def pairing_order(weight: Tensor) -> Tensor:
    """Return an order of the n filters of `weight` in which filter i and filter i + n / 2 are opposites, n even.

    Greedy: the most opposite pair first, then the most opposite pair of the remaining filters.

    >>> pairing_order(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -1.0], [-3.0, 0.1]])).tolist()
    [1, 0, 2, 3]
    """
    cosines = _cosines(weight)
    firsts = []
    seconds = []
    for _ in range(len(weight) // 2):
        first, second = divmod(int(cosines.argmin()), len(weight))
        firsts.append(first)
        seconds.append(second)
        cosines[[first, second]] = cosines[:, [first, second]] = 2.0  # taken: above every cosine
    return torch.tensor(firsts + seconds)


def _cosines(weight: Tensor) -> Tensor:
    """Return the cosines of all pairs of filters, 2 on the diagonal."""
    rows = nn.functional.normalize(weight.detach().flatten(1), dim=1)
    return (rows @ rows.T).fill_diagonal_(2.0)


def can_be_reordered(group: ChannelGroup, layer: str, filters: int) -> bool:
    """Tell whether the filters of `layer` are exactly the channels of `group`, so that any order is possible."""
    made_here = layer in group.producers and torch.equal(group.filters(layer), torch.arange(filters))
    return made_here and group.size == filters


def reorder_channels(model: nn.Module, group: ChannelGroup, order: Tensor) -> None:
    """Put the channels of `group` into `order` in place, in every layer that produces or reads them.

    The network computes the same, up to the order of its sums.
    """
    for member in group.members:
        layer = model.get_submodule(member.layer)
        places = moved_places(member.channels, order)
        with torch.no_grad():
            if member.side == INPUT:
                layer.weight.copy_(layer.weight[:, places])
                continue
            for name in ("weight", "bias", "running_mean", "running_var"):
                tensor = getattr(layer, name, None)
                if tensor is not None:
                    tensor.copy_(tensor[places])


def moved_places(channels: Tensor, order: Tensor) -> Tensor:
    """Return which position each position of a layer's side takes over when channel order[c] replaces channel c.

    `channels[i]` is the channel at position i, or -1 for none of the group; a channel may have several positions, all
    channels equally many (the pixels of a flattened map).

    >>> moved_places(torch.tensor([0, 0, -1, 1, 1]), torch.tensor([1, 0])).tolist()
    [3, 4, 2, 0, 1]
    """
    places = torch.arange(len(channels))
    inside = places[channels >= 0]
    by_channel = inside[channels[inside].argsort(stable=True)].view(len(order), -1)
    places[by_channel.flatten()] = by_channel[order].flatten()
    return places
