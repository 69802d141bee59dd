"""Checks of chapter 02: bytes of gaps, channels removed through batch norms and a shortcut, a small file that works."""

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor, nn

from compedu import files
from compedu.course.answers import called, file_content, kind_of, number
from compedu.course.hints import refuse_other_names
from compedu.course.submitted import network_of, points_lost
from compedu.files.gaps import to_gaps
from compedu.forms import Form, outside_forms, weight_of
from compedu.networks.shipped import trained
from compedu.reproducible import seeded

LIMIT = 0.1  # of the dense file: magnitude pruning alone, by LAMP, loses more than a point there
LEFT = 0.25  # of the weights: without this limit, low rank and few bits would pass without any pruning
CHARACTERS = 4000  # newly drawn for each measurement of a file


def gap_bytes(function: Callable[[int, float, int], float], seed: int) -> str:
    """Check a function (places, density, bits) -> bytes of the gaps, fillers included, of weights at random places."""
    rng = np.random.default_rng(seed)
    drawn = ((0.008, 0.012, 4), (0.04, 0.06, 5), (0.08, 0.12, 4), (0.27, 0.33, 3), (0.15, 0.2, 2))
    for least, most, bits in drawn:
        places = int(rng.integers(200_000, 400_000))
        density = round(rng.uniform(least, most), 4)
        kept = np.sort(rng.permutation(places)[: round(places * density)])
        written = len(to_gaps(kept, bits)) * bits / 8
        told = number(function, places, density, bits)
        assert abs(told - 8 * written) > 0.24 * written, (
            f"you say {told:,.0f}: are these bits? Give bytes, of eight bits each"
        )
        assert abs(told - written) <= 0.03 * written, (
            f"{places:,} places, {density:.2%} of them kept, gaps of {bits} bits: the file has "
            f"{'more' if written > told else 'fewer'} bytes than the {told:,.0f} that you say. How long a gap fits "
            f"into {bits} bits when the code of all ones is a filler, and what bridges the longer ones? After a "
            "filler another one may be needed"
        )
    return "one code for each kept weight, and the fillers, of which a sparse layer needs many"


class Bypassed(nn.Module):
    """A small residual network: a stem, a block of two convolutions that a shortcut bypasses, a classifier.

    The channels of the stem and those of the block's second convolution are added.
    """

    def __init__(self, maps: int, inside: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(1, maps, 3, padding=1)
        self.norm = nn.BatchNorm2d(maps)
        self.conv1 = nn.Conv2d(maps, inside, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, maps, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(maps)
        self.fc = nn.Linear(maps, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 4) of images (N, 1, height, width)."""
        x = self.norm(self.stem(x)).relu()
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return self.fc((x + y).relu().mean((2, 3)))


def bypassed(maps: int = 6, inside: int = 5, seed: int = 6) -> Bypassed:
    """Return the small residual network in float64, with batch norms as after training."""
    with seeded(seed):
        network = Bypassed(maps, inside)
        for norm in (network.norm, network.norm1, network.norm2):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(tensor, 0.3, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network.double().eval()


def tensors_of(network: Bypassed) -> dict[str, Tensor]:
    """Return the weights, biases, scales, shifts and statistics of a network by name."""
    return {name: value.clone() for name, value in network.state_dict().items() if value.ndim}


def thin(function: Callable[[dict[str, Tensor], list[int]], dict[str, Tensor]], seed: int) -> str:
    """Check a function (tensors, gone) -> tensors of the network without those channels of stem and shortcut."""
    rng = np.random.default_rng(seed)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    # Numbers of channels equal to those inside the block, to the classes, to the side of a window; half of the
    # channels, in order; one from the middle; several, in any order.
    for maps, inside, count in ((6, 5, 3), (9, 5, 1), (9, 9, 3), (4, 5, 2), (3, 4, 1), (5, 5, 2)):
        gone = rng.permutation(maps)[:count].tolist()
        gone = {3: sorted(gone), 1: [int(rng.integers(1, maps - 1))]}.get(count, gone)
        network = bypassed(maps, inside, seed)
        given = tensors_of(network)
        answer = called(function, given, list(gone))
        _check_shapes(answer, given, bypassed(maps - count, inside), f"without channels {gone} of {maps}")
        smaller = bypassed(maps - count, inside)
        smaller.load_state_dict(answer, strict=False)
        with torch.inference_mode():
            worst = float((smaller(x) - silenced(network, gone)(x)).abs().max())
        assert worst < 1e-9, (
            f"the shapes are right, but the outputs differ by {worst:.2g} from the network in which channels {gone} "
            f"of {maps} are silent. Do all tensors keep the same channels, in the same order?"
        )
    return "stem, both batch norms of the sum, the second convolution, and both readers lose the same channels"


def _check_shapes(answer: object, given: dict[str, Tensor], smaller: Bypassed, told: str) -> None:
    """Raise an `AssertionError` with a hint where the tensors of an answer do not fit the smaller network."""
    wanted = tensors_of(smaller)
    refuse_other_names(answer, wanted)
    for name, tensor in wanted.items():
        one = answer[name]
        assert isinstance(one, Tensor) and one.shape == tensor.shape, (
            f"{told}, your {name} is {shape_of(one)} where {shape_of(given[name])} was given: not the shape that fits. "
            "Which of its axes are those channels? Which layers produce them, and which read them?"
        )
        assert one.dtype == given[name].dtype, (
            f"{told}, your {name} has become {one.dtype}: removing channels changes neither values nor dtype"
        )


def shape_of(answer: object) -> str:
    """Return the shape of a tensor in words, or the kind of an answer that is not a tensor."""
    return str(tuple(answer.shape)) if isinstance(answer, Tensor) else f"not a torch tensor, but a {kind_of(answer)}"


def silenced(network: Bypassed, gone: Collection[int]) -> Bypassed:
    """Zero the channels `gone` of the sum in place: filters, biases, shifts and means; return the network."""
    with torch.no_grad():
        for layer in (network.stem, network.norm, network.conv2, network.norm2):
            for tensor in (
                layer.weight, layer.bias, *([layer.running_mean] if isinstance(layer, nn.BatchNorm2d) else []),
            ):  # fmt: skip
                tensor[list(gone)] = 0
    return network


def pruned_file(answer: str, seed: int) -> str:
    """Check a pruned lenet5 for glyphs: at most 25 % of weights and 10 % of bytes, one point lost on new characters."""
    path, content = file_content(answer)
    share = len(content) / len(files.model_bytes(trained("lenet5", "glyphs")))
    small = network_of(path, content, "lenet5")
    assert share <= LIMIT, (
        f"the file has {share:.1%} of the dense network's bytes, allowed are {LIMIT:.0%}. Zeros that are stored "
        "as numbers save nothing, and indices cost bits too: how many weights may stay?"
    )
    left = _weights(small) / _weights(trained("lenet5", "glyphs"))
    assert left <= LEFT, (
        f"the file is small enough ({share:.1%}), but {left:.0%} of the weights are left; at most a quarter may stay. "
        "Fewer bits and low rank make a file small without removing a weight: this exercise is about pruning"
    )
    lost = points_lost(small, "lenet5", seed, CHARACTERS)
    assert lost <= 1, (
        f"the file is small enough ({share:.1%}), but loses {lost:.2f} points on new characters; "
        "allowed is 1. Which layer can spare its weights, and what does fine-tuning inside the mask recover?"
    )
    return f"{share:.1%} of the bytes, {lost:.2f} points lost on new characters"


def _weights(network: nn.Module) -> int:
    """Return how many nonzero weights of convolutional and linear layers are left."""
    layers = (weight_of(part) for _, part in outside_forms(network) if isinstance(part, (Form, nn.Conv2d, nn.Linear)))
    return sum(int(torch.count_nonzero(weight)) for weight in layers)


CHECKS = (gap_bytes, thin, pruned_file)
