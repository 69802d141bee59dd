"""Every method that chooses layers works on torchvision's networks, and names what it leaves as it is.

Each method meets two of the seven networks, the next ones in turn, so that each network is met by several methods; all
others are marked `exhaustive`.
"""

import laws
import pytest
import torch
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.files import load, model_bytes, save
from compedu.knobs import knobs
from compedu.methods import (
    METHODS,
    BiclusteredSVD,
    CReLU,
    LinearQuantization,
    LotteryTicket,
    Net2Deeper,
    SelectiveMethod,
)
from compedu.torchvision_import import import_torchvision

LAYERWISE = [cls for cls in METHODS if issubclass(cls, SelectiveMethod)]
QUICKLY = ("squeezenet1_0", "mobilenet_v2")
SLOWLY = ("resnet18", "vgg11_bn", "googlenet", "DenseNet", "efficientnet_b0")
OPTIONS = {
    "googlenet": {"init_weights": False}, "vgg11_bn": {"init_weights": False},
    "DenseNet": {"block_config": (2, 3, 2, 2)},  # densenet121's blocks have ten times as many layers of the same kinds
}  # fmt: skip
NETWORKS = (*QUICKLY, *SLOWLY)


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(import_torchvision().models, name)(num_classes=10, **OPTIONS.get(name, {}))
        if name == "vgg11_bn":  # its own head has 120 million weights, which teach a test nothing
            model.avgpool = nn.AdaptiveAvgPool2d(1)
            model.classifier = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10))
        return laws.lively(narrowed(model) if name in SLOWLY else model)


def narrowed(model: nn.Module) -> nn.Module:
    """The network with a quarter of its channels, but all colors and classes: layers and their order stay."""

    def fewer(channels: int) -> int:
        return channels if channels in (1, 3, 10) else max(1, channels // 4)

    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            sizes = map(fewer, (layer.in_channels, layer.out_channels))
            kernel = layer.kernel_size, layer.stride, layer.padding, layer.dilation, fewer(layer.groups)
            model.set_submodule(name, nn.Conv2d(*sizes, *kernel, bias=layer.bias is not None))
        elif isinstance(layer, nn.BatchNorm2d):
            model.set_submodule(name, nn.BatchNorm2d(fewer(layer.num_features), layer.eps, layer.momentum))
        elif isinstance(layer, nn.Linear):
            model.set_submodule(name, nn.Linear(fewer(layer.in_features), fewer(layer.out_features)))
    return model


def pictures() -> Dataset:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(2)
    return Dataset("pictures", x, y, x, y, x, y, tuple("0123456789"))


def shortest(cls):
    """The method without training where it allows that: these networks have seen nothing anyway."""
    return laws.quick(cls, **{"epochs": int(knobs(cls)["epochs"].low)} if "epochs" in knobs(cls) else {})


def in_turn() -> list:
    """All pairs of a network and a method, network after network; but for two networks of each method, exhaustive."""
    pairs = []
    for place, name in enumerate(NETWORKS):
        for turn, cls in enumerate(LAYERWISE):
            chosen = (place - turn) % len(NETWORKS) in (0, 3)
            marks = () if chosen else pytest.mark.exhaustive
            pairs.append(pytest.param(name, cls, marks=marks, id=f"{name}-{cls.__name__}"))
    return pairs


def test_every_method_meets_two_networks_and_every_network_several_methods():
    met = [pair.values for pair in in_turn() if not pair.marks]
    assert {cls: [c for _, c in met].count(cls) for cls in LAYERWISE} == dict.fromkeys(LAYERWISE, 2)
    assert min([name for name, _ in met].count(name) for name in NETWORKS) > 2
    assert len(in_turn()) == len(NETWORKS) * len(LAYERWISE)


@pytest.fixture(scope="module")
def given(request):
    """A network of torchvision, with its name."""
    return request.param, network(request.param)


@pytest.mark.parametrize("given, cls", in_turn(), indirect=["given"])
def test_layerwise_methods_compress_it_or_name_why_not(given, cls, tmp_path):
    name, model = given
    small = laws.every_layer_is_done_or_named(shortest(cls), model, pictures())
    if small is None:  # no plain ReLU follows a convolution, no first weights to go back to, no channels that divide
        assert cls in (CReLU, LotteryTicket, BiclusteredSVD, Net2Deeper)
        return
    laws.compare_with_dense(small, pictures())
    scores = small(pictures().x_validation)
    assert scores.shape == (2, 10)
    if cls is not LotteryTicket:  # it can build only our own networks anew
        assert save(small, tmp_path / "model.ce") == len(model_bytes(small))
        x = pictures().x_validation
        loaded = load(tmp_path / "model.ce", into=network(name), example=x)
        with torch.inference_mode():
            assert torch.equal(loaded(x), scores)


def test_activations_of_a_torchvision_network_are_calibrated():
    small = LinearQuantization(activation_bits=8)(network("mobilenet_v2"), pictures())
    assert laws.compare_with_dense(small, pictures()) == 53 and small.compression.skipped == ()
