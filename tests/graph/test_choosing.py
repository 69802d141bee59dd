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
    with pytest.raises(CompressionError, match="group 'maker' can be neither repeated nor moved: in 'rea"):
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
    made, why = channels.choose_possible(model, doubled)
    assert why == {"second": "unclear"} and (made.first.out_channels, made.second.out_channels) == (16, 6)
    made, why = channels.choose_possible(model, {"first": [*range(8), 0]})
    assert why == {} and made.first.out_channels == 9
    assert channels.choose_possible(model, {"second": [0, 0]}) == (None, {"second": "unclear"})


@pytest.mark.parametrize("names, proofs", [(("first", "second"), 1), (("second",), 1)])
def test_a_choice_that_is_possible_is_proven_once(names, proofs, monkeypatch):
    model = plain()
    channels = Channels(model, images())
    proven = []
    difference = Channels._difference
    monkeypatch.setattr(Channels, "_difference", lambda *given: proven.append(1) or difference(*given))
    sizes = {group.name: group.size for group in channels.groups}
    channels.choose_possible(model, {name: [*range(sizes[name])] * 2 for name in names})
    assert len(proven) == proofs


def test_a_network_in_which_nothing_can_be_compared_is_refused_for_that():
    model = Network(lambda net, x: net.b(net.a(x).float()), a=conv(3, 4), b=conv(4, 4))
    channels = Channels(model, images())
    for try_it in (
        lambda: channels.choose_possible(model, {"a": [0, 1, 2, 3, 3]}),
        lambda: channels.choose(model, {"a": [0, 1, 2, 3, 3]}),
        lambda: channels.remove(model, {"a": [0]}),
    ):
        with pytest.raises(CompressionError, match="computes is open: Network does not run in float64") as caught:
            try_it()
        assert "on their own" not in str(caught.value)


def test_one_channel_in_all_groups_of_a_convolution_is_copied_within_each_group():
    model = Network(
        lambda net, x: net.c(net.b(net.norm(net.a(x)).sigmoid())),
        a=conv(3, 4), norm=nn.BatchNorm2d(4), b=conv(4, 8, groups=4), c=conv(8, 2),
    ).double()  # fmt: skip
    channels = Channels(model, images().double())
    (single,) = channels.single
    assert (single.name, single.size, [member.layer for member in single.members]) == ("a", 1, ["a", "norm", "b"])
    assert dict(channels.left_out)["a"] == "its channels are coupled into a single one, which cannot be removed"
    made = channels.choose(model, {"a": [0, 0, 0]})
    assert made.b.weight.shape == (8, 3, 3, 3) and made.norm.num_features == 12
    assert torch.equal(made.a.weight, model.a.weight.repeat_interleave(3, 0))
    assert_agree(made, model)
    for refused in (channels.remove, channels.zero):
        with pytest.raises(CompressionError, match="'a' keeps its channels because its channels are coupled"):
            refused(model, {"a": [0]})


def test_where_each_output_came_from_is_told_for_layers_that_make_channels():
    channels = Channels(plain(), images())
    found = channels.made_from({"first": [7, 3, 3, 0]})
    assert {name: numbers.tolist() for name, numbers in found.items() if name == "first"} == {"first": [7, 3, 3, 0]}
    assert "second" not in found  # which only reads them
