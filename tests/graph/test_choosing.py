"""Channels chosen by number: repeated, moved and left out, and the network computes what it did."""

import copy

import pytest
import torch
from structures import STRUCTURES, Network, conv, images, plain
from torch import nn

from compedu.errors import CompressionError
from compedu.graph import ChannelGroup, Channels
from compedu.graph.choosing import Places
from compedu.graph.grouping import Member


def network(name: str) -> nn.Module:
    forward, layers = STRUCTURES[name]
    return Network(forward, **copy.deepcopy(layers)).double()


def assert_agree(one: nn.Module, other: nn.Module) -> None:
    x = images().double()
    torch.testing.assert_close(one.eval()(x), other.eval()(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", STRUCTURES)
def test_copies_and_another_order_change_nothing(name):
    model = network(name)
    channels = Channels(model, images().double())
    assert channels.groups
    for group in channels.groups:
        turned = list(range(group.size))[::-1]
        for chosen in (turned, [0, *range(group.size)], [*turned, 0, 0, group.size - 1]):
            made = channels.choose(model, {group.name: chosen}, verify=False)
            assert_agree(made, model)
            for maker in group.makers:
                before, after = (len(m.get_submodule(maker.layer).weight) for m in (model, made))
                assert (after > before) == (len(chosen) > group.size)


@pytest.mark.parametrize("stands", [[0, 2, 1], [0, 1, 2, 0], [0, -1, 1, 2], [0, 0, 1, 2]])
def test_channels_that_do_not_stand_together_are_refused_by_name(stands):
    member = Member("reader", "consumer", torch.tensor(stands))
    group = ChannelGroup("maker", 3, (member,))
    with pytest.raises(
        CompressionError, match="group 'maker' can be left out, but neither repeated nor moved: in 'rea"
    ):
        Places(len(stands)).choose(group, member, (0, 0, 1, 2))
    places = Places(len(stands))
    places.choose(group, member, (0, 2))
    assert [stands[place] for place in places.index()] == [number for number in stands if number != 1]


def test_widening_is_that_of_net2net():
    """Chen et al. 2016, algorithm 1: copied rows, and columns divided by how often each is there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x = torch.randn(7, 1, 8, 8, dtype=torch.float64)
    wide = Channels(model, x).choose(model, {"1": [0, 1, 2, 3, 4, 2, 2, 0]})
    chosen = [0, 1, 2, 3, 4, 2, 2, 0]
    first, second = model[1], model[3]
    torch.testing.assert_close(wide[1].weight, first.weight[chosen])
    torch.testing.assert_close(wide[1].bias, first.bias[chosen])
    by_hand = torch.stack([second.weight[:, c] / chosen.count(c) for c in chosen], 1)
    torch.testing.assert_close(wide[3].weight, by_hand)
    torch.testing.assert_close(wide(x), model(x))


def test_channels_may_be_left_out_repeated_and_moved_at_once():
    model = plain().double().eval()
    channels = Channels(model, images().double())
    made = channels.choose(model, {"first": [7, 3, 3, 0], "second": [5, 5, 1]})
    gone = {"first": [1, 2, 4, 5, 6], "second": [0, 2, 3, 4]}
    assert_agree(made, channels.zero(model, gone))
    assert (made.first.out_channels, made.second.in_channels, made.second.out_channels) == (4, 4, 3)


def test_to_remove_is_to_choose_the_others_in_their_order():
    model = plain()
    channels = Channels(model, images())
    one, other = channels.remove(model, {"first": [0, 5]}), channels.choose(model, {"first": [1, 2, 3, 4, 6, 7]})
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_group_between_the_channels_of_another_can_be_repeated_when_each_stands_together():
    layers = {"a": conv(3, 4), "b": conv(3, 2), "c": conv(6, 5)}
    model = Network(lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)), **layers).double()
    channels = Channels(model, images().double())
    assert_agree(channels.choose(model, {"a": [3, 3, 0, 1, 2], "b": [1, 0, 1]}), model)


@pytest.mark.parametrize(
    "chosen, said",
    [([], "keep at least one"), ([0, 8], "channels 0 to 7; asked to choose 0 to 8"), ([-1], "asked to choose -1")],
)
def test_what_a_group_has_not_is_refused(chosen, said):
    model = plain()
    with pytest.raises(CompressionError, match=said):
        Channels(model, images()).choose(model, {"first": chosen})


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_any_number_of_copies_is_verified_in_single_precision(copies):
    """A third of a weight is rounded in single precision; the law holds before that."""
    model = plain().eval()
    channels = Channels(model, images())
    made = channels.choose(model, {"first": [*range(8), *[3] * (copies - 1)]})
    torch.testing.assert_close(made(images()), model(images()), rtol=1e-4, atol=1e-5)
    assert made.second.weight.dtype == torch.float32


def test_what_cannot_be_chosen_is_named_group_by_group(monkeypatch):
    model = plain()
    channels = Channels(model, images())
    choose = Places.choose

    def unclear(self, group, member, chosen):
        if group.name == "second":
            raise CompressionError("unclear")
        choose(self, group, member, chosen)

    monkeypatch.setattr(Places, "choose", unclear)
    doubled = {group.name: [*range(group.size)] * 2 for group in channels.groups}
    assert channels.obstacles(model, doubled) == {"second": "unclear"}
    assert channels.obstacles(model, {"first": [*range(8), 0]}) == {}


def test_where_each_output_came_from_is_told_for_layers_that_make_channels():
    channels = Channels(plain(), images())
    found = channels.made_from({"first": [7, 3, 3, 0]})
    assert {name: numbers.tolist() for name, numbers in found.items() if name == "first"} == {"first": [7, 3, 3, 0]}
    assert "second" not in found  # which only reads them
