"""Checks of chapter 02: bytes of gaps, channels removed through batch norm and a shortcut, a small file that works."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compedu import files
from compedu.course.answers import called, few, number
from compedu.datasets.drawn import glyphs
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.files.gaps import to_gaps
from compedu.networks.shipped import trained
from compedu.reproducible import seeded

SEED = "COMPEDU_SECRET_SEED"  # an instructor's own seed for the characters that a file is measured on
GIVEN_SEED = 4711
LIMIT = 0.1  # of the dense file: magnitudes alone, by LAMP, lose more than a point there
CASES = ((300_000, 0.1, 4), (400_000, 0.01, 4), (200_000, 0.05, 5), (300_000, 0.3, 3))


def gap_bytes(function: Callable[[int, float, int], float]) -> str:
    """Check a function (places, density, bits) -> bytes of the gaps, fillers included, of weights at random places."""
    for places, density, bits in CASES:
        kept = np.flatnonzero(np.random.default_rng(0).random(places) < density)
        written = len(to_gaps(kept, bits)) * bits / 8
        told = number(function, places, density, bits)
        assert abs(told - 8 * written) > 0.24 * written, (
            f"you say {told:,.0f}: are these bits? Wanted are bytes, of eight bits each"
        )
        assert abs(told - written) <= 0.03 * written, (
            f"{places:,} places, {density:.0%} of them kept, gaps of {bits} bits: you say {told:,.0f} bytes, written "
            f"are {written:,.0f}. How long a gap fits into {bits} bits when the code of all ones is a filler, and "
            "what bridges the longer ones? Behind a filler another one may be needed"
        )
    return "one code for each kept weight, and the fillers, of which a sparse layer has many"


class Bypassed(nn.Module):
    """A small residual network: a stem, a block of two convolutions that a shortcut bypasses, a classifier.

    The channels of the stem and those of the block's second convolution are added.
    """

    def __init__(self, maps: int, inside: int = 5):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, maps, 3, padding=1), nn.BatchNorm2d(maps)
        self.conv1, self.norm1 = nn.Conv2d(maps, inside, 3, padding=1), nn.BatchNorm2d(inside)
        self.conv2, self.norm2 = nn.Conv2d(inside, maps, 3, padding=1), nn.BatchNorm2d(maps)
        self.fc = nn.Linear(maps, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (N, 4) of images (N, 1, height, width)."""
        x = self.norm(self.stem(x)).relu()
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return self.fc((x + y).relu().mean((2, 3)))


def bypassed(maps: int = 6) -> Bypassed:
    """Return the small residual network in float64, with batch norms as after a training."""
    with seeded(maps):
        network = Bypassed(maps)
        for norm in (network.norm, network.norm1, network.norm2):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(tensor, 0.3, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network.double().eval()


def tensors_of(network: Bypassed) -> dict[str, Tensor]:
    """Return the weights, biases, scales, shifts and statistics of a network by name."""
    return {name: value.clone() for name, value in network.state_dict().items() if value.ndim}


def thin(function: Callable[[dict[str, Tensor], list[int]], dict[str, Tensor]]) -> str:
    """Check a function (tensors, gone) -> tensors of the network without those channels of stem and shortcut."""
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for maps, gone in ((6, [1, 4]), (6, [0]), (9, [8, 2, 3])):
        network = bypassed(maps)
        smaller = bypassed(maps - len(gone))
        wanted = {name: tuple(value.shape) for name, value in smaller.state_dict().items() if value.ndim}
        answer = called(function, tensors_of(network), list(gone))
        refuse_other_names(answer, wanted)
        for name, shape in wanted.items():
            assert isinstance(answer[name], Tensor) and tuple(answer[name].shape) == shape, (
                f"without channels {gone} of {maps}, {name} has the shape {shape}; yours: {shape_of(answer[name])}. "
                "Who makes these channels, and who reads them?"
            )
        smaller.load_state_dict(answer, strict=False)
        with torch.inference_mode():
            worst = float((smaller(x) - silenced(network, gone)(x)).abs().max())
        assert worst < 1e-9, (
            f"the shapes are right, but the outputs differ by {worst:.2g} from the network in which channels {gone} "
            "are silent. Do all tensors keep the same channels, in the same order?"
        )
    return "stem, both batch norms of the sum, the second convolution, and both readers lose the same channels"


def refuse_other_names(answer: object, wanted: Collection[str]) -> None:
    """Raise an `AssertionError` that names the tensors that are missing, and those that are too many."""
    assert isinstance(answer, dict), (
        f"wanted is a dictionary of all {len(wanted)} tensors by name, you return a {type(answer).__name__}"
    )
    wrong = {
        "missing": [name for name in wanted if name not in answer],
        "too many": [name for name in answer if name not in wanted],
    }
    said = "; ".join(f"{what}: {few(names)}" for what, names in wrong.items() if names)
    assert not said, f"wanted is a dictionary of all {len(wanted)} tensors under the same names; {said}"


def shape_of(answer: object) -> str:
    """Return the shape of a tensor in words, or what stands in its place."""
    return str(tuple(answer.shape)) if isinstance(answer, Tensor) else f"no tensor, but a {type(answer).__name__}"


def silenced(network: Bypassed, gone: Collection[int]) -> Bypassed:
    """Return the network in place, with the channels `gone` of its sum zero: filters, biases, shifts and means."""
    with torch.no_grad():
        for layer in (network.stem, network.norm, network.conv2, network.norm2):
            for tensor in (
                layer.weight, layer.bias, *([layer.running_mean] if isinstance(layer, nn.BatchNorm2d) else []),
            ):  # fmt: skip
                tensor[list(gone)] = 0
    return network


def pruned_file(path: str) -> str:
    """Check a file of lenet5 for glyphs: at most 10 % of the dense file, at most one point lost on new characters."""
    assert isinstance(path, (str, Path)), f"give the path of a file that ce.save has written, not {path!r:.60}"
    assert Path(path).is_file(), f"there is no file {path}: write it first, with ce.save(network, path)"
    try:
        small = files.load(path)
    except CompressionError as refusal:
        raise AssertionError(f"{path} is no model file: {refusal}") from refusal
    dense = trained("lenet5", "glyphs")
    share = Path(path).stat().st_size / len(files.model_bytes(dense))
    assert share <= LIMIT, (
        f"the file has {share:.1%} of the dense network's bytes, allowed are {LIMIT:.0%}. Zeros save nothing as "
        "numbers, and indices cost bits too: how many weights may stay?"
    )
    seed = os.environ.get(SEED, GIVEN_SEED)
    fresh = glyphs(seed=int(seed), sizes={"train": 1, "validation": 1, "test": 4000})
    try:
        right, kept = (evaluate(network, fresh, "test").correct for network in (dense, small))
    except CompressionError as misfit:
        raise AssertionError(
            f"{path} holds another network, {getattr(small, 'spec', type(small).__name__)}; wanted is lenet5 for "
            f"glyphs, made smaller: {misfit}"
        ) from misfit
    lost = 100 * (right - kept) / len(fresh.y_test)
    assert lost <= 1, (
        f"the file is small enough ({share:.1%}), but loses {lost:.2f} points on characters that nobody has seen; "
        "allowed is 1. Which layer can spare its weights, and what does training inside the mask give back?"
    )
    return f"{share:.1%} of the bytes, {lost:.2f} points lost on new characters"


CHECKS = (gap_bytes, thin, pruned_file)
