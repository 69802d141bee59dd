"""Graph: tracing with forms as leaves, layers in front of a ReLU, batch-norm folding."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from structures import Network, conv, head, images, masked, plain
from torch import nn

from compedu.errors import CompressionError
from compedu.graph import batch_norm_pairs, fold_batch_norm, followed_by_relu, layer_calls, only_readers, trace
from compedu.graph.copying import whole_copy
from compedu.graph.trace import owners_read_apart, shared_weights
from compedu.networks import build

# Tracing


def test_forms_are_leaves_of_the_graph():
    model = plain()
    model.first = masked(model.first)
    assert list(layer_calls(trace(model))) == ["first", "second", "norm", "relu", "fc"]


def test_untraceable_module_is_named_with_the_reason():
    class Fickle(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    message = "module '1.inner' failed with TraceError: .*control flow.*layer by layer"
    with pytest.raises(CompressionError, match=message):
        trace(nn.Sequential(nn.Linear(2, 2), Network(lambda net, x: net.inner(x), inner=Fickle())))


def test_network_in_training_mode_is_traced_as_it_runs_at_inference_and_stays_in_training_mode():
    model = Network(
        lambda net, x: (net.main(x), net.spare(x)) if net.training else net.main(x),
        main=nn.Linear(2, 2),
        spare=nn.Linear(2, 2),
    ).train()
    assert list(layer_calls(trace(model))) == ["main"]
    assert model.training and model.main.training


def test_the_only_reader_of_a_module_called_once_is_a_module_too():
    layers = {name: nn.Linear(4, 4) for name in "abcdef"}
    model = Network(lambda net, x: net.e(net.d(net.d(net.b(net.a(x)) + net.c(x)))).relu() + net.f(net.e(x)), **layers)
    assert only_readers(trace(model)) == {"a": "b"}  # c is added, d and e are called twice, f is the output
    assert only_readers(trace(plain())) == {"second": "norm", "norm": "relu"}  # behind first comes a function


def test_graph_shares_the_tensors_of_the_network():
    model = plain()
    assert trace(model).get_submodule("first").weight is model.first.weight


# ReLU and folding


def test_relu_is_found_as_module_function_and_method_and_through_batch_norm():
    model = Network(
        lambda net, x: net.d(F.relu6(net.c(F.relu(net.b(net.norm(net.a(x)).relu()))))),
        a=conv(3, 4),
        norm=nn.BatchNorm2d(4),
        b=conv(4, 4),
        c=conv(4, 4),
        d=conv(4, 4),
    )
    assert followed_by_relu(model) == {"a", "b"}
    assert followed_by_relu(plain()) == {"first", "second"}


def test_layer_whose_output_is_also_read_before_the_relu_does_not_count():
    model = Network(lambda net, x: _plus_its_relu(net.a(x)), a=conv(3, 4))
    assert followed_by_relu(model) == set()


def _plus_its_relu(y):
    return y + y.relu()


@pytest.mark.parametrize(
    "layer, norm, shape",
    [
        (conv(3, 6, bias=False), nn.BatchNorm2d(6), (2, 3, 6, 6)),
        (conv(4, 6, groups=2), nn.BatchNorm2d(6), (2, 4, 6, 6)),
        (conv(3, 6), nn.BatchNorm2d(6, affine=False), (2, 3, 6, 6)),
        (nn.Linear(5, 6), nn.BatchNorm1d(6), (2, 5)),
        (nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6, eps=0.1), (2, 5)),
    ],
)
def test_folded_layer_equals_layer_and_batch_norm(layer, norm, shape):
    start = (lambda x: x.flatten(1)) if isinstance(layer, nn.Linear) else (lambda x: x)
    model = Network(lambda net, x: net.norm(net.layer(start(x))), layer=layer, norm=norm).double()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norm(model)
    assert type(folded.norm) is nn.Identity and folded.layer.bias is not None
    assert torch.allclose(folded(x), model(x), rtol=1e-12, atol=1e-12)


def test_folding_computes_in_float64_and_keeps_type_gradient_flag_and_input():
    model = plain()
    model.second.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    exact = fold_batch_norm(copy.deepcopy(model).double())
    assert torch.equal(folded.second.weight, exact.second.weight.float())
    assert not folded.second.weight.requires_grad and folded.second.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: _add_both(net.norm, net.layer(x)),
        lambda net, x: net.norm(net.layer(net.layer(x))),
        lambda net, x: net.norm(net.layer(net.norm(x))),
        lambda net, x: net.layer(net.norm(x)),
        lambda net, x: net.norm(net.layer(x).relu()),
    ],
    ids=["second reader", "layer twice", "batch norm twice", "batch norm first", "relu between"],
)
def test_what_cannot_be_folded_is_left_alone(forward):
    model = Network(forward, layer=conv(4, 4), norm=nn.BatchNorm2d(4))
    assert batch_norm_pairs(model) == []
    assert torch.equal(fold_batch_norm(model)(images(4)), model(images(4)))


FLATTENED = {
    "flatten": lambda x: x.flatten(1),
    "function": lambda x: torch.flatten(x, start_dim=1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape((x.shape[0], -1)),
    "pooled": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
}


@pytest.mark.parametrize("start", FLATTENED)
def test_batch_norm_behind_a_linear_layer_is_folded_where_its_input_is_flat(start):
    flat = FLATTENED[start](images(6)).shape[1]
    model = Network(
        lambda net, x: net.norm2(net.b(torch.relu(net.norm(net.a(FLATTENED[start](x)))))),
        a=nn.Linear(flat, 5),
        norm=nn.BatchNorm1d(5),
        b=nn.Linear(5, 5),
        norm2=nn.BatchNorm1d(5),
    ).double()
    x = images(6).double()
    assert batch_norm_pairs(model) == [("a", "norm"), ("b", "norm2")]
    assert torch.allclose(fold_batch_norm(model)(x), model(x), rtol=1e-12, atol=1e-12)


def test_batch_norm_behind_averaged_maps_is_folded():
    model = Network(
        lambda net, x: net.norm(net.fc(head(net.first(x)))),
        first=conv(3, 4),
        fc=nn.Linear(4, 5),
        norm=nn.BatchNorm1d(5),
    ).double()
    assert batch_norm_pairs(model) == [("fc", "norm")]
    assert torch.allclose(fold_batch_norm(model)(images().double()), model(images().double()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "start",
    [lambda x: x, lambda x: x.flatten(2).transpose(1, 2), lambda x: x.view(2, 6, 6)],
    ids=["as it comes", "tokens", "three sizes"],
)
def test_batch_norm_over_the_second_of_three_dimensions_stays(start):
    model = Network(lambda net, x: net.norm(net.fc(start(x))), fc=nn.Linear(6, 6), norm=nn.BatchNorm1d(6)).double()
    x = torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert batch_norm_pairs(model) == []
    if start(x).shape == x.shape:
        assert torch.equal(fold_batch_norm(model)(x), model(x))


def _add_both(norm, y):
    return norm(y) + y


def test_batch_norm_without_running_statistics_is_left_alone():
    model = Network(
        lambda net, x: net.norm(net.layer(x)), layer=conv(3, 4), norm=nn.BatchNorm2d(4, track_running_stats=False)
    )
    assert batch_norm_pairs(model) == []


def test_batch_norm_registered_under_two_names_is_folded_under_both():
    norm = nn.BatchNorm2d(4)
    model = Network(lambda net, x: net.alias(net.layer(x)), layer=conv(3, 4), norm=norm, alias=norm).double()
    x = images().double()
    assert torch.allclose(fold_batch_norm(model)(x), model(x), rtol=1e-12, atol=1e-12)


def test_networks_run_untouched_on_other_threads_while_one_is_traced():
    model, small, x = build("resnet(width=0.5)"), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3)
    expected, errors, done = small(x), [], threading.Event()

    def run():
        while not done.is_set():
            try:
                with torch.inference_mode():
                    assert torch.equal(small(x), expected)
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    traced = [trace(model) for _ in range(20)]
    done.set()
    thread.join()
    assert errors == [] and {len(t.graph.nodes) for t in traced} == {len(traced[0].graph.nodes)}


def test_weights_that_modules_share_and_that_are_read_apart_are_found():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out, self.enc = nn.Embedding(10, 6), nn.Linear(6, 10), nn.Linear(4, 3)
            self.out.weight = self.words.weight

        def forward(self, x):
            return torch.relu(self.enc(x)) @ self.enc.weight

    assert shared_weights(Net()) == {"words": "out", "out": "words"}
    assert owners_read_apart(trace(Net())) == {"enc"}


def test_a_hook_of_a_copy_is_not_one_of_the_original():
    model, x, calls = build("lenet300"), torch.zeros(1, 1, 28, 28), []
    model.fc1.register_forward_hook(lambda *given: calls.append("both"))
    copied = whole_copy(model)
    copied.fc1.register_forward_hook(lambda *given: calls.append("copy"))
    copied.fc2.register_forward_hook(lambda *given: calls.append("copy"))
    model.fc2.register_forward_hook(lambda *given: calls.append("original"))
    for network, expected in ((copied, ["both", "copy", "copy"]), (model, ["both", "original"])):
        calls.clear()
        network(x)
        assert calls == expected
