"""The layers that a distillation compares: lists of pairs, words that find them in any two networks, and refusals."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.methods.distillation.shared.compared import found_pairs, named_pairs, nearest
from compedu.methods.distillation.shared.features import features_of, layers_in_order, name_meant
from compedu.networks import build
from compedu.reproducible import seeded
from compedu.torchvision_import import import_torchvision
from compedu.training import listening

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
        ValueError,
        match=r"AttentionTransfer.compared must be 'resolutions', 'embedding', or pairs .*is not a pair of la",
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
    ("lenet5", "fc2"), ("resnet", "fc"), ("vgg", "fc"), ("lenet300", "fc3"), ("inception", "fc"), ("mobilenet", "fc"),
    ("vit", "fc"),
])  # fmt: skip
def test_the_embedding_is_what_the_last_layer_reads(network, layer):
    name = f"input of {layer}"
    assert pairs("embedding", network, network) == ((name, name),)
    model = build(network, size=28)
    (feature,) = features_of(model, (name,), IMAGE, "it", gradients=True)
    torch.testing.assert_close(model.get_submodule(layer)(feature), model(IMAGE))


@pytest.mark.parametrize("teacher", ["vit(size=16, width=0.5, blocks=1)", "mobilenet(size=16, width=0.25)"])
def test_relations_are_learned_by_default_from_any_network(teacher):
    student = teacher.replace("0.5", "0.25")
    made = ce.RelationalDistillation(student=student, **FAST)(build(teacher), DATA)
    assert torch.isfinite(made(DATA.x_validation)).all()


class Disordered(nn.Module):
    """A network that lists its layers in another order than it runs them, with functions between them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 10)
        self.middle = nn.Linear(5, 6)
        self.first = nn.Linear(256, 5)
        self.spare = nn.Linear(5, 5)

    def forward(self, x):
        return self.head(self.middle(self.first(x.flatten(1)).tanh()).relu())


def test_layers_count_in_the_order_in_which_they_run_not_in_which_they_are_listed():
    model = Disordered().eval()
    assert layers_in_order(model, DATA.example) == ["first", "middle", "head"]
    found = [name_meant(model, word, DATA.example, "it") for word in ("first", "middle", "last", "input of last")]
    assert found == ["first", "middle", "head", "input of head"]
    assert found_pairs("embedding", model, model, DATA.example, "it") == (("input of head", "input of head"),)
    (feature,) = features_of(model, ("input of head",), DATA.example, "it")
    torch.testing.assert_close(model.head(feature), model(DATA.example))
    assert ce.FitNets().named((("middle", "last"),), model, model, DATA.example) == (("middle", "head"),)


def test_the_embedding_of_a_network_of_torchvision_is_what_its_last_layer_reads():
    with seeded(0):
        model = import_torchvision().models.resnet18(num_classes=10).eval()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert found_pairs("embedding", model, model, image, "it") == (("input of fc", "input of fc"),)
    order = layers_in_order(model, image)
    assert order.index("layer2.0.downsample.0") == order.index("layer2.0.conv2") + 1 and len(order) == 21


@pytest.mark.parametrize("compress", [ce.TruncatedSVD(rank=0.25), ce.LinearQuantization(bits=4)], ids=repr)
def test_a_form_is_one_layer(compress):
    model = compress(build("lenet300(size=16, width=0.2)"), DATA)
    assert layers_in_order(model, DATA.example) == ["fc1", "fc2", "fc3"]


class Around(nn.Module):
    """A module with weights of its own, added to what a layer inside of it gives; a head that is not a torch layer."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 4))
        self.inner = nn.Linear(256, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(self.inner(x) + self.place)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 10))

    def forward(self, x):
        return x @ self.matrix


def test_weights_count_where_they_are_and_a_module_around_layers_is_not_one():
    model = nn.Sequential(nn.Flatten(), Around(), Head()).eval()
    assert layers_in_order(model, DATA.example) == ["1.inner", "2"]
    assert found_pairs("embedding", model, model, DATA.example, "it") == (("input of 2", "input of 2"),)


class Giving(nn.Module):
    """A network with a layer that gives a feature no loss can train: detached, whole numbers, or the image."""

    def __init__(self, of):
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(256, 10)
        self.seen = nn.Identity()
        self.of = of

    def forward(self, x):
        logits = self.fc(self.flatten(x))
        self.seen(self.of(logits))
        return logits


@pytest.mark.parametrize(("of", "layer", "match"), [
    (torch.detach, "seen", "layer 'seen' of the student of .* gives a feature without a gradient"),
    (lambda logits: logits.argmax(1, True), "seen", "layer 'seen' of the student of .* of type torch.int64; features"),
    (torch.relu, "flatten", "layer 'flatten' of the student of .* gives a feature without a gradient"),
    (torch.relu, "input of fc", "layer 'input of fc' of the student of .* gives a feature without a gradient"),
], ids=["detached", "whole numbers", "image", "read"])  # fmt: skip
@pytest.mark.parametrize("method", [ce.RelationalDistillation, ce.SimilarityPreserving, ce.NeuronSelection])
def test_a_feature_that_no_loss_can_train_is_refused_by_name(method, of, layer, match):
    teacher = build("lenet300(size=16, width=0.2)")
    with pytest.raises(CompressionError, match=match), listening(lambda step: pytest.fail("it trained")):
        method(student=Giving(of), compared=f"{layer}=fc2", **FAST)(teacher, DATA)


def test_whole_numbers_of_a_teacher_are_refused_and_frozen_features_of_a_student():
    teacher = Giving(lambda logits: logits.argmax(1, True))
    with pytest.raises(CompressionError, match=r"layer 'seen' of the teacher of .* of type torch.int64"):
        ce.SimilarityPreserving(student="lenet300(width=0.1)", compared="fc2=seen", **FAST)(teacher, DATA)
    frozen = build("lenet300(size=16, width=0.2)")
    frozen.fc1.requires_grad_(False)
    with pytest.raises(CompressionError, match=r"layer 'relu1' of the student of .* only frozen weights"):
        ce.SimilarityPreserving(student=frozen, compared="relu1", **FAST)(build("lenet300(size=16)"), DATA)


def test_maps_of_the_image_itself_are_not_compared_as_the_students():
    student = nn.Sequential(nn.Identity(), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)).eval()
    assert found_pairs("resolutions", student, student, IMAGE, "it") == (("1", "1"),)


@pytest.mark.parametrize(("compared", "match"), [
    ("resolution", r"no layer 'resolution'; its layers are conv1, .*; did you mean 'resolutions'\? compared takes 're"),
    ("embeding", r"no layer 'embeding'; .*; did you mean 'embedding'\? compared takes 'resolutions', 'embedding', or "),
    ("conv1=input of conv9", r"teacher of .* has no layer 'conv9'; its layers are conv1, .*; compared takes 'resolut"),
])  # fmt: skip
def test_a_word_that_is_misspelled_is_refused_with_the_words_and_the_layers(compared, match):
    method = ce.SimilarityPreserving(student="lenet5(width=0.2)", compared=compared, **FAST)
    with pytest.raises(CompressionError, match=match):
        method(build("lenet5(size=16, width=0.2)"), DATA)


def test_networks_without_such_layers_are_refused_by_name():
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


def test_a_network_whose_last_layer_runs_twice_or_that_has_none_has_no_embedding():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(256, 10)
            self.fc2 = nn.Linear(10, 10)

        def forward(self, x):
            return self.fc2(self.fc2(self.fc1(x.flatten(1))))

    with pytest.raises(CompressionError, match="layer 'fc2' of the student of .* runs more than once"):
        ce.SimilarityPreserving(student=Twice(), **FAST)(build("lenet300(size=16)"), DATA)
    with pytest.raises(CompressionError, match="it: its student has no layer 'last', as no layer with weights runs"):
        found_pairs("embedding", nn.Flatten(), Twice(), IMAGE, "it")
