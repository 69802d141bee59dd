"""The integer law on thousands of random networks: forms, deployed networks and whole-number arithmetic in float64."""

import argparse
import copy
import functools
import hashlib
import inspect
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from random_graphs import Draft, Network, draft, lively
from removal_law import bare
from table import circumstances, grid
from torch import Tensor, nn

import compedu as ce
import compedu.deployment
import compedu.graph
from compedu.datasets.dataset import Dataset
from compedu.deployment.integer_chain import IntegerChain
from compedu.deployment.kernels.simulated import Simulated
from compedu.errors import CompressionError
from compedu.forms import Coded
from compedu.graph.trace import replace_module

RESULTS = Path(__file__).with_name("INTEGER_LAW.md")
GRAPHS, ROUND, QUICK = 5000, 250, 20
WIDTHS = (8, 4, 2)
EXACT, CLOSE = 1e-10, 1e-4  # of the largest output: between float64 and float64, between float32 and float64
TIE = 2.0**-20  # of a grid's length: how near to the middle between two codes float32 may take the other one
DRAWS = 40
COLUMNS = ("graphs", *(f"{bits} bits: {what}" for bits in WIDTHS for what in ("chained", "layer by layer", "wrong")),
           "refused", "reasons")  # fmt: skip


class WholeNumbers(nn.Module):
    """A coded layer in whole numbers and float64, from its weights, scales and grid alone.

    `nearest` is how near a value has come to the middle between two codes, in lengths of the grid.
    """

    def __init__(self, layer: Coded):
        super().__init__()
        per_output = (-1,) if layer.geometry.kind == "linear" else (-1, 1, 1)
        weight, top = layer.weight.detach().double(), max(2 ** (layer.bits - 1) - 1, 1)
        signs = torch.where(weight < 0, -1.0, 1.0).double()
        self.codes = signs if layer.bits == 1 else (weight / layer.scale.double()).round().clamp(-top, top)
        self.scale, self.bias = layer.scale.detach().double().reshape(per_output), layer.bias
        self.step, self.zero, self.top = layer.act.scale.double(), int(layer.act.zero_point), 2**layer.act.bits - 1
        self.geometry, self.per_output, self.nearest = layer.geometry, per_output, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for x."""
        steps = x / self.step
        inside = steps[(steps > -self.zero - 1) & (steps < self.top - self.zero + 1)]
        if inside.numel():
            self.nearest = min(self.nearest, ((inside - inside.floor()) - 0.5).abs().min().item() / (self.top + 1))
        whole = (steps.round() + self.zero).clamp(0, self.top) - self.zero
        g = self.geometry
        if g.kind == "linear":
            sums = whole @ self.codes.T
        else:
            sums = torch.conv2d(whole, self.codes, None, g.stride, g.padding, g.dilation, g.groups)
        y = sums * self.step * self.scale
        return y if self.bias is None else y + self.bias.double().reshape(self.per_output)


def whole_numbers(small: nn.Module) -> nn.Module:
    """Return the quantized network in float64, with coded layers that compute in whole numbers."""
    model = copy.deepcopy(small).double()
    for layer in [layer for layer in small.modules() if isinstance(layer, Coded)]:
        name = next(name for name, module in small.named_modules() if module is layer)
        replace_module(model, model.get_submodule(name), WholeNumbers(layer))
    return model


def pictures(network: Network, seed: int, count: int) -> Tensor:
    """Return images that fit the network."""
    return torch.randn(count, network.channels, 6, 6, generator=torch.Generator().manual_seed(seed))


def apart(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, in largest outputs."""
    assert found.shape == wanted.shape, "outputs cannot be compared"
    return float((found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


@torch.no_grad()
def verdict(network: Network, bits: int) -> tuple[str, str]:
    """Return "chained", "layer by layer", "refused" or "wrong", and why, for one network at one width.

    Compared are, on images without ties: the network and what it is deployed as in float32; the forms in float64 and
    in float32, and what they are deployed as by the engine of this machine and by the simulated one, each with
    `WholeNumbers`.
    """
    seen = pictures(network, 0, 8)
    labels = torch.arange(8) % 2
    data = Dataset("random", seen, labels, seen, labels, seen, labels, classes=("0", "1"))
    method = ce.LinearQuantization(bits=bits, activation_bits=bits, coverage=0.97 if len(str(network)) % 3 else 1.0)
    try:
        small = method(network, data)
    except CompressionError as reason:
        return "refused", str(reason)
    reference, x = without_ties(small, network)
    if reference is None:
        return "refused", f"none of {DRAWS} draws of images keeps away from ties"
    wanted, deployed = reference(x.double()), ce.deploy(small, seen)
    pairs = {
        "the forms in float64": (copy.deepcopy(small).double()(x.double()), wanted, EXACT),
        "the forms": (small(x.clone()), wanted, CLOSE),
        "the deployed network": (deployed(x.clone()), wanted, CLOSE),
    }
    if bits == max(WIDTHS):
        dense = copy.deepcopy(network).double()(x.double())
        pairs["the network deployed in float32"] = (ce.deploy(network, seen)(x.clone()), dense, CLOSE)
    if deployed.plan is not None:
        chain = IntegerChain(deployed.plan, Simulated(torch.float64))
        pairs["the simulated network"] = (chain(deployed.prepared(x.clone())), wanted, CLOSE)
    for name, (found, expected, limit) in pairs.items():
        if not (distance := apart(found, expected)) <= limit:
            return "wrong", f"{name} is {distance:.1e} apart"
    return ("chained", "") if deployed.plan is not None else ("layer by layer", deployed.notes[-1])


def without_ties(small: nn.Module, network: Network) -> tuple[nn.Module | None, Tensor]:
    """Return the network in whole numbers and images of which it rounds no value near the middle of two codes.

    There the last bits of float32 decide, and two ways to compute the same may differ by a code. No network: every draw
    had a tie.
    """
    for seed in range(1, DRAWS + 1):
        reference, x = whole_numbers(small), 1.1 * pictures(network, seed, 1)
        reference(x.double())
        if min(layer.nearest for layer in reference.modules() if isinstance(layer, WholeNumbers)) > TIE:
            return reference, x
    return None, x
