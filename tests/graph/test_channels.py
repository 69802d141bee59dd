"""Channel groups on small networks: what is coupled, what stays and why, what a removal refuses."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from structures import STRUCTURES, Network, conv, images, masked, plain
from torch import fx, nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.files import load, save
from compedu.graph import ChannelGroup, Channels, batch_norm_pairs, find_channels, fold_batch_norm
from compedu.methods import FilterPruning


def sizes(channels: Channels) -> dict[str, int]:
    return {group.name: group.size for group in channels.groups}


def reason(channels: Channels, layer: str) -> str:
    return dict(channels.left_out)[layer]


# Channel groups: what is coupled


def test_members_and_roles_of_a_plain_chain():
    channels = Channels(plain(), images())
    assert sizes(channels) == {"first": 8, "second": 6}
    assert [(m.layer, m.role, m.side) for m in channels.groups[1].members] == [
        ("second", "producer", "output"),
        ("norm", "normalization", "output"),
        ("fc", "consumer", "input"),
    ]
    assert channels.left_out == (("fc", "its channels are the network's output"),)


def test_members_by_what_they_do_with_the_channels():
    layers = {
        "a": conv(3, 6), "deep": conv(6, 6, groups=6), "norm": nn.BatchNorm2d(6), "slope": nn.PReLU(6),
        "b": conv(6, 4),
    }  # fmt: skip
    group = Channels(Network(lambda net, x: net.b(net.slope(net.norm(net.deep(net.a(x))))), **layers), images()).groups[
        0
    ]
    of = {
        name: [m.layer for m in getattr(group, name)] for name in ("makers", "normalizations", "activations", "readers")
    }
    assert of == {"makers": ["a", "deep"], "normalizations": ["norm"], "activations": ["slope"], "readers": ["b"]}
    assert group.producers == ("a",) and torch.equal(group.filters("a"), torch.arange(6))


@pytest.mark.parametrize("name", STRUCTURES)
def test_removal_law_holds_on(name):
    forward, layers = STRUCTURES[name]
    model, example = Network(forward, **copy.deepcopy(layers)).double(), images().double()
    channels = Channels(model, example)
    assert channels.groups
    for single in [
        *({g.name: [g.size - 1, 0][: g.size - 1]} for g in channels.groups),
        {g.name: range(g.removable(0.5)) for g in channels.groups},
    ]:
        smaller = channels.remove(model, single, verify=False)
        silent = channels.zero(model, single)(example)
        assert torch.allclose(smaller(example), silent, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(model(example), silent, rtol=1e-3, atol=1e-3)


def test_groups_of_a_grouped_convolution_stay_equally_wide():
    forward, layers = STRUCTURES["grouped"]
    model = Network(forward, **copy.deepcopy(layers))
    channels = Channels(model, images())
    assert sizes(channels) == {"a": 2, "b": 3}
    smaller = channels.remove(model, {"a": [0], "b": [2]})
    assert (smaller.b.in_channels, smaller.b.out_channels, smaller.b.groups) == (4, 8, 4)
    assert torch.equal(smaller.b.weight, model.b.weight[[0, 1, 3, 4, 6, 7, 9, 10], 1:])


def test_a_join_before_a_grouped_convolution_couples_its_parts():
    forward, layers = STRUCTURES["grouped behind a join"]
    assert sizes(Channels(Network(forward, **copy.deepcopy(layers)), images())) == {"a": 6, "g": 4}


def test_channels_that_go_different_ways_make_groups_of_their_own_and_no_layer_becomes_empty():
    forward, layers = STRUCTURES["joined, then added"]
    model = Network(forward, **copy.deepcopy(layers))
    channels = Channels(model, images())
    assert sizes(channels) == {"a": 4, "b": 5}
    smaller = channels.remove(model, {"a": [0, 1, 2], "b": [0, 1, 2, 3]})
    assert (smaller.a.out_channels, smaller.b.out_channels, smaller.c.out_channels) == (1, 1, 2)


def test_second_group_of_one_layer_has_a_name_of_its_own():
    forward, layers = STRUCTURES["grouped behind an uneven join"]
    channels = Channels(Network(forward, **copy.deepcopy(layers)), images())
    assert sizes(channels) == {"a": 2, "a/2": 4, "g": 4}
    assert [group.producers for group in channels.groups] == [("a",), ("a", "b"), ("g",)]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("shuffled", {"a": 4}),
        ("halves that go different ways", {"a": 4, "b": 5}),
        ("stacked, then interleaved", {"a": 4}),
        ("side by side in space", {"a": 5}),
        ("weighted by one map", {"a": 5}),
        ("channels last, hidden layer of a transformer", {"up": 12}),
        ("flattened and averaged side by side", {"a": 4, "a2": 5}),
    ],
)
def test_channels_are_followed_where_they_are_moved(name, expected):
    forward, layers = STRUCTURES[name]
    assert sizes(Channels(Network(forward, **copy.deepcopy(layers)), images())) == expected


def test_depthwise_channels_follow_their_producer():
    forward, layers = STRUCTURES["depthwise"]
    model = Network(forward, **copy.deepcopy(layers))
    channels = Channels(model, images())
    assert sizes(channels) == {"a": 6} and channels.groups[0].producers == ("a",)
    smaller = channels.remove(model, {"a": [1, 4]})
    assert (smaller.b.in_channels, smaller.b.out_channels, smaller.b.groups) == (4, 4, 4)


# Channel groups: what stays, and why


@pytest.mark.parametrize(
    "forward, layers, why",
    [
        (lambda net, x: net.b(net.a(x) + x), {"a": conv(3, 3), "b": conv(3, 4)}, "joined with a network's input"),
        (lambda net, x: net.a(x), {"a": conv(3, 4)}, "the network's output"),
        (lambda net, x: _both(net.a(x), net.b), {"a": conv(3, 4), "b": conv(4, 4)}, "the network's output"),
        (
            lambda net, x: net.c(net.a(net.a(net.b(x)))),
            {"a": conv(4, 4), "b": conv(3, 4), "c": conv(4, 4)},
            "'a' is used 2 times",
        ),
        (
            lambda net, x: net.b(net.norm(net.a(x))),
            {"a": conv(3, 4), "norm": nn.GroupNorm(2, 4), "b": conv(4, 4)},
            "go through 'norm', a GroupNorm",
        ),
        (
            lambda net, x: net.b(net.a(x) * net.scale),
            {"a": conv(3, 4), "b": conv(4, 4), "scale": nn.Parameter(torch.ones(4, 1, 1))},
            "a free parameter",
        ),
        (
            lambda net, x: net.b(net.a(x) * net.scale),
            {"a": conv(3, 4), "b": conv(4, 4), "scale": nn.Buffer(torch.ones(4, 1, 1))},
            "joined with a constant tensor",
        ),
        (
            lambda net, x: net.b(net.a(x).reshape(2, 4, 6, 6)),
            {"a": conv(3, 4), "b": conv(4, 4)},
            "'reshape' in the network's own forward, which counts on 4 of them",
        ),
        (
            lambda net, x: net.b(net.a(x).unflatten(1, (2, 2)).flatten(1, 2)),
            {"a": conv(3, 4), "b": conv(4, 4)},
            "'unflatten' in the network's own forward, whose effect on channels is not known",
        ),
        (
            lambda net, x: net.b(net.a(x)[:, 1:]),
            {"a": conv(3, 5), "b": conv(4, 4)},
            "takes some of them by their places",
        ),
        (
            lambda net, x: net.b(net.a(x).split(2, 1)[0]),
            {"a": conv(3, 4), "b": conv(2, 4)},
            "'split' in the network's own forward, which takes some of them by their places",
        ),
        (
            lambda net, x: net.b(net.a(x).chunk(2, 1)[0]),
            {"a": conv(3, 5), "b": conv(3, 4)},
            "cuts them into unequal pieces",
        ),
        (
            lambda net, x: net.b(net.a(x) * net.a(x).mean(1, keepdim=True)),
            {"a": conv(3, 4), "b": conv(4, 4)},
            "which mixes them",
        ),
        (lambda net, x: net.b(torch.softmax(net.a(x), 1)), {"a": conv(3, 4), "b": conv(4, 4)}, "go through 'softmax'"),
        (
            lambda net, x: net.b(F.pad(net.a(x), (0, 0, 0, 0, 1, 1))),
            {"a": conv(3, 4), "b": conv(6, 4)},
            "reaches over several of them",
        ),
        (
            lambda net, x: net.b(net.mix(net.a(x).flatten(2).transpose(1, 2).transpose(1, 2)).reshape(2, -1, 6, 6)),
            {"a": conv(3, 4), "mix": nn.Linear(36, 36), "b": conv(4, 4)},
            "coupled into a single one",
        ),
        (
            lambda net, x: net.b(net.a(x)) * net.a.weight.sum(),
            {"a": conv(3, 4), "b": conv(4, 4)},
            "also read directly",
        ),
        (
            lambda net, x: net.c(net.b(net.a(x))),
            {"a": conv(3, 4), "b": nn.ConvTranspose2d(4, 4, 1), "c": conv(4, 4)},
            "'b' is a ConvTranspose2d",
        ),
    ],
)
def test_channels_that_must_stay_are_left_out_with_the_reason(forward, layers, why):
    model = Network(forward, **copy.deepcopy(layers))
    channels = Channels(model, images())
    assert "a" not in sizes(channels) and why in reason(channels, "a")
    with pytest.raises(CompressionError, match="'a' keeps its channels because"):
        channels.remove(model, {"a": [0]})


def _both(y, layer):
    return y, layer(y)


def test_layer_that_the_network_never_calls_is_left_out_and_the_rest_is_free():
    model = Network(lambda net, x: net.b(net.a(x)), a=conv(3, 4), b=conv(4, 4), spare=conv(4, 4))
    channels = Channels(model, images())
    assert sizes(channels) == {"a": 4}
    assert reason(channels, "spare") == "the network does not call it as a separate layer"


def test_join_with_the_input_leaves_the_other_channels_free():
    model = Network(lambda net, x: net.b(torch.cat([x, net.a(x)], 1)), a=conv(3, 5), b=conv(8, 4)).double()
    channels = Channels(model, images().double())
    assert sizes(channels) == {"a": 5}
    assert torch.equal(channels.remove(model, {"a": [1, 3]}).b.weight, model.b.weight[:, [0, 1, 2, 3, 5, 7]])


def test_layers_with_a_shared_weight_stay():
    model = Network(lambda net, x: net.c(net.b(net.a(x).relu())), a=conv(3, 3), b=conv(3, 3), c=conv(3, 4))
    model.b.weight = model.a.weight
    assert "shares a parameter" in reason(Channels(model, images()), "a")


def test_compressed_layers_stay_and_the_rest_is_free():
    model = plain()
    model.first = masked(model.first)
    channels = Channels(model, images())
    assert sizes(channels) == {"second": 6}
    assert reason(channels, "first") == "'first' is already compressed (Masked): change its channels before that"


def test_channels_end_at_an_unknown_operation_by_name_and_the_others_are_free():
    mix = torch.eye(4)
    model = Network(
        lambda net, x: net.c(torch.einsum("nchw,ck->nkhw", net.b(net.a(x)), mix)),
        a=conv(3, 5),
        b=conv(5, 4),
        c=conv(4, 4),
    )
    channels = Channels(model, images())
    assert sizes(channels) == {"a": 5}
    assert "'einsum' in the network's own forward, whose effect on channels is not known" in reason(channels, "b")


# Removal: what is refused


def speaking_when_silent() -> Network:
    """Return a network whose layer `a` alone is followed by an operation that makes something of nothing."""
    return Network(
        lambda net, x: net.c(net.b(torch.sigmoid(net.a(x)) + net.d(x)).relu()),
        a=conv(3, 4),
        b=conv(4, 5),
        c=conv(5, 4),
        d=conv(3, 4),
    )


def test_groups_whose_silent_channels_speak_are_left_out_and_the_others_can_go():
    model = speaking_when_silent()
    channels = Channels(model, images())
    assert sizes(channels) == {"b": 5}
    assert reason(channels, "a") == reason(channels, "d")
    assert "removing its channels is not the same as zeroing them: outputs differ by" in reason(channels, "a")
    assert channels.remove(model, {"b": [0]}).b.out_channels == 4


def test_a_removal_that_only_some_weights_allow_is_caught_unless_verification_is_off():
    model = Network(lambda net, x: net.b(net.a(x) + net.shift), a=conv(3, 4), b=conv(4, 4))
    model.shift = nn.Parameter(torch.zeros(()))
    channels = Channels(model, images())
    with torch.no_grad():
        model.shift.fill_(1.0)
    with pytest.raises(CompressionError, match="outputs differ by .* on their own: a\\. "):
        channels.remove(model, {"a": [0]})
    assert channels.remove(model, {"a": [0]}, verify=False).a.out_channels == 3


def test_weights_that_are_not_numbers_are_refused():
    model = plain()
    model.first.weight.data[0] = torch.nan
    with pytest.raises(CompressionError, match="not finite"):
        Channels(model, images()).remove(model, {"first": [1]})


@pytest.mark.parametrize(
    "removal, message",
    [
        ({"first": range(8)}, "all 8 channels of group 'first' would be removed"),
        ({"first": [8]}, "'first' has channels 0 to 7; asked to remove 8 to 8"),
        ({"first": [-1]}, "'first' has channels 0 to 7"),
        ({"third": [0]}, "no channel group 'third'; the groups are first, second"),
        ({"fc": [0]}, "no channel group 'fc'; 'fc' keeps its channels because its channels are the network's output"),
    ],
)
@pytest.mark.parametrize("action", ["remove", "zero"])
def test_bad_removals_are_refused_by_name(action, removal, message):
    model = plain()
    with pytest.raises(CompressionError, match=message):
        getattr(Channels(model, images()), action)(model, removal)


def test_network_of_another_structure_is_refused():
    model = plain()
    channels = Channels(model, images())
    smaller = channels.remove(model, {"first": [0]})
    with pytest.raises(CompressionError, match="another structure"):
        channels.remove(smaller, {"first": [0]})


def test_removing_nothing_gives_an_equal_copy():
    model, x = plain(), images()
    same = Channels(model, x).remove(model, {"first": []})
    assert same is not model and torch.equal(same(x), model(x))


def test_input_model_is_untouched_in_weights_mode_gradients_and_random_state():
    model = plain().train()
    model.first.weight.requires_grad_(False)
    model(images()).sum().backward()
    before, gradient = copy.deepcopy(model.state_dict()), model.second.weight.grad.clone()
    state = torch.get_rng_state()
    with torch.no_grad():
        smaller = Channels(model, images()).remove(model, {"first": [0], "second": [1, 2]})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training and smaller.training and torch.equal(model.second.weight.grad, gradient)
    assert not model.first.weight.requires_grad and not smaller.first.weight.requires_grad
    assert smaller.second.weight.requires_grad and torch.equal(torch.get_rng_state(), state)


# Choosing and remembering


@pytest.mark.parametrize(
    "size, fraction, round_to, removed",
    [
        (100, 0.29, 1, 29),
        (10, 0.0, 1, 0),
        (10, 0.99, 1, 9),
        (64, 0.5, 8, 32),
        (64, 0.55, 8, 32),
        (20, 0.5, 8, 4),
        (6, 0.5, 8, 0),
        (3, 0.5, 1, 1),
    ],
)
def test_count_to_remove_keeps_a_multiple_and_never_everything(size, fraction, round_to, removed):
    assert ChannelGroup("a", size, ()).removable(fraction, round_to) == removed


@pytest.mark.parametrize("fraction, round_to", [(1.0, 1), (-0.1, 1), (0.5, 0)])
def test_impossible_counts_are_refused(fraction, round_to):
    with pytest.raises(ValueError, match="must be at least"):
        ChannelGroup("a", 4, ()).removable(fraction, round_to)


def test_totals_add_up_the_filters_that_one_channel_owns():
    forward, layers = STRUCTURES["grouped"]
    group = Channels(Network(forward, **copy.deepcopy(layers)), images()).groups[1]
    assert group.totals(group.filters("b"), torch.arange(12.0)).tolist() == [
        0 + 3 + 6 + 9,
        1 + 4 + 7 + 10,
        2 + 5 + 8 + 11,
    ]


def test_groups_are_remembered_until_the_structure_changes():
    model = plain()
    first = find_channels(model, images())
    assert find_channels(model, images()) is first
    model.second = conv(8, 6, groups=2)
    assert find_channels(model, images()) is not first


@pytest.mark.parametrize("switch", ["skip", "number"])
def test_groups_are_found_again_where_the_network_takes_another_path_since(switch):
    def forward(net, x):
        x = net.first(x).relu()
        y = net.second(x)
        return net.fc((x + y if net.skip or net.number else y).mean((2, 3)))

    model = Network(forward, first=conv(3, 6), second=conv(6, 6), fc=nn.Linear(6, 4))
    model.skip, model.number = False, 0
    assert sizes(find_channels(model, images())) == {"first": 6, "second": 6}
    setattr(model, switch, type(getattr(model, switch))(1))
    assert sizes(find_channels(model, images())) == {"first": 6}
    data = Dataset("images", *[images(), torch.arange(2)] * 3, tuple("01"))
    smaller = FilterPruning(sparsity=0.5)(model, data)
    assert smaller.first.out_channels == smaller.second.out_channels == 3


def test_memory_does_not_keep_a_network_alive():
    model = plain()
    find_channels(model, images())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_groups_found_once_serve_networks_with_other_weights():
    model, other = plain(), plain()
    other.first.weight.data.neg_()
    channels = Channels(model, images())
    assert torch.equal(channels.remove(other, {"first": [0]}).first.weight, other.first.weight[1:])


def test_a_network_that_cannot_run_in_float64_is_refused_by_name():
    model = Network(
        lambda net, x: net.c(torch.einsum("nchw,cd->ndhw", net.b(net.a(x)), torch.eye(4))),
        a=conv(3, 5),
        b=conv(5, 4),
        c=conv(4, 4),
    )
    channels = Channels(model, images())
    with pytest.raises(CompressionError, match="Network does not run in float64 .*nothing can be compared"):
        channels.remove(model, {"a": [0]})


# Subclasses of batch norm, networks that are graphs


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm with an activation inside, as timm's BatchNormAct2d."""

    def __init__(self, maps: int, act: nn.Module):
        super().__init__(maps)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def test_batch_norms_with_an_activation_are_followed_and_folded(tmp_path):
    model = Network(
        lambda net, x: net.b(net.norm(net.a(x))), a=conv(3, 6), b=conv(6, 4), norm=NormAndActivation(6, nn.SiLU())
    )
    channels = Channels(model, images())
    assert sizes(channels) == {"a": 6}
    smaller = channels.remove(model, {"a": [1, 4]})
    assert smaller.norm.num_features == 4 and type(smaller.norm) is NormAndActivation
    folded = fold_batch_norm(model.double())
    assert batch_norm_pairs(model) == [("a", "norm")] and not isinstance(folded.norm, nn.BatchNorm2d)
    torch.testing.assert_close(folded(images().double()), model(images().double()), rtol=1e-10, atol=1e-10)
    save(folded, tmp_path / "folded")
    assert torch.equal(load(tmp_path / "folded", into=model)(images().double()), folded(images().double()))


def test_batch_norms_whose_way_of_working_is_not_known_are_left_alone():
    class Doubled(NormAndActivation):
        def forward(self, x):
            return 2 * super().forward(x)

    model = Network(lambda net, x: net.b(net.norm(net.a(x))), a=conv(3, 6), b=conv(6, 4), norm=Doubled(6, nn.SiLU()))
    with pytest.raises(CompressionError, match="cannot be traced: module 'norm'"):
        batch_norm_pairs(model)
    strange = Network(
        lambda net, x: net.b(net.norm(net.a(x))), a=conv(3, 6), b=conv(6, 4), norm=NormAndActivation(6, nn.Softmax(1))
    )
    assert "is followed by a Softmax" in reason(Channels(strange, images()), "a")


def test_networks_that_are_graphs_are_pruned_and_so_are_networks_of_graphs():
    graph = fx.symbolic_trace(plain())
    data = Dataset("images", *[images(), torch.arange(2)] * 3, tuple("01"))
    for model in (graph, Network(lambda net, x: net.part(x), part=graph)):
        smaller = FilterPruning(sparsity=0.5)(model, data)
        assert [layer.out_channels for layer in smaller.modules() if isinstance(layer, nn.Conv2d)] == [4, 3]
    other = fx.symbolic_trace(Network(lambda net, x: net.b(net.a(x)), a=conv(3, 8), b=conv(8, 6)))
    with pytest.raises(CompressionError, match="another structure"):
        Channels(graph, images()).remove(other, {"first": [0]})
