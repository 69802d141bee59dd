"""Networks with the same numbers are told apart by what else decides about their outputs; looking leaves them alone."""

import copy

import laws
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.graph.trace import inference_copy
from compedu.hashing import model_digest
from compedu.identity import identity, structure_digest
from compedu.methods import LinearQuantization, MagnitudePruning
from compedu.sweeps.work import Ground


class Counting(nn.Module):
    """Counts its calls in a buffer, in a buffer that is not saved, and by an attribute."""

    def __init__(self, slope=0.1):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 16), nn.ReLU(), nn.Linear(16, 10))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.ones(()), persistent=False)
        self.slope = slope

    def forward(self, x):
        self.calls += 1
        return self.layers(x) * self.slope * self.scale


def with_hook(model):
    model.layers[2].register_forward_hook(lambda layer, inputs, output: output + 1)


def with_scale(model):
    model.scale.fill_(2.0)


def with_other_layer(model):
    model.layers[2] = nn.GELU()


def with_other_slope(model):
    model.slope = 0.2


CHANGES = (with_hook, with_scale, with_other_layer, with_other_slope)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_networks_of_the_same_numbers_are_told_apart(change):
    one = Counting()
    other = copy.deepcopy(one)
    assert identity(other) == identity(one)
    change(other)
    assert model_digest(other) == model_digest(one)
    method = MagnitudePruning(sparsity=0.5)
    assert identity(other) != identity(one)
    assert method.key(other, laws.data()) != method.key(one, laws.data())
    assert Ground(other, laws.data(), "validation").origin != Ground(one, laws.data(), "validation").origin


def test_forms_of_the_same_numbers_and_other_settings_are_told_apart():
    model = laws.plain()
    coarse, fine = (LinearQuantization(bits=4, activation_bits=bits)(model, laws.data()) for bits in (2, 8))
    for name, tensor in fine.state_dict().items():
        tensor.copy_(coarse.state_dict()[name])
    assert model_digest(coarse) == model_digest(fine)
    assert structure_digest(coarse) != structure_digest(fine)
    assert identity(coarse) != identity(fine)


def test_a_network_of_this_package_is_known_by_its_numbers_alone_until_it_is_altered():
    model = ce.networks.build("lenet5")
    assert identity(model) == model_digest(model)
    model.spec = "lenet300"
    assert identity(model) != model_digest(model)


@pytest.mark.parametrize("spec", ["lenet5", "resnet(classes=8, size=32)"])
def test_the_identity_is_the_same_after_a_copy(spec):
    model = ce.networks.build(spec)
    assert identity(copy.deepcopy(model)) == identity(inference_copy(model)) == identity(model)


@pytest.mark.parametrize(
    "look",
    [
        lambda model, data: ce.measure(model, data, speed=False),
        lambda model, data: MagnitudePruning(sparsity=0.5)(model, data),
        lambda model, data: LinearQuantization(bits=4)(model, data),
        lambda model, data: ce.OptimalBrainDamage(sparsity=0.5)(model, data),
        lambda model, data: ce.deploy(model, data.example),
    ],
    ids=["measure", "magnitude", "int", "second order", "deploy"],
)
def test_a_network_that_counts_its_calls_is_left_as_it_was(look):
    model = Counting().eval()
    before = copy.deepcopy(model.state_dict())
    result = look(model, laws.data())
    assert int(model.calls) == int(before["calls"]) == 0
    if isinstance(result, nn.Module):
        result(laws.data().example)
        assert int(model.calls) == 0
