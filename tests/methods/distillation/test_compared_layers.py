"""The layers that a distillation compares: lists of pairs, words that find them in any two networks, and refusals."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.methods.distillation.shared.compared import found_pairs, named_pairs, nearest
from compedu.networks import build

DATA = digits(size=16).shortened(train=40, validation=10, test=10)
FAST = {"epochs": 1, "batch": 32}
IMAGE = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def pairs(word, student, teacher, image=IMAGE):
    return found_pairs(word, build(student, size=image.shape[-1]), build(teacher, size=image.shape[-1]), image, "it")


def test_a_list_names_pairs_and_a_single_name_a_layer_of_both():
    assert named_pairs(" stage1.0 = stage1 ,fc", "M.compared") == (("stage1.0", "stage1"), ("fc", "fc"))


@pytest.mark.parametrize("text", ["", "a=", "=b", "a=b=c", "a,,b", "a b, "])
def test_a_term_that_is_no_pair_is_refused_when_the_method_is_built(text):
    with pytest.raises(
        ValueError, match=r"AttentionTransfer.compared must be 'resolutions', 'embedding', or pairs .*is no pair of la"
    ):
        ce.AttentionTransfer(compared=text)


def test_a_pair_that_is_listed_twice_is_refused():
    with pytest.raises(ValueError, match=r"AttentionTransfer.compared lists the layers 'a=a' twice in 'a, b, a=a'"):
        ce.AttentionTransfer(compared="a, b, a=a")


@pytest.mark.parametrize(("student", "teacher", "expected"), [
    ("lenet5(width=0.25)", "lenet5", {"relu1": "relu1", "pool1": "pool1", "relu2": "relu2", "pool2": "pool2"}),
    ("resnet(blocks=1)", "resnet(blocks=3)", {"stage1": "stage1", "stage2": "stage2", "stage3": "stage3"}),
    ("vgg(width=0.5)", "vgg", {
        "features.relu1_2": "features.relu1_2", "features.relu2_2": "features.relu2_2",
        "features.relu3_2": "features.relu3_2", "features": "features",
    }),
    ("lenet5", "resnet", {"relu1": "stage1", "pool1": "stage2", "relu2": "stage3", "pool2": "stage3"}),
    ("resnet", "vgg", {"stage1": "features.relu1_2", "stage2": "features.relu2_2", "stage3": "features.relu3_2"}),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_resolutions_are_the_last_maps_of_each_size(student, teacher, expected):
    assert dict(pairs("resolutions", student, teacher)) == expected


def test_nearest_is_a_ratio_of_areas_and_the_larger_of_two():
    assert nearest((8, 8), [(16, 16), (4, 4)]) == nearest((8, 8), [(4, 4), (16, 16)]) == (16, 16)
    assert nearest((6, 6), [(10, 10), (4, 4)]) == (4, 4)  # 2 pixels less, a ratio of 1.5; the other has 1.67


@pytest.mark.parametrize(("network", "layer"), [
    ("lenet5", "relu3"), ("resnet", "flatten"), ("vgg", "flatten"), ("lenet300", "relu2"), ("inception", "flatten"),
])  # fmt: skip
def test_the_embedding_is_what_the_last_layer_reads(network, layer):
    assert pairs("embedding", network, network) == ((layer, layer),)


def test_networks_without_such_layers_are_refused_by_name():
    with pytest.raises(
        CompressionError, match=r"it: its student has no layer whose output is what the last layer, fc,"
    ):
        pairs("embedding", "vit", "lenet5")
    with pytest.raises(CompressionError, match=r"it: its teacher has no feature maps .* its layers are flatten, fc1, "):
        pairs("resolutions", "lenet5", "lenet300")
    teacher = build("lenet5(size=16, width=0.4)")
    method = ce.AttentionTransfer(student="lenet300(width=0.1)", **FAST)
    with pytest.raises(CompressionError, match=r"AttentionTransfer\(.*: its student has no feature maps"):
        method(teacher, DATA)
    with pytest.raises(CompressionError, match=r"the student of AttentionTransfer\(.*\) has no layer 'nosuch'"):
        replace(method, compared="nosuch=relu1")(teacher, DATA)
    with pytest.raises(CompressionError, match=r"the teacher of AttentionTransfer\(.*\) has no layer 'nosuch'"):
        replace(method, compared="relu1=nosuch")(teacher, DATA)


def test_a_layer_that_runs_twice_is_not_found():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.relu = nn.ReLU()
            self.fc = nn.Linear(2, 10)

        def forward(self, x):
            return self.fc(self.relu(self.relu(self.conv(x)).mean((2, 3))))

    (pair,) = found_pairs("resolutions", Folded().eval(), Folded().eval(), IMAGE, "it")
    assert pair == ("conv", "conv")


def test_what_a_network_computes_between_layers_is_no_output_of_a_layer():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(3, 3)
            self.fc2 = nn.Linear(3, 10)

        def forward(self, x):
            return self.fc2(self.fc1(x).tanh())

    with pytest.raises(CompressionError, match="no layer whose output is what the last layer, fc2, reads"):
        found_pairs("embedding", Between(), Between(), torch.ones(1, 3), "it")
