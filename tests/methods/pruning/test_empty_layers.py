"""Pruning at the edges: a layer that has no outputs at all stays as it is, is named, and costs nothing."""

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.forms import Masked
from compedu.methods import MagnitudePruning
from compedu.methods.pruning.shared.budgets import BUDGETS
from compedu.metrics.costs import macs


class Hollow(nn.Module):
    """A classifier with a branch that makes no numbers."""

    def __init__(self):
        super().__init__()
        self.empty, self.full = nn.Linear(784, 0), nn.Linear(784, 10)

    def forward(self, x):
        return torch.cat([self.empty(x.flatten(1)), self.full(x.flatten(1))], 1)


def data():
    return ce.load_data("digits").shortened(train=64, validation=8, test=8)


def hollow():
    with pytest.warns(UserWarning, match="zero-element"):
        return Hollow().eval()


@pytest.mark.parametrize("budget", [*BUDGETS, "sensitivity"])
def test_a_layer_without_outputs_stays_and_is_named(budget):
    pruned = MagnitudePruning(sparsity=0.5, budget=budget)(hollow(), data())
    assert type(pruned.empty) is nn.Linear and isinstance(pruned.full, Masked)
    assert {s.layer: s.reason for s in pruned.compression.skipped} == {"empty": "has no weights (shape (0, 784))"}
    assert int(pruned.full.mask.sum()) == 3920


def test_a_layer_without_outputs_costs_nothing():
    assert macs(hollow(), data()).layers == {"empty": 0, "full": 7840}
