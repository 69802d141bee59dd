"""Max pooling while a network is evaluated: computed from slices, with the results of torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.evaluation import QuickPooling, all_logits

SETTINGS = (
    {"kernel_size": 2},
    {"kernel_size": (2, 2), "stride": [2, 2]},
    {"kernel_size": 2, "stride": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "dilation": 2},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": (2, 1)},
    {"kernel_size": 2, "padding": 1},
)


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 1, 7, 9), (5, 6, 6), (1, 1, 2, 2)], ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_results_are_those_of_torch(setting, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x.flatten()[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    for given in (x, x.mT, x.to(torch.float64)):
        try:
            expected = F.max_pool2d(given, **setting)
        except RuntimeError:  # a window that is larger than the image
            with pytest.raises(RuntimeError), QuickPooling():
                F.max_pool2d(given, **setting)
            continue
        with QuickPooling():
            found = F.max_pool2d(given, **setting)
        assert found.dtype == expected.dtype and found.stride() == expected.stride()
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_indices_are_left_to_torch():
    with QuickPooling():
        values, places = F.max_pool2d(torch.arange(16.0).reshape(1, 4, 4), 2, return_indices=True)
    assert values.flatten().tolist() == places.flatten().tolist() == [5, 7, 13, 15]


def test_the_pooling_of_an_evaluated_network_is_not_that_of_torch(monkeypatch):
    x, y = torch.randn(2, 1, 6, 6), torch.tensor([0, 1])
    network = nn.Sequential(nn.MaxPool2d(2), nn.Flatten())
    expected = network(x)
    data = Dataset("random images", x, y, x, y, x, y, tuple("012345678"))
    monkeypatch.setattr(torch, "max_pool2d", lambda *given: pytest.fail("torch's own"))
    assert torch.equal(all_logits(network, x, data), expected)
