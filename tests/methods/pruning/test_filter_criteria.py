"""Filter criteria: against torch-pruning's, against derivatives by small changes, and between layers."""

from functools import partial

import laws
import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from scipy.spatial.distance import cdist
from structures import STRUCTURES, Network, images
from torch import nn
from torch_pruning import importance

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.graph import find_channels
from compedu.knobs import knobs
from compedu.methods import FilterPruning, RandomFilterPruning
from compedu.methods.calibration import calibration_set
from compedu.methods.pruning.shared import filter_criteria
from compedu.methods.pruning.shared.channel_pruning import smallest
from compedu.methods.pruning.shared.filter_criteria import (
    batch_norm_scores,
    filter_scores,
    group_scores,
    loss_derivatives,
    mean_absolute,
    mean_distance,
    mean_square,
    sums_by_input,
    taylor_scores,
)  # fmt: skip
from compedu.networks import build

CRITERIA = knobs(FilterPruning)["criterion"].choices
KERNEL_CRITERIA = {"l1": mean_absolute, "l2": mean_square, "geometric-median": mean_distance}


def simple():
    """Two convolutions without biases, a batch norm behind the first; all numbers drawn, none negative."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0, 1, generator)
    return model.eval()


def pictures(count=5, channels=3, size=12, classes=4):
    x = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))
    y = torch.arange(count) % classes
    return Dataset("pictures", x, y, x, y, x, y, tuple(map(str, range(classes))))


def groups_of(model, data):
    return {group.name: group for group in find_channels(model, data.example).groups}


def theirs(criterion, model, layer, x):
    """The scores of torch-pruning for the output channels of `layer` and all that is coupled to them."""
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=x)
    linear = isinstance(layer, nn.Linear)
    prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
    return criterion(graph.get_pruning_group(layer, prune, idxs=list(range(len(layer.weight)))))


# One layer


@pytest.mark.parametrize(
    "ours, criterion",
    [
        (mean_absolute, importance.MagnitudeImportance(p=1, group_reduction="first", normalizer=None)),
        (mean_square, importance.MagnitudeImportance(p=2, group_reduction="first", normalizer=None)),
        # of weights that are not negative, whose first power is their absolute value
        (mean_distance, importance.FPGMImportance(p=1, group_reduction="first", normalizer=None)),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_criteria_of_kernels_are_those_of_torch_pruning_up_to_the_scale(ours, criterion):
    model = simple()
    other = theirs(criterion, model, model[3], pictures().example)
    found = ours(model[3].weight.detach()).float()
    torch.testing.assert_close(found / found.sum(), other / other.sum())
    assert found.std() > 1e-3 * found.mean()


def test_batch_norm_scales_are_those_of_torch_pruning():
    model, data = simple(), pictures()
    model[1].weight.data[2] *= -1
    other = theirs(
        importance.BNScaleImportance(group_reduction="first", normalizer=None), model, model[0], data.example
    )
    torch.testing.assert_close(batch_norm_scores(model, groups_of(model, data)["0"]), other)


def test_derivatives_of_one_image_are_those_of_torch_pruning():
    """Without a bias, the filter times its gradient is the activation times its gradient."""
    model, data = simple(), pictures()
    x, y = data.x_train[:1], data.y_train[:1]
    F.cross_entropy(model(x), y).backward()
    criterion = importance.TaylorImportance(group_reduction="first", normalizer=None, multivariable=True)
    other = theirs(criterion, model, model[3], x)
    torch.testing.assert_close(
        loss_derivatives(model, {"7": model[7]}, x, y)["7"][0].abs(), other, rtol=1e-4, atol=1e-7
    )


def test_distances_are_those_of_scipy():
    weight = torch.randn(60, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    rows = weight.flatten(1).double().numpy()
    sums = torch.tensor(cdist(rows, rows).sum(1))
    torch.testing.assert_close(mean_distance(weight) * 59 * 6, sums, rtol=1e-9, atol=0)
    assert mean_distance(weight[:1]).tolist() == [0.0]


def test_the_filter_in_the_middle_goes_by_the_median_and_the_small_one_by_the_norm():
    weight = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [2.0, 1.5]])
    assert int(mean_distance(weight).argmin()) == 1
    assert int(mean_absolute(weight).argmin()) == int(mean_square(weight).argmin()) == 0


# The Taylor criterion, by small changes


def small_change(model, group, channel, x, y, step=1e-6):
    """The derivative of each image's loss when all layers that read a channel get it larger: their weights grow."""
    losses = []
    for factor in (1 + step, 1 - step):
        changed = laws.copy.deepcopy(model)
        for member in group.members:
            if member.role == "consumer":
                changed.get_submodule(member.layer).weight.data[:, member.channels == channel] *= factor
        with torch.inference_mode():
            losses.append(F.cross_entropy(changed(x), y, reduction="none"))
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("make", [laws.plain, laws.normalized], ids=lambda make: make.__name__)
def test_the_taylor_score_is_the_mean_change_of_the_loss(make):
    model, (x, y) = make().double(), calibration_set(laws.data(), 6)
    x = x.double()
    groups = find_channels(model, x[:1]).groups
    for group, scores in zip(groups, taylor_scores(model, groups, x, y), strict=True):
        chosen = range(0, group.size, 3)
        by_hand = torch.stack([small_change(model, group, channel, x, y).abs().mean() for channel in chosen])
        assert float(scores.norm()) == pytest.approx(1)
        found = scores[list(chosen)].double()
        torch.testing.assert_close(found / found.sum(), by_hand / by_hand.sum(), rtol=1e-4, atol=1e-6)


def test_a_channel_that_several_layers_read_counts_as_a_whole():
    """Two readers whose contributions cancel: without the channel, the loss stays."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.b = nn.Linear(3, 2), nn.Linear(2, 4, bias=False), nn.Linear(2, 4, bias=False)
            self.b.weight.data = -self.a.weight.data.clone()
            self.b.weight.data[:, 1] += 1 + torch.arange(4.0)

        def forward(self, x):
            x = self.first(x.flatten(1)).relu() + 1
            return self.a(x) + self.b(x)

    model, x = Two().eval(), torch.ones(2, 3)
    group = next(group for group in find_channels(model, x).groups)
    scores = taylor_scores(model, [group], x, torch.tensor([0, 1]))[0]
    assert scores[0] < 1e-5 and scores[1] == pytest.approx(1)


def test_taylor_scores_do_not_depend_on_batches_and_leave_the_network_as_it_was(monkeypatch):
    model, data = laws.normalized(), laws.data()
    x, y = calibration_set(data, 20)
    groups, before = find_channels(model, x[:1]).groups, laws.state(model)
    whole = taylor_scores(model, groups, x, y)
    monkeypatch.setattr(filter_criteria, "BATCH", 7)
    for one, other in zip(whole, taylor_scores(model, groups, x, y), strict=True):
        torch.testing.assert_close(one, other)
    assert laws.state(model) == before
    FilterPruning(criterion="taylor")(model.train(), data)
    assert {name: p.grad for name, p in model.named_parameters() if p.grad is not None} == {}


def test_inputs_that_are_not_one_per_image_are_refused_by_name():
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(8, 3), nn.Linear(3, 2))
    with pytest.raises(CompressionError, match="2 gets 10 inputs for 5 images.*choose a criterion"):
        loss_derivatives(model, {"2": model[2]}, torch.randn(5, 2, 8), torch.zeros(10, dtype=torch.long))


# Several layers


@pytest.mark.parametrize("criterion", KERNEL_CRITERIA)
def test_a_layer_that_sees_everything_twice_scores_the_same(criterion):
    weight = torch.randn(9, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    score = KERNEL_CRITERIA[criterion]
    torch.testing.assert_close(score(torch.cat([weight, weight], 1)), score(weight))


def test_coupled_layers_score_by_the_mean_over_weights_or_batch_norms():
    model = laws.lively(build("resnet(blocks=1)"))
    group = groups_of(model, pictures(channels=1, size=32))["conv"]
    layers = [model.conv, model.stage1[0].conv2]
    assert [model.get_submodule(name) for name in group.producers] == layers
    for score in KERNEL_CRITERIA.values():
        one, other = (score(layer.weight.detach()) for layer in layers)
        torch.testing.assert_close(filter_scores(model, group, score), (9 * one + 144 * other) / 153)
    scales = (model.norm.weight.abs() + model.stage1[0].norm2.weight.abs()) / 2
    torch.testing.assert_close(batch_norm_scores(model, group), scales.detach())


# All that goes with a channel


@pytest.mark.parametrize("spec", ["lenet5", "vgg(width=0.25)", "resnet(blocks=2)", "inception(width=0.25)"])
def test_the_group_score_is_the_default_of_torch_pruning(spec):
    model = laws.lively(build(spec))
    size = 28 if spec == "lenet5" else 32
    example = torch.randn(1, 1, size, size)
    groups = find_channels(model, example).groups
    assert len(groups) >= 3
    for group in groups:
        lead = model.get_submodule(group.producers[0])
        assert len(lead.weight) == group.size
        other = theirs(importance.GroupMagnitudeImportance(p=1), model, lead, example)
        found = group_scores(model, group)
        torch.testing.assert_close(found, other, rtol=1e-5, atol=0)
        assert float(found.mean()) == pytest.approx(1) and found.std() > 1e-3


def without(model, group, channel):
    """A copy of `model` whose weights that go with one channel, those of kernels and the scales, are zero."""
    model = laws.copy.deepcopy(model)
    for member in group.members:
        layer = model.get_submodule(member.layer)
        for place in torch.where(member.channels == channel)[0].tolist():
            if member.role == "consumer":
                groups = getattr(layer, "groups", 1)
                of, place = divmod(place, layer.weight.shape[1])
                layer.weight.data.chunk(groups)[of][:, place] = 0
            elif member.role != "activation" and layer.weight is not None:
                layer.weight.data[place] = 0
    return model


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_group_score_is_the_magnitude_that_goes_with_the_channel(name):
    def magnitude(network):
        return sum(float(parameter.detach().double().abs().sum()) for parameter in network.parameters())

    forward, layers = STRUCTURES[name]
    model = Network(forward, **laws.copy.deepcopy(layers))
    for group in find_channels(model, images()).groups:
        lost = torch.tensor(
            [magnitude(model) - magnitude(without(model, group, channel)) for channel in range(group.size)]
        )
        torch.testing.assert_close(group_scores(model, group), lost / lost.mean(), rtol=1e-4, atol=0)


def test_what_reads_an_input_is_what_answers_to_it():
    layer = nn.Conv2d(12, 8, 3, groups=4, bias=False)
    weights = layer.weight.detach().abs()
    one_channel = torch.eye(12).view(12, 12, 1, 1).expand(12, 12, 3, 3)
    answers = F.conv2d(one_channel, weights, groups=4).flatten(1).sum(1)
    torch.testing.assert_close(sums_by_input(layer, weights), answers)


def test_where_all_weights_are_zero_all_channels_are_alike():
    model = simple()
    group = groups_of(model, pictures())["3"]
    for name in ("3", "7"):
        nn.init.zeros_(model.get_submodule(name).weight)
    assert group_scores(model, group).tolist() == [0.0] * 6


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("budget", ["uniform", "global"])
def test_the_lowest_scores_go(criterion, budget):
    model, data = laws.lively(build("resnet(size=28, blocks=1)", seed=3)), laws.data()
    groups = find_channels(model, data.example).groups
    method = FilterPruning(sparsity=0.3, criterion=criterion, budget=budget, calibration_images=16)
    if criterion == "taylor":
        scores = taylor_scores(model, groups, *calibration_set(data, 16))
    else:
        of_group = {"batch-norm": batch_norm_scores, "group": group_scores}
        of_group |= {name: partial(filter_scores, criterion=score) for name, score in KERNEL_CRITERIA.items()}
        scores = [of_group[criterion](model, group) for group in groups]
    removed = {record.group: record.channels for record in method(model, data).compression.removed}
    assert removed == {
        g.name: tuple(sorted(smallest(s, len(removed[g.name]))))
        for g, s in zip(groups, scores, strict=True)
        if g.name in removed
    }
    if budget == "uniform":
        assert [len(removed[group.name]) for group in groups] == [int(0.3 * group.size) for group in groups]
    else:
        assert sum(map(len, removed.values())) == int(0.3 * sum(group.size for group in groups))
        lost = torch.cat([score[list(removed.get(g.name, ()))] for g, score in zip(groups, scores, strict=True)])
        kept = [
            score[sorted({*range(g.size)} - {*removed.get(g.name, ())})]
            for g, score in zip(groups, scores, strict=True)
        ]
        assert all(len(score) == 1 or score.min() >= lost.max() for score in kept)


def test_every_criterion_has_its_own_opinion():
    model, data = laws.lively(build("resnet(size=28, blocks=1)", seed=3)), laws.data()
    results = [FilterPruning(criterion=criterion, calibration_images=16)(model, data) for criterion in CRITERIA]
    gone = [{record.group: record.channels for record in result.compression.removed} for result in results]
    assert all(one != other for place, one in enumerate(gone) for other in gone[:place])


# Where there is no batch norm


def test_layers_without_a_batch_norm_are_named_or_all_is_refused():
    with pytest.raises(
        CompressionError, match="criterion='batch-norm'.* conv1, conv2, fc1: no batch norm with scales follows it"
    ):
        FilterPruning(criterion="batch-norm")(build("lenet5"))
    model, data = simple(), pictures()
    smaller = FilterPruning(criterion="batch-norm")(model, data)
    assert smaller[0].out_channels == 4 and smaller[3].out_channels == 6
    reasons = {skipped.layer: skipped.reason for skipped in smaller.compression.skipped}
    assert reasons["3"] == "no batch norm with scales follows it: choose another criterion"
    model[1] = nn.BatchNorm2d(8, affine=False)
    with pytest.raises(CompressionError, match="no batch norm with scales"):
        FilterPruning(criterion="batch-norm")(model.eval(), data)


# What a call needs, and the control arm


def test_only_the_taylor_criterion_needs_images():
    assert {criterion: FilterPruning(criterion=criterion).needs for criterion in CRITERIA} == {
        criterion: "calibration" if criterion == "taylor" else "weights" for criterion in CRITERIA
    }


@pytest.mark.parametrize("budget", ["uniform", "global"])
def test_random_filters_know_nothing_of_the_weights_and_differ_by_layer_and_seed(budget):
    def gone(seed, network_seed):
        smaller = RandomFilterPruning(sparsity=0.5, budget=budget, seed=seed)(build("lenet5", seed=network_seed))
        return {record.group: set(record.channels) for record in smaller.compression.removed}

    first, other = gone(0, 1), gone(1, 1)
    assert first == gone(0, 2) != other
    assert sum(map(len, first.values())) == 285
    assert 90 < len(first["fc1"] & other["fc1"]) < 160  # independent halves of 500 share a quarter
    assert first["conv2"] != {channel for channel in first["fc1"] if channel < 50}


def test_the_control_arm_of_filters_is_known_by_name():
    assert (
        getattr(ce, FilterPruning.random_baseline) is RandomFilterPruning and RandomFilterPruning.random_baseline == ""
    )
