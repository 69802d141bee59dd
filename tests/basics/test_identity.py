"""Networks with the same numbers are told apart by what else decides about their outputs; looking leaves them alone."""

import copy
import os
import sys
from pathlib import Path

import laws
import numpy as np
import pytest
import torch
from processes import run
from torch import nn

import compedu as ce
from compedu.graph.copying import inference_copy
from compedu.graph.precise import difference
from compedu.hashing import model_digest
from compedu.identity import identity, structure_digest
from compedu.methods import LinearQuantization, MagnitudePruning
from compedu.sweeps.work import Inputs


class Counting(nn.Module):
    """Counts its calls in a buffer, in a buffer that is not saved, and by an attribute."""

    def __init__(self, slope=0.1):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 16), nn.ReLU(), nn.Linear(16, 10))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.ones(()), persistent=False)
        self.slope = slope
        self.rule = lambda x: x
        self.settings = {"kind": torch.float32, "power": np.float32(1)}
        self.beside = torch.zeros(1)
        self.gain = np.ones(2)
        self.layers[0].register_forward_hook(adding(torch.zeros(1)))

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


def with_other_forward(model):
    model.forward = lambda x: model.layers(x) * 2


def with_a_tensor_beside(model):
    model.beside = torch.ones(1)


def with_a_frozen_layer(model):
    model.layers[1].weight.requires_grad_(False)


def with_a_layer_twice(model):
    model.layers.append(model.layers[2])


def with_another_lambda(model):
    model.rule = lambda x: x + 1


def with_another_type(model):
    model.settings = model.settings | {"kind": torch.float64}


def with_another_power(model):
    model.settings = model.settings | {"power": np.float32(2)}


def with_an_array(model):
    model.settings = model.settings | {"gain": [np.arange(3.0)]}


def with_another_array(model):
    model.gain[0] = 2.0


def with_a_hook_over_another_tensor(model):
    model.layers[0]._forward_hooks.clear()
    model.layers[0].register_forward_hook(adding(torch.ones(1)))


def adding(offset):
    return lambda layer, inputs, output: output + offset


CHANGES = (
    with_an_array, with_another_array, with_a_hook_over_another_tensor,
    with_hook, with_scale, with_other_layer, with_other_slope, with_other_forward, with_a_tensor_beside,
    with_a_frozen_layer, with_a_layer_twice, with_another_lambda, with_another_type, with_another_power,
)  # fmt: skip


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
    assert Inputs(other, laws.data(), "validation").origin != Inputs(one, laws.data(), "validation").origin


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


def test_a_class_that_was_written_again_is_another_one():
    made = []
    for function in ("relu", "sigmoid"):
        names = {"nn": nn, "torch": torch}
        exec(
            "class Net(nn.Linear):\n    def forward(self, x):\n"
            f"        return torch.{function}(super().forward(x.flatten(1)))",
            names | {"__name__": "__main__"},
            names,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made.append(names["Net"](784, 10))
    assert model_digest(made[0]) == model_digest(made[1]) and identity(made[0]) != identity(made[1])


class Aliased(nn.Module):
    """Has buffers that share memory, one that is stretched, and one that is a layer's weight."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)
        self.register_buffer("whole", torch.zeros(2))
        self.register_buffer("part", self.whole[:1])
        self.register_buffer("wide", torch.ones(1, 1).expand(1000, 1000))
        self.register_buffer("reference", self.layer.weight)

    def forward(self, x):
        self.whole.fill_(1.0)
        return self.layer(x.flatten(1)) * (1 + 9 * self.part)


def test_a_copy_has_the_buffers_share_what_they_shared():
    model, x = Aliased(), laws.data().example
    copied = inference_copy(model)
    assert type(copied.layer.weight) is nn.Parameter and copied.wide.untyped_storage().nbytes() == 4
    torch.testing.assert_close(copied(x), 10 * copied.layer(x.flatten(1)))
    assert model.whole.tolist() == [0, 0]


class Spectrum(nn.Module):
    """Returns scores and complex numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        y = self.layer(x.flatten(1))
        return y, torch.fft.rfft(y)


def test_complex_outputs_are_compared_with_their_imaginary_parts():
    result = MagnitudePruning(sparsity=0.5)(Spectrum(), laws.data())
    assert result.compression.skipped == ()
    one, other = [torch.tensor([1 + 2j])], [torch.tensor([1 + 3j])]
    assert difference(one, one) is None and "differ" in difference(one, other)


def test_the_identity_is_the_same_in_another_process():
    code = "import test_identity as t; print(t.structure_digest(t.Counting()))"
    environments = [{**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)} for seed in ("1", "2")]
    told = {run([sys.executable, "-c", code], Path(__file__).parent, given).strip() for given in environments}
    assert len(told) == 1 and len(told.pop()) == 16


class Caching(nn.Module):
    """Keeps a tensor that it computes once in a dictionary beside its parameters, as vision transformers do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.cache = {}

    def forward(self, x):
        if "bias" not in self.cache:
            self.cache["bias"] = torch.ones(4)
        return self.layer(x) + self.cache["bias"]


def test_a_cache_that_a_pass_fills_makes_no_other_structure_of_it(tmp_path):
    model, fresh = Caching().eval(), Caching().eval()
    expected = model(torch.ones(1, 4))
    ce.save(model, tmp_path / "model.cedu")
    loaded = ce.files.load(tmp_path / "model.cedu", fresh)
    assert model.cache and torch.equal(loaded(torch.ones(1, 4)), expected)
