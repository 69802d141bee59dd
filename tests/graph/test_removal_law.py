"""Removal law: a network without some channels computes what the network with those channels silent computes."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch_pruning
from torch import nn

from compedu.errors import CompressionError
from compedu.graph import Channels, batch_norm_pairs, fold_batch_norm
from compedu.torchvision_import import import_torchvision

# The share of the network's batch norms that can be folded: in densenet121 the others stand before a convolution, in
# googlenet two belong to the auxiliary heads, which are not in the inference graph.
FOLDED = {
    "resnet18": (20, 20),
    "vgg11_bn": (8, 8),
    "googlenet": (57, 59),
    "mobilenet_v2": (52, 52),
    "densenet121": (59, 121),
    "squeezenet1_0": (0, 0),
    "efficientnet_b0": (49, 49),
}
LAW = 1e-12


def randomize_batch_norms(model: nn.Module) -> nn.Module:
    """Fresh batch norms are nearly the identity, which would leave the laws without teeth."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def torchvision_network(name: str) -> nn.Module:
    options = {"googlenet": {"init_weights": False}, "vgg11_bn": {"init_weights": False}}.get(name, {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomize_batch_norms(getattr(import_torchvision().models, name)(num_classes=10, **options))


def images(batch: int = 1, size: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def some_channels(channels: Channels, fraction: float = 0.4, round_to: int = 1) -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(2)
    return {
        group.name: torch.randperm(group.size, generator=generator)[: group.removable(fraction, round_to)].tolist()
        for group in channels.groups
    }


def outputs(model: nn.Module, example: torch.Tensor) -> torch.Tensor:
    """The outputs in float64; the model is converted in place to save memory."""
    with torch.no_grad():
        return model.double()(example.double())


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module", params=FOLDED)
def network(request):
    model = torchvision_network(request.param)
    return request.param, model, Channels(model, images())


def test_removed_equals_silent_after_many_groups_at_once(network):
    _name, model, channels = network
    removal, example = some_channels(channels), images()
    smaller = channels.remove(model, removal, verify=False)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, smaller))
    assert after < 0.45 * before
    silent = outputs(channels.zero(model, removal), example)
    assert relative(outputs(smaller, example), silent) <= LAW
    # The law has teeth: the channels that were taken out did matter.
    assert relative(outputs(copy.deepcopy(model), example), silent) > 1e-2


def test_every_layer_is_prunable_or_left_out_with_a_reason(network):
    _name, model, channels = network
    makers = {m.layer for group in channels.groups for m in group.members if m.role in ("producer", "depthwise")}
    left_out = dict(channels.left_out)
    layers = {n for n, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    assert makers | set(left_out) == layers and not makers & set(left_out)
    assert set(left_out.values()) == {"its channels are the network's output"}


def test_folded_network_equals_the_network(network):
    name, model, _channels = network
    assert (len(batch_norm_pairs(model)), norms(model)) == FOLDED[name]
    double, example = copy.deepcopy(model).double(), images()
    folded = fold_batch_norm(double)
    assert norms(folded) == FOLDED[name][1] - FOLDED[name][0]
    assert relative(outputs(folded, example), outputs(double, example)) <= LAW


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_zeroing_weights_and_biases_alone_is_not_removal():
    model, example = torchvision_network("resnet18"), images()
    channels = Channels(model, example)
    group = channels.groups[0]
    removal = {group.name: range(0, group.size, 2)}
    silent = copy.deepcopy(model)
    for layer in group.producers:
        silent.get_submodule(layer).weight.data[::2] = 0
    assert relative(outputs(channels.remove(model, removal), example), outputs(silent, example)) > 1e-3


@pytest.mark.parametrize("role", ["consumer", "normalization", "producer"])
def test_one_wrong_channel_is_caught_by_verification(role):
    model, example = torchvision_network("resnet18"), images()
    channels = Channels(model, example)
    group = channels.groups[1]
    shifted = tuple(replace(m, channels=m.channels.roll(1)) if m.role == role else m for m in group.members)
    channels.groups = (replace(group, members=shifted),)
    channels.remove(model, {group.name: [3]}, verify=False)
    with pytest.raises(CompressionError, match=f"own: {group.name}"):
        channels.remove(model, {group.name: [3]})


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_0"])
def test_smaller_network_equals_the_one_that_torch_pruning_cuts_group_by_group(name):
    model, example = torchvision_network(name), images()
    channels = Channels(model, example)
    removal = some_channels(channels)
    oracle = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(oracle, (example,))
    for root, numbers in removal.items():
        graph.get_pruning_group(oracle.get_submodule(root), torch_pruning.prune_conv_out_channels, numbers).prune()
    ours, theirs = channels.remove(model, removal).state_dict(), oracle.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_channel_counts_stay_multiples_when_asked():
    model, example = torchvision_network("squeezenet1_0"), images()
    channels = Channels(model, example)
    smaller = channels.remove(model, some_channels(channels, 0.4, round_to=16))
    changed = [
        layer.out_channels
        for name, layer in smaller.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.out_channels != model.get_submodule(name).out_channels
    ]
    assert changed and all(count % 16 == 0 for count in changed)


def test_auxiliary_heads_follow_and_the_smaller_network_still_trains():
    model, example = torchvision_network("googlenet"), images(2)
    channels = Channels(model, example)
    smaller = channels.remove(model, some_channels(channels)).train()
    assert smaller.aux1.fc1.out_features < model.aux1.fc1.out_features
    logits = smaller(example)
    assert [tuple(head.shape) for head in logits] == [(2, 10)] * 3
    sum(head.square().sum() for head in logits).backward()
    assert all(p.grad.shape == p.shape for p in smaller.parameters())


# Small members of the families in which channels are shuffled, normalized over, or attended to.
SMALL = {
    "shufflenet": lambda models: models.ShuffleNetV2([2, 2, 2], [8, 16, 32, 32, 16], num_classes=10),
    "vit": lambda models: models.VisionTransformer(64, 32, 2, 2, 16, 24, num_classes=10),
    "swin": lambda models: models.SwinTransformer([4, 4], 8, [2, 1], [2, 2], [4, 4], num_classes=10),
    "swin_v2": lambda models: models.SwinTransformer(
        [4, 4],
        8,
        [2, 1],
        [2, 2],
        [4, 4],
        num_classes=10,
        block=models.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=models.swin_transformer.PatchMergingV2,
    ),
    "maxvit": lambda models: models.MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=10),
    "convnext": lambda models: models.ConvNeXt(
        [models.convnext.CNBlockConfig(8, 16, 1), models.convnext.CNBlockConfig(16, None, 1)], num_classes=10
    ),
    "regnet": lambda models: models.RegNet(
        models.regnet.BlockParams([1, 2], [32, 48], [16, 16], [1.0, 1.0], [2, 2], 0.25), num_classes=10, stem_width=8
    ),
}
# How many of their Conv2d and Linear layers lose filters, by a part of the name; all others keep theirs.
SHRINK = {
    "shufflenet": {"branch": 24, "conv1": 1, "conv5": 1},
    "vit": {"mlp.0": 2},
    "swin": {"mlp.0": 3},
    "swin_v2": {"mlp.0": 6},
    "maxvit": {"MBconv": 7, "mlp_layer.1": 4, "stem": 2, "classifier": 1},
    "convnext": {"block": 2},
    "regnet": {"block": 16, "stem": 1},
}


def small_network(family: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomize_batch_norms(SMALL[family](import_torchvision().models))
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale") or not parameter.any():
                nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("family", SMALL)
def test_what_can_be_followed_is_removed_and_the_model_is_untouched(family):
    model, example = small_network(family), images()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    channels = Channels(model, example)
    removal = some_channels(channels)
    smaller, silent = channels.remove(model, removal), outputs(channels.zero(model, removal), example)
    shrunk = [
        name
        for name, layer in smaller.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and len(layer.weight) < len(model.get_submodule(name).weight)
    ]
    assert relative(outputs(smaller, example), silent) <= LAW
    assert relative(outputs(copy.deepcopy(model), example), silent) > 1e-3
    parts = [next((part for part in SHRINK[family] if part in name), name) for name in shrunk]
    assert Counter(parts) == SHRINK[family]
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_channels_that_meet_attention_stay_with_the_reason():
    model = small_network("swin_v2")
    reasons = dict(Channels(model, images()).left_out)
    assert "which counts on 2 of them" in reasons["features.1.0.attn.cpb_mlp.2"]
    assert "'features.1.0.norm2', a LayerNorm, whose effect" in reasons["features.1.0.mlp.3"]
    assert reasons["features.1.0.attn.qkv"] == "the network does not call it as a separate layer"


def test_a_frozen_network_is_followed_in_inference_mode_too():
    model = small_network("vit")
    expected = [group.name for group in Channels(model, images()).groups]
    with torch.inference_mode():
        assert [group.name for group in Channels(model.requires_grad_(False), images()).groups] == expected
