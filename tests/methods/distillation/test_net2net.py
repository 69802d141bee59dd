"""Net2Net: wider and deeper networks that compute what the given one does, come back from files, and can be trained."""

import copy
from typing import ClassVar

import laws
import pytest
import torch
import torch.nn.functional as F
from structures import STRUCTURES, Network, images
from torch import Tensor, nn

import compedu as ce
from compedu import files
from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.forms import Deepened
from compedu.graph import INPUT
from compedu.graph.choosing import Places
from compedu.hashing import model_digest
from compedu.methods.distillation.net2deeper import rectified_moments
from compedu.methods.distillation.net2wider import copied_channels, later_copies
from compedu.networks import build
from compedu.torchvision_import import import_torchvision

SPECS = (
    "lenet300(size=28, width=0.1)", "lenet5(size=28, width=0.3)", "vgg(size=28, width=0.1)",
    "resnet(size=28, width=0.3, blocks=1)", "inception(size=28, width=0.3)", "mobilenet(size=28, width=0.3)",
)  # fmt: skip
WAYS = (ce.Net2Wider(factor=1.5), ce.Net2Wider(factor=2.3, seed=3), ce.Net2Deeper(), ce.Net2Wider() | ce.Net2Deeper(),
        ce.Net2Deeper() | ce.Net2Wider(), ce.Net2Deeper() | ce.Net2Deeper(), ce.Net2Deeper(depth=3))  # fmt: skip


def network(spec: str) -> nn.Module:
    return laws.lively(build(spec, seed=1))


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.eval()(x)


def assert_same(made: nn.Module, model: nn.Module, x: Tensor) -> None:
    """Assert that both compute the same, up to rounding in single precision."""
    expected = outputs(model, x)
    torch.testing.assert_close(outputs(made, x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def why(made: nn.Module) -> dict[str, str]:
    return {skipped.layer: skipped.reason for skipped in compression_of(made).skipped}


# The same function


@pytest.mark.parametrize("method", WAYS, ids=repr)
@pytest.mark.parametrize("spec", SPECS)
def test_a_larger_network_computes_what_the_given_one_does(spec, method):
    model = network(spec)
    before = laws.state(model)
    x = laws.data().x_validation[:4]
    made = method(model)
    assert laws.state(model) == before
    assert sum(p.numel() for p in made.parameters()) > sum(p.numel() for p in model.parameters())
    assert_same(made, model, x)
    torch.testing.assert_close(
        outputs(method(model.double()), x.double()), outputs(model, x.double()), rtol=1e-10, atol=1e-10
    )
    loaded = files.from_bytes(files.model_bytes(made))
    assert torch.equal(outputs(loaded, x), outputs(made, x))


@pytest.mark.parametrize("method", WAYS[::2], ids=repr)
def test_a_residual_network_of_torchvision_computes_the_same_and_comes_back_into_the_given_one(method):
    torch.manual_seed(0)
    model = laws.lively(import_torchvision().models.resnet18(num_classes=10)).double()
    x = torch.randn(2, 3, 33, 33, dtype=torch.float64)
    images = Dataset("noise", *[x, torch.arange(2)] * 3, tuple("abcdefghij"))
    made = method(model, images)
    torch.testing.assert_close(outputs(made, x), outputs(model, x), rtol=1e-10, atol=1e-10)
    data = files.model_bytes(made)
    assert torch.equal(outputs(files.from_bytes(data, into=model, example=x), x), outputs(made, x))


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_stays_the_same_or_is_left_alone_by_name(name):
    forward, layers = STRUCTURES[name]
    model = Network(forward, **copy.deepcopy(layers)).eval().double()
    data = Dataset("noise", *[images().double(), torch.arange(len(images())) % 2] * 3, ("a", "b"))
    for method in (ce.Net2Wider(factor=1.7, seed=5), ce.Net2Deeper()):
        try:
            made = method(model, data)
        except CompressionError as refusal:
            assert isinstance(method, ce.Net2Deeper) and "not read by a ReLU or ReLU6 alone" in str(refusal)
            continue
        torch.testing.assert_close(outputs(made, data.x_train), outputs(model, data.x_train), rtol=1e-10, atol=1e-10)


# Wider


def test_the_channels_that_the_network_reads_and_gives_are_never_copied():
    for spec in SPECS:
        made = ce.Net2Wider(factor=3)(model := network(spec))
        layers = [layer for layer in made.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
        assert layers[0].weight.shape[1] == next(model.parameters()).shape[1]
        assert layers[-1].weight.shape[0] == 10
        assert why(made) == {list(dict(model.named_modules()))[-1]: "its channels are the network's output"}


def test_every_layer_gets_the_channels_that_were_asked_for_rounded_up():
    made = ce.Net2Wider(factor={"conv1": 1.26, "conv2": 1, "*": 2})(model := network(SPECS[1]))
    before = [len(model.get_submodule(name).weight) for name in ("conv1", "conv2", "fc1")]
    after = [len(made.get_submodule(name).weight) for name in ("conv1", "conv2", "fc1")]
    assert before == [6, 15, 150] and after == [8, 15, 300]  # 7.56 is rounded up


def test_factor_1_is_the_network_itself_and_less_is_refused():
    model = network(SPECS[3])
    assert model_digest(ce.Net2Wider(factor=1.0, noise=0.5)(model)) == model_digest(model)
    with pytest.raises(ValueError, match=r"Net2Wider\.factor must be a number from 1 to 8.*got 0\.5"):
        ce.Net2Wider(factor=0.5)


def test_seeds_reproduce_and_a_smaller_factor_takes_the_first_copies():
    model = network(SPECS[0])
    twice = [model_digest(ce.Net2Wider(seed=4, noise=0.1)(model)) for _ in range(2)]
    assert twice[0] == twice[1] != model_digest(ce.Net2Wider(seed=5, noise=0.1)(model))
    one, other = (ce.Net2Wider(seed=seed)(model).fc1.weight for seed in (4, 5))
    assert not torch.equal(one, other)
    assert copied_channels(50, 75, 0, "fc1") != copied_channels(50, 75, 0, "fc2")
    few, many = (ce.Net2Wider(factor=factor)(model).fc1.weight for factor in (1.5, 2))
    assert torch.equal(few, many[: len(few)]) and len(few) < len(many)


def test_noise_moves_all_copies_but_the_first():
    model = network(SPECS[0])
    same, moved = (ce.Net2Wider(factor=2, noise=noise)(model).fc1 for noise in (0.0, 0.1))
    size = len(model.fc1.weight)
    assert torch.equal(moved.weight[:size], model.fc1.weight) and torch.equal(moved.bias, same.bias)
    noise = moved.weight[size:] - same.weight[size:]
    scale = float(same.weight.detach().square().mean().sqrt())
    assert bool((noise.abs().amax(1) > 0).all())
    assert float(noise.detach().std()) == pytest.approx(0.1 * scale, rel=0.05)
    assert later_copies(torch.tensor([2, 0, 1])).tolist() == []


def test_training_separates_copies_only_where_noise_made_them_differ():
    model = network(SPECS[0])
    tune = ce.FineTune(epochs=2)

    def apart(noise: float) -> float:
        made = (ce.Net2Wider(factor=2, noise=noise) | tune)(model, laws.data())
        assert not torch.equal(made.fc3.weight, ce.Net2Wider(factor=2, noise=noise)(model).fc3.weight)
        chosen = [
            int((model.fc1.weight - row).abs().sum(1).argmin()) for row in ce.Net2Wider(factor=2)(model).fc1.weight
        ]
        later = later_copies(torch.tensor(chosen)).tolist()
        pairs = [(made.fc1.weight[chosen.index(chosen[place])], made.fc1.weight[place]) for place in later]
        return max(float((one - other).detach().abs().max()) for one, other in pairs)

    scale = float(model.fc1.weight.detach().square().mean().sqrt())
    assert apart(0.0) < 1e-4 * scale
    assert apart(0.1) > 1e-1 * scale


def test_layers_that_share_a_weight_and_attention_are_left_alone_by_name():
    torch.manual_seed(0)
    with pytest.raises(CompressionError, match=r"Net2Wider.*shares its weight with second"):
        ce.Net2Wider()(laws.Tied(), laws.data())
    made = ce.Net2Wider()(model := network("vit(size=28, width=0.25, blocks=1)"))
    assert_same(made, model, laws.data().x_validation[:4])
    assert {"blocks.0.attention.query", "blocks.0.attention.out"} <= why(made).keys()
    assert made.blocks[0].fc1.out_features == 1.5 * model.blocks[0].fc1.out_features


def test_a_group_whose_copies_have_no_clear_place_is_left_alone_by_name(monkeypatch):
    choose = Places.choose

    def unclear(self, group, member, chosen):
        if (member.layer, member.side) == ("conv2", INPUT) and len(chosen) > group.size:
            raise CompressionError("their places are unclear")
        choose(self, group, member, chosen)

    monkeypatch.setattr(Places, "choose", unclear)
    made = ce.Net2Wider()(model := network(SPECS[1]))
    assert why(made)["conv1"] == "its channels cannot be copied: their places are unclear"
    assert [len(layer.weight) for layer in (made.conv1, made.conv2)] == [6, 23]
    assert_same(made, model, laws.data().x_validation[:4])
    with pytest.raises(CompressionError, match=r"Net2Wider.*nothing to compress.*conv1: .*places are unclear"):
        ce.Net2Wider(layers="conv1")(model)


SINGLE = {
    "groups of one input": (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 2, 4)),
    "groups of one output": (nn.Conv2d(1, 8, 3), nn.Conv2d(8, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 4)),
    "depthwise": (nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 4)),
    "one channel": (nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(16, 1), nn.Linear(1, 2)),
    "nonzero where nothing is": (nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 3, 3, groups=1), nn.Softplus(),
                                 nn.Conv2d(3, 2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_channels_that_cannot_be_removed_are_copied_where_that_is_right(name):
    model = laws.lively(nn.Sequential(*copy.deepcopy(SINGLE[name]))).eval().double()
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    data = Dataset("noise", *[x, torch.arange(4) % 2] * 3, ("a", "b"))
    made = ce.Net2Wider(factor=1.5)(model, data)
    torch.testing.assert_close(outputs(made, x), outputs(model, x), rtol=1e-12, atol=1e-12)
    assert set(why(made).values()) == {"its channels are the network's output"}
    layers = [layer for layer in made.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    given = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert all(len(new.weight) > len(old.weight) for new, old in zip(layers[:-1], given[:-1], strict=True))
    loaded = files.from_bytes(files.model_bytes(made), into=model, example=x)
    assert torch.equal(outputs(loaded, x), outputs(made, x))


def test_a_wider_network_can_be_compressed_and_comes_back():
    model = network(SPECS[3])
    x = laws.data().x_validation
    for step in (ce.MagnitudePruning(), ce.LinearQuantization(bits=8), ce.TruncatedSVD(), ce.FilterPruning()):
        made = (ce.Net2Wider() | step)(model, laws.data())
        assert torch.equal(outputs(files.from_bytes(files.model_bytes(made)), x), outputs(made, x))


# Deeper


def test_a_deeper_network_has_an_identity_behind_each_layer_before_a_relu():
    made = ce.Net2Deeper()(model := network(SPECS[1]))
    assert isinstance(made.conv1, Deepened) and isinstance(made.fc2, nn.Linear)
    further = made.conv1.further[0]
    assert (further.kernel_size, further.padding, further.stride) == ((5, 5), (2, 2), (1, 1))
    expected = torch.zeros_like(further.weight)
    for channel in range(len(expected)):
        expected[channel, channel, 2, 2] = 1
    assert torch.equal(further.weight, expected) and not further.bias.any()
    assert torch.equal(made.fc1.further[0].weight, torch.eye(len(model.fc1.weight)))
    assert why(made).keys() == {"fc2"} and "not read by a ReLU or ReLU6 alone" in why(made)["fc2"]


def test_in_training_mode_the_new_batch_norms_change_little():
    """Statistics of a rectified normal distribution: with 0 and 1, training would start from another net."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
    x = torch.randn(4096, 1, 3, 3)
    with torch.no_grad():
        nn.init.uniform_(model[1].weight, 0.5, 1.5)
        nn.init.normal_(model[1].bias)
        model.train()(x)
        model[1].running_mean.copy_(model[0](x).mean((0, 2, 3)))
        model[1].running_var.copy_(model[0](x).var((0, 2, 3)))
    images = Dataset("noise", *[x[:32], torch.arange(32) % 10] * 3, tuple("abcdefghij"))
    made = ce.Net2Deeper()(model, images)
    assert_same(made, model, x)
    expected = outputs(model, x)
    with torch.no_grad():
        found = copy.deepcopy(made).train()(x)
        plain = copy.deepcopy(made)
        plain[1].weight.copy_((1 + plain[1].eps) ** 0.5 * torch.ones(16))
        plain[1].bias.zero_()
        wrong = plain.train()(x)
    error, worse = (float((y - expected).norm() / expected.norm()) for y in (found, wrong))
    assert error < 0.05 < 10 * error < worse


def test_moments_of_a_rectified_normal_variable_are_those_of_a_sample():
    mean = torch.tensor([-2.0, -0.3, 0.0, 1.0, 4.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    deviation = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.1, 0.0, 0.0, 0.0], dtype=torch.float64)
    drawn = torch.randn(400_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sample = F.relu(mean + deviation * drawn)
    found = torch.stack(rectified_moments(mean, deviation))
    torch.testing.assert_close(found, torch.stack([sample.mean(0), sample.var(0)]), rtol=0.02, atol=2e-3)


class Clipped(nn.Module):
    """Layers that no identity can follow: another activation, an even window, hooks, what is used twice or never."""

    sizes: ClassVar = {"tanh": 3, "even": 2, "hooked": 3, "one": 3, "other": 3, "bare": 3, "fine": 3, "again": 1,
                       "unused": 3, "heard": 1, "seen": 1, "fresh": 1}  # fmt: skip

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for name, side in self.sizes.items():
            setattr(self, name, nn.Conv2d(1 if name == "tanh" else 4, 4, side))
        self.hooked.register_forward_hook(lambda layer, inputs, y: None)
        self.twice = nn.BatchNorm2d(4)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.norm.register_forward_hook(lambda norm, inputs, y: None)
        self.relu.register_forward_pre_hook(lambda relu, inputs: (inputs[0] - 1,))
        self.unsure = nn.BatchNorm2d(4, track_running_stats=False)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.hooked(F.relu(self.even(torch.tanh(self.tanh(x))))))
        x = F.relu(self.twice(self.other(F.relu(self.twice(self.one(x))))))
        x = F.relu(self.norm(self.heard(F.relu(self.again(F.relu(self.again(x)))))))
        x = F.relu(self.unsure(self.fresh(self.relu(self.seen(x)))))
        return self.head(F.relu(self.fine(F.relu(self.plain(self.bare(x))))).mean((2, 3)))


def test_layers_that_nothing_can_follow_are_left_alone_by_name_and_reason():
    made = ce.Net2Deeper()(model := Clipped().eval(), laws.data())
    assert [name for name, part in made.named_modules() if isinstance(part, Deepened)] == ["fine"]
    reasons = why(made)
    said = {
        "tanh": "not read by a ReLU or ReLU6 alone", "even": "2 x 2 has no middle", "hooked": "has forward hooks",
        "one": "'twice' is not that of this layer alone", "other": "'twice' is not that", "head": "not read by a ReLU",
        "bare": "its batch norm 'plain' has no scale and shift", "again": "is used 2 times",
        "unused": "does not call it", "heard": "its batch norm 'norm' has forward hooks",
        "seen": "the ReLU 'relu' has forward hooks", "fresh": "its batch norm 'unsure' has no running statistics",
    }  # fmt: skip
    assert reasons.keys() == said.keys() and all(said[name] in reasons[name] for name in said)
    assert_same(made, model, laws.data().x_validation[:4])


class Six(nn.Module):
    """Two layers before a ReLU that ends at 6, a module and a function; inputs reach beyond."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 8)
        self.relu, self.head = nn.ReLU6(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu6(self.fc(self.relu(self.norm(self.conv(x))).mean((2, 3)))))


@pytest.mark.parametrize("depth", [1, 3])
def test_a_relu_that_ends_at_six_stays_the_last(depth):
    model = laws.lively(Six()).eval().double()
    x = 50 * laws.data().x_validation[:8].double()
    assert float(model.norm(model.conv(x)).detach().max()) > 6
    made = ce.Net2Deeper(depth=depth)(model, laws.data())
    assert isinstance(made.conv, Deepened) and isinstance(made.fc, Deepened)
    torch.testing.assert_close(outputs(made, x), outputs(model, x), rtol=1e-10, atol=1e-10)


class Named(nn.Module):
    """A layer that the network registers twice and calls once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)
        self.parts = nn.ModuleList([self.conv])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.parts[0](x)).mean((2, 3)))


@pytest.mark.parametrize("method", WAYS, ids=repr)
def test_a_layer_of_two_names_keeps_both(method):
    model = Named().eval()
    x = laws.data().x_validation[:4]
    made = method(model, laws.data())
    assert made.conv is made.parts[0] and made.conv is not model.conv
    assert_same(made, model, x)
    loaded = files.from_bytes(files.model_bytes(made), into=model, example=x)
    assert torch.equal(outputs(loaded, x), outputs(made, x)) and loaded.conv is loaded.parts[0]


def test_frozen_layers_stay_frozen_and_new_ones_are_trained():
    model = network(SPECS[3])
    model.conv.weight.requires_grad_(False)
    made = ce.Net2Deeper()(model)
    assert not made.conv.layer.weight.requires_grad and made.conv.further[0].weight.requires_grad
    tuned = (ce.Net2Deeper() | ce.FineTune(epochs=1))(model, laws.data())
    assert torch.equal(tuned.conv.layer.weight, model.conv.weight)
    assert not torch.equal(tuned.conv.further[0].weight, made.conv.further[0].weight)
