"""Pruning: masks against torch's own, filters against the removal law and the paper's ranking, the random control."""

import laws
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compedu.datasets import DATASETS
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import Masked
from compedu.graph import find_channels
from compedu.methods import (
    FilterPruning,
    GradualPruning,
    LinearQuantization,
    MagnitudePruning,
    RandomPruning,
    TruncatedSVD,
)
from compedu.methods.pruning.random_weights import random_scores
from compedu.methods.pruning.shared.channel_pruning import counts_over_all
from compedu.methods.pruning.shared.filter_criteria import filter_scores, mean_absolute
from compedu.networks import build
from compedu.networks.shipped import trained

LAYERS = ("conv1", "conv2", "fc1", "fc2")


def weights(model):
    return [(model.get_submodule(name), "weight") for name in LAYERS]


def reasons(model):
    return {s.layer: s.reason for s in model.compression.skipped}


def widths(model):
    return {n: m.weight.shape[0] for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def color(count=3, size=32):
    """A data set of color pictures, as torchvision's networks take them."""
    x, y = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(count)
    return Dataset("color", x, y, x, y, x, y, tuple("0123456789"))


# Magnitude pruning


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_masks_are_those_of_torch(sparsity):
    model, theirs = build("lenet5"), build("lenet5")
    ours = MagnitudePruning(sparsity=sparsity)(model)
    for layer, name in weights(theirs):
        prune.l1_unstructured(layer, name, amount=sparsity)
    for name in LAYERS:
        assert torch.equal(ours.get_submodule(name).mask, theirs.get_submodule(name).weight_mask.bool())


@pytest.mark.parametrize("sparsity", [0.3, 0.9])
def test_global_masks_are_those_of_torch(sparsity):
    model, theirs = build("lenet5"), build("lenet5")
    ours = MagnitudePruning(sparsity=sparsity, budget="global")(model)
    prune.global_unstructured(weights(theirs), prune.L1Unstructured, amount=sparsity)
    for name in LAYERS:
        assert torch.equal(ours.get_submodule(name).mask, theirs.get_submodule(name).weight_mask.bool())


def test_ties_leave_exactly_as_many_weights_as_asked():
    layer = nn.Linear(10, 10, bias=False)
    nn.init.constant_(layer.weight, 0.5)
    form = MagnitudePruning(sparsity=0.37)(nn.Sequential(layer))[0]
    assert int(form.mask.sum()) == 63


def test_pruning_twice_keeps_the_first_mask():
    once = MagnitudePruning(sparsity=0.5)(build("lenet5"))
    twice = RandomPruning(sparsity=0.5)(once)
    for name in LAYERS:
        first, second = once.get_submodule(name).mask, twice.get_submodule(name).mask
        assert not (second & ~first).any() and second.float().mean() < 0.35


def test_a_layer_that_would_lose_every_weight_is_refused_by_name():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 40))
    with pytest.raises(CompressionError, match="would leave no weight in 1 .*layers='-1'"):
        MagnitudePruning(sparsity=0.9)(model)


@pytest.mark.parametrize("method", [MagnitudePruning, FilterPruning])
def test_sparsities_by_layer_and_a_ranking_over_all_layers_exclude_each_other(method):
    with pytest.raises(ValueError, match=rf"{method.__name__}\.sparsity must be one number when budget is 'global'"):
        method(budget="global", sparsity={"*": 0.5})


# Random pruning


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_random_masks_have_the_sparsity_of_the_criterion_they_control(sparsity):
    model = build("lenet5")
    ours, criterion = RandomPruning(sparsity=sparsity)(model), MagnitudePruning(sparsity=sparsity)(model)
    for name in LAYERS:
        assert ours.get_submodule(name).mask.sum() == criterion.get_submodule(name).mask.sum()


def test_random_masks_know_nothing_of_the_weights_and_differ_by_layer_and_seed():
    model, other = build("lenet300", seed=1), build("lenet300", seed=2)
    assert torch.equal(RandomPruning()(model).fc1.mask, RandomPruning()(other).fc1.mask)
    assert not torch.equal(RandomPruning()(model).fc1.mask, RandomPruning(seed=1)(model).fc1.mask)
    first, second = RandomPruning(sparsity=0.5)(model).fc1.mask, RandomPruning(sparsity=0.5, seed=1)(model).fc1.mask
    share = (first & second).float().mean().item()
    assert 0.245 < share < 0.255  # independent halves overlap in a quarter
    kept = [first.float().mean(dim).std().item() for dim in (0, 1)]
    assert kept[0] < 1.2 * (0.25 / 300) ** 0.5 and kept[1] < 1.2 * (0.25 / 784) ** 0.5


def test_random_scores_never_change():
    """A file may outlive every library, so what the hash gives is fixed for good."""
    assert random_scores((3,), 0, "conv1").tolist() == [7470092708272261666, -3129780853681756832, 536416118088132040]
    assert random_scores((2, 3), 5, "fc").shape == (2, 3)


# Filter pruning


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_filters_of_smallest_norm_go_as_in_torch(criterion):
    model, theirs = build("lenet5"), build("lenet5")
    smaller = FilterPruning(sparsity=0.3, criterion=criterion)(model)
    for name in LAYERS[:3]:
        layer = theirs.get_submodule(name)
        prune.ln_structured(layer, "weight", amount=0.3, n=1 if criterion == "l1" else 2, dim=0)
        kept = layer.weight_mask.flatten(1).any(1)
        assert torch.equal(smaller.get_submodule(name).bias, model.get_submodule(name).bias[kept])
    assert widths(smaller) == {"conv1": 14, "conv2": 35, "fc1": 350, "fc2": 10}
    assert smaller.conv2.weight.shape == (35, 14, 5, 5) and smaller.fc1.weight.shape == (350, 35 * 16)


@pytest.mark.parametrize("spec", ["lenet300", "lenet5", "vgg(width=0.5)", "resnet"])
def test_the_smaller_network_computes_what_the_silenced_one_does(spec):
    model = build(spec)
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.bias, -0.5, 0.5, torch.Generator().manual_seed(0))
    size = 32 if spec[0] in "vr" else 28
    smaller = FilterPruning(sparsity=0.6)(model)
    channels = find_channels(model, torch.randn(1, 1, size, size))
    removal = {
        group.name: filter_scores(model, group, mean_absolute).argsort(stable=True)[: group.removable(0.6)].tolist()
        for group in channels.groups
    }
    x = torch.randn(3, 1, size, size, dtype=torch.float64)
    torch.testing.assert_close(smaller.double()(x), channels.zero(model, removal).double()(x), rtol=1e-10, atol=1e-12)


def test_layers_that_are_added_lose_the_same_channels_by_their_common_mean():
    model = build("resnet(blocks=1)")
    for layer in (model.conv, model.stage1[0].conv2):
        nn.init.ones_(layer.weight)
    model.conv.weight.data[3] *= 0.01
    model.stage1[0].conv2.weight.data[5] *= 0.01  # of 144 weights, against 9 in the first layer
    group = next(g for g in find_channels(model, torch.randn(1, 1, 32, 32)).groups if g.name == "conv")
    assert set(group.producers) == {"conv", "stage1.0.conv2"}
    scores = filter_scores(model, group, mean_absolute)
    assert scores.argsort()[:2].tolist() == [5, 3]
    torch.testing.assert_close(scores[[3, 5]], torch.tensor([(9 * 0.01 + 144) / 153, (9 + 144 * 0.01) / 153]))
    smaller = FilterPruning(sparsity=1 / 16)(model)
    assert smaller.conv.weight.shape[0] == smaller.stage1[0].conv2.weight.shape[0] == 15
    assert (smaller.conv.weight.mean((1, 2, 3)) < 0.1).sum() == 1 and (smaller.stage1[0].conv2.weight > 0.5).all()


def test_ranking_over_all_layers_removes_the_fraction_of_all_and_keeps_one_of_each():
    smaller = FilterPruning(sparsity=0.5, budget="global")(build("lenet5"))
    assert sum(n for name, n in widths(smaller).items() if name != "fc2") == 285
    weak = build("lenet5")
    weak.conv1.weight.data *= 1e-3
    kept = FilterPruning(sparsity=0.5, budget="global")(weak)
    assert widths(kept)["conv1"] == 1
    with pytest.raises(
        CompressionError, match=r"would remove 568 of 570 channels; only 567 can go.*lower the sparsity"
    ):
        FilterPruning(sparsity=0.998, budget="global")(weak)


def test_counts_over_all_layers_by_hand():
    scores = [torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0.1, 0.2])]
    assert counts_over_all(scores, 0.2) == [0, 1] and counts_over_all(scores, 0.6) == [2, 1]
    assert counts_over_all(scores, 0.0) == [0, 0]


@pytest.mark.parametrize("budget", ["uniform", "global"])
def test_widths_are_kept_to_multiples_where_asked(budget):
    smaller = FilterPruning(sparsity=0.55, round_to=8, budget=budget)(build("vgg"))
    assert all(n % 8 == 0 for name, n in widths(smaller).items() if name != "fc")
    same = FilterPruning(sparsity=0.5, round_to=10**6, budget=budget)(build("lenet5"))
    assert widths(same) == widths(build("lenet5"))


@pytest.mark.parametrize("sparsity", [0.9, 0.999])
def test_no_layer_is_ever_emptied(sparsity):
    smaller = FilterPruning(sparsity=sparsity)(build("vgg(width=0.1)"))
    assert min(widths(smaller).values()) >= 1 and smaller(torch.randn(2, 1, 32, 32)).shape == (2, 10)


def test_sparsity_by_layer_counts_for_whole_groups_and_the_rest_is_named():
    model = build("resnet(blocks=1)")
    smaller = FilterPruning(sparsity={"stage1.0.conv2": 0.5, "stage3.0.conv1": 0.25})(model)
    found = widths(smaller)
    assert found["conv"] == found["stage1.0.conv2"] == 8 and found["stage3.0.conv1"] == 48
    assert found["stage1.0.conv1"] == 16
    assert reasons(smaller)["stage1.0.conv1"] == "no pattern of the per-layer values matches it"
    assert reasons(smaller)["fc"] == "its channels are the network's output"
    assert "conv" not in reasons(smaller)


def test_a_layer_coupled_to_one_that_is_not_selected_stays_and_says_so():
    smaller = FilterPruning(layers="-stage1.0.conv2")(build("resnet(blocks=1)"))
    assert widths(smaller)["conv"] == 16
    assert reasons(smaller)["conv"] == "its channels go with those of stage1.0.conv2, which may not change"
    assert "not selected" in reasons(smaller)["stage1.0.conv2"]


def test_a_compressed_layer_keeps_its_channels_and_says_so():
    smaller = FilterPruning()(MagnitudePruning(layers="conv2")(build("lenet5")))
    assert widths(smaller)["fc1"] == 250 and isinstance(smaller.conv2, Masked)
    assert "already compressed (Masked)" in reasons(smaller)["conv2"]
    both = (FilterPruning() | LinearQuantization(bits=4))(build("lenet5"))
    assert both.conv2.geometry.shape == (25, 10, 5, 5)


def test_a_foreign_network_needs_an_image_and_then_works():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    with pytest.raises(CompressionError, match=r"FilterPruning\(\) needs an image .* Sequential.*\(model, data\)"):
        FilterPruning()(model)
    assert widths(FilterPruning()(model, color())) == {"0": 4, "2": 4, "6": 10}


class Decides(nn.Module):
    """A network whose channels cannot be followed: it looks at its data."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        return self.fc((self.conv(x) if x.sum() > 0 else -self.conv(x)).mean((2, 3)))


def test_a_network_that_cannot_be_traced_is_refused_and_untouched():
    model = Decides()
    before = model.conv.weight.clone()
    with pytest.raises(CompressionError, match="Decides cannot be traced"):
        FilterPruning()(model, color())
    assert torch.equal(model.conv.weight, before)


def test_channels_are_searched_once_for_all_settings_of_the_knobs(monkeypatch):
    from compedu.graph import channels

    model, searched = build("lenet5"), []
    whole = channels.read_coupling
    monkeypatch.setattr(channels, "read_coupling", lambda *given: searched.append(1) or whole(*given))
    for sparsity in (0.1, 0.5, 0.9):
        FilterPruning(sparsity=sparsity)(model)
    assert len(searched) == 1


# What the course stages on the shipped network


def test_magnitude_beats_random_and_whole_filters_cost_more_than_single_weights():
    model, data = trained("lenet5", "digits"), DATASETS["digits"]()

    def correct(method):
        return evaluate(method(model), data).correct

    assert correct(MagnitudePruning(sparsity=0.5)) >= evaluate(model, data).correct - 4
    assert correct(MagnitudePruning(sparsity=0.8)) > correct(RandomPruning(sparsity=0.8)) + 100
    assert correct(MagnitudePruning(sparsity=0.98)) < 200
    assert correct(FilterPruning(sparsity=0.75)) < evaluate(model, data).correct - 20


def test_filter_pruning_names_the_layers_inside_factored_ones_with_the_reason():
    factored = TruncatedSVD(rank=0.2)(build("lenet5(size=28)"))
    with pytest.raises(CompressionError, match=r"conv1\.first.*already compressed \(Factored\)"):
        FilterPruning()(factored)


def test_each_layer_is_left_out_for_its_own_reason_whatever_the_order_of_sets():
    masked = MagnitudePruning(sparsity=0.5)(build("vgg(width=0.1)"))
    with pytest.raises(CompressionError) as refused:
        FilterPruning()(masked)
    names = [name for name, layer in masked.named_modules() if isinstance(layer, Masked)]
    for name in names[:-1]:
        assert f"{name}: '{name}' is already compressed (Masked)" in str(refused.value)


def test_a_network_whose_layers_all_refuse_a_mask_is_refused_and_a_layer_that_does_is_named():
    model = laws.plain()
    model.fc1.mask = "of the user"
    for method in (MagnitudePruning(sparsity=0.5), laws.quick(GradualPruning)):
        result = method(model, laws.data())
        assert "fc1" in {skipped.layer for skipped in result.compression.skipped} and isinstance(result.fc2, Masked)
        alone = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        alone[1].mask = "of the user"
        with pytest.raises(CompressionError, match="found nothing to compress: 1: "):
            method(alone, laws.data())
