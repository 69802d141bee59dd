"""N:M patterns: against torch's sparsifier, against a loop, with other masks, in a file."""

import itertools

import laws
import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier

from compedu.files import file_sizes
from compedu.forms import Masked
from compedu.methods import FineTune, MagnitudePruning, PatternPruning
from compedu.methods.pruning.patterns import pattern_mask
from compedu.networks import build

PATTERNS = [(2, 4), (1, 4), (3, 4), (1, 2), (4, 8)]


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("keep, of", PATTERNS)
def test_masks_of_linear_layers_are_those_of_torch(keep, of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Linear(32, 16))
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, of), zeros_per_block=of - keep)
    ours = PatternPruning(keep=keep, of=of)(model)
    sparsifier.prepare(model, [{"tensor_fqn": "1.weight"}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    for place in (1, 2):
        assert torch.equal(ours[place].mask, model[place].parametrizations.weight[0].mask.bool())


@pytest.mark.parametrize("keep, of", PATTERNS)
@pytest.mark.parametrize("shape", [(3, 8, 3, 3), (5, 6, 2, 4), (4, 16), (2, 1, 4, 4), (3, 5, 3, 3), (2, 7)])
def test_masks_are_those_of_a_loop(shape, keep, of):
    scores = drawn(*shape).abs()
    along_channels = shape[1] % of == 0
    wanted = torch.zeros(shape, dtype=torch.bool)
    for out in range(shape[0]):
        places = list(itertools.product(*map(range, shape[1:])))
        if along_channels:  # windows one after another, channels next to each other
            places.sort(key=lambda place: place[1:])
        for start in range(0, len(places), of):
            group = sorted(places[start : start + of], key=lambda place: -scores[(out, *place)])
            for place in group[:keep]:
                wanted[(out, *place)] = True
    assert torch.equal(pattern_mask(scores, keep, of), wanted)


def test_ties_drop_the_earlier():
    assert pattern_mask(torch.ones(1, 4), 1, 4).tolist() == [[False, False, False, True]]


def test_every_layer_has_the_pattern_and_a_shorter_last_group_keeps_as_many():
    small = PatternPruning()(build("lenet5"))
    assert not small.compression.skipped
    for name in ("conv2", "fc1", "fc2"):
        layer = small.get_submodule(name)
        groups = layer.mask.movedim(1, -1).reshape(-1, 4)
        assert isinstance(layer, Masked) and bool((groups.sum(1) == 2).all())
    rows = small.conv1.mask.flatten(1)  # 25 weights: six groups, and one weight that has no rival
    assert bool((rows[:, :24].reshape(-1, 4).sum(1) == 2).all()) and bool(rows[:, 24].all())
    ends = pattern_mask(torch.tensor([[9.0, 1.0, 2.0, 8.0, 3.0, 1.0, 2.0]]), 1, 4)
    assert ends.tolist() == [[True, False, False, False, True, False, False]]


def test_a_pattern_and_an_earlier_mask_both_hold():
    once = MagnitudePruning(sparsity=0.3)(build("lenet5"))
    both = PatternPruning()(once)
    for name in ("conv2", "fc1", "fc2"):
        mask = both.get_submodule(name).mask
        assert not bool((mask & ~once.get_submodule(name).mask).any())
        assert int(mask.movedim(1, -1).reshape(-1, 4).sum(1).max()) == 2


def test_more_kept_than_there_are_is_refused():
    with pytest.raises(
        ValueError, match=r"^PatternPruning.keep must be at most of=4, got 5 \(weights kept in each group\)$"
    ):
        PatternPruning(keep=5)
    assert PatternPruning(keep=8, of=8).keep == 8


def test_positions_cost_at_most_one_bit_a_place():
    model = build("lenet300")
    small = PatternPruning(layers="fc1")(model)
    weights = 300 * 784
    saved = file_sizes(model, "packed")["packed"] - file_sizes(small, "packed")["packed"]
    spent = weights / 2 * 4 - saved  # beside the kept numbers themselves
    assert weights / 9 < spent < weights / 8 + 100


def test_the_pattern_survives_training():
    small = (PatternPruning() | FineTune(epochs=1))(laws.plain(), laws.data())
    assert bool((small.fc1.dense().detach().reshape(-1, 4).ne(0).sum(1) <= 2).all())
    assert not torch.equal(small.fc1.weight, PatternPruning()(laws.plain()).fc1.weight)
