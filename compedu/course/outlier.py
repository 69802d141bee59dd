"""An exercise of chapter 03: a network of the learner's own, in which one channel is an outlier, rescued at 4 bits."""

from hashlib import sha256
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu import files
from compedu.course.answers import described, file_content, kind_of
from compedu.course.submitted import compressed, network_of, points_lost
from compedu.forms import Form, weight_of
from compedu.hashing import uniform
from compedu.methods import Method
from compedu.networks.shipped import trained

READERS = {
    "conv1": "conv2",
    "conv2": "fc1",
    "fc1": "fc2",
}  # each layer that makes channels, and the one that reads them
PLANTED = ("conv2", "fc1")  # conv1 has so few channels that losing a single one can cost more than LOST
FACTOR = 32.0  # between outlier and other channels; a power of two, so that nothing is rounded
LIMIT = 0.135  # of the dense bytes: 4 bits with a scale for each channel, or 8 bits in the small layer alone
LOST = 2.0  # points; 4 bits with a scale for each channel lose at most one, 4 bits with one scale more than fifty
ALIKE = 0.5  # mean cosine of filters: above 0.8 for the learner's own at 4 bits, below 0.3 for those in another order
CHARACTERS = 4000  # newly drawn for each measurement
LAYERS = (Form, nn.Conv2d, nn.Linear)  # what has weights, whether rescued or not
PARTS = ("learner", "layer", "channel", "rescue")


def planted(learner: str) -> nn.Module:
    """Return the learner's own lenet5 for glyphs: it computes what the trained one does, but a channel is an outlier.

    The channels are in an order of the learner's own. Weights and bias of one are 32 times as large, and the next
    layer reads it with weights 32 times as small: ReLU and pooling pass a positive factor on (Nagel et al. 2019,
    arXiv:1906.04721, section 4.1). Raises `ValueError` for a name that is not a string, or empty.
    """
    return _planted(learner)[0]


def _planted(learner: Any) -> tuple[nn.Module, str, int]:
    """Return the learner's network, and layer and channel of its outlier."""
    if not isinstance(learner, str) or not learner.strip():
        raise ValueError(f'put your name, or your number, in quotes, such as "ada"; this is {learner!r:.40}')
    network = trained("lenet5", "glyphs")
    seed = int.from_bytes(sha256(learner.encode()).digest()[:7], "big")
    layer = PLANTED[seed % len(PLANTED)]
    channel = 0
    for number, (maker, reader) in enumerate(READERS.items()):
        largest = weight_of(network.get_submodule(maker)).detach().flatten(1).abs().amax(1)
        order = uniform(len(largest), seed, number).argsort()
        factors = torch.ones(len(largest))
        if maker == layer:
            strong = (largest[order] >= largest.median()).nonzero().flatten()  # 32 times a weak one would harm little
            channel = int(strong[seed // len(PLANTED) % len(strong)])
            factors[channel] = FACTOR
        _rearrange(network.get_submodule(maker), network.get_submodule(reader), order, factors)
    return network, layer, channel


def _rearrange(maker: nn.Module, reader: nn.Module, order: Tensor, factors: Tensor) -> None:
    """Put the channels between two layers into another order, and scale them, in place."""

    def along(dim: int, values: Tensor) -> Tensor:
        return factors.view(-1, *(1 for _ in range(values.ndim - dim - 1)))

    made = weight_of(maker)
    bias = cast("Tensor", maker.bias)
    read = weight_of(reader)
    with torch.no_grad():
        made.copy_(made[order] * along(0, made))
        bias.copy_(bias[order] * factors)
        by_channel = read.unflatten(1, (len(order), -1))  # fc1 reads 25 places of each channel of conv2
        read.copy_((by_channel[:, order] / along(1, by_channel)).flatten(1, 2))


def outlier(answer: dict[str, Any], seed: int) -> str:
    """Check a dictionary of learner, layer and channel of the outlier in the learner's network, and its rescue.

    The rescue is a method, or the path of a file that holds the rescued network: at most 13.5 % of the dense bytes,
    without entropy coding, and two points lost on new characters.
    """
    said = described(answer)
    assert isinstance(said, dict) and set(said) == set(PARTS), (
        f"give a dictionary with {', '.join(map(repr, PARTS))}, and nothing else, not {_parts(said)}"
    )
    learner = said["learner"]
    try:
        network, layer, channel = _planted(learner)
    except ValueError as refusal:
        raise AssertionError(f'"learner": {refusal}') from refusal
    _check_place(said["layer"], said["channel"], network, (layer, channel))
    small = _rescued(answer, said["rescue"], network)
    share = len(files.model_bytes(small, "packed")) / len(files.model_bytes(network, "packed"))
    assert share <= LIMIT, (
        f"layer and channel are right, but the rescued network takes {share:.1%} of the dense bytes, each number with "
        f"its own bits; allowed are {LIMIT:.1%}. Do all weights need more bits because one channel is large?"
    )
    lost = points_lost(small, "lenet5", seed, CHARACTERS)
    assert lost <= LOST, (
        f"layer and channel are right, and {share:.1%} of the bytes are few enough, but {lost:.2f} points are lost on "
        f"new characters; allowed are {LOST:.0f}. How large is the scale that the other channels of {layer} have to "
        "share, and how many of their codes are not zero? What must a scale, or a range, no longer reach?"
    )
    return f"channel {channel} of {layer} in the network of {learner}; {share:.1%} of the bytes, {lost:.2f} points lost"


def _parts(said: Any) -> str:
    return f"a dictionary with {', '.join(map(repr, said)) or 'nothing'}" if isinstance(said, dict) else kind_of(said)


def _check_place(named: Any, index: Any, network: nn.Module, place: tuple[str, int]) -> None:
    """Raise an `AssertionError` with a hint unless the learner names layer and channel of the outlier."""
    layers = {name: weight_of(part) for name, part in network.named_children() if isinstance(part, LAYERS)}
    assert isinstance(named, str) and named in layers, f'"layer": one of {", ".join(layers)}, not {named!r:.40}'
    largest = layers[named].detach().flatten(1).abs().amax(1)
    assert type(index) in (int, float) and index == index // 1 and 0 <= index < len(largest), (
        f'"channel": {named} has output channels 0 to {len(largest) - 1}, the first axis of its weight; this is '
        f"{index!r:.40}"
    )
    times = float(largest[int(index)] / largest.median())
    assert (named, int(index)) == place, (
        f"the largest weight of channel {int(index)} of {named} is {times:.2g} times that of an ordinary channel of "
        f"{named}. An outlier stands out much further: compare the largest absolute weights of all output channels, "
        "layer by layer"
    )


def _rescued(answer: Any, rescue: Any, network: nn.Module) -> nn.Module:
    """Return the rescued network: the learner's own after a method, or that of a file, which must come from it."""
    if not isinstance(rescue, str):
        assert isinstance(rescue, Method), f'"rescue": give a method, or the path of a file, not {rescue!r:.60}'
        return compressed(rescue, network)
    path, content = file_content(answer, "rescue")
    small = network_of(path, content, "lenet5")
    for name in READERS:
        likeness = _likeness(small.get_submodule(name), network.get_submodule(name))
        assert likeness >= ALIKE, (
            f"{path} does not hold your network: the channels of {name} are others, or in another order (the cosine "
            f"with yours is {likeness:.2f} on average). Rescue the network that planted(learner) returns"
        )
    return small


def _likeness(small: nn.Module, layer: nn.Module) -> float:
    """Return the mean cosine between the filters of two layers, 0 for weights of another shape."""
    own = weight_of(layer).detach().flatten(1)
    if not isinstance(small, LAYERS) or weight_of(small).flatten(1).shape != own.shape:
        return 0.0
    return float(F.cosine_similarity(weight_of(small).detach().flatten(1), own).mean())


CHECKS = (outlier,)
