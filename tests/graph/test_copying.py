"""Copies of networks: what `copy.deepcopy` makes of them, whatever their modules hold."""

import copy
import copyreg
import gc
import weakref
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, fx, nn

from compedu.forms import Geometry, Masked
from compedu.graph import copying
from compedu.graph.copying import shared_copy, whole_copy
from compedu.graph.switches import switches_of
from compedu.graph.trace import put_module
from compedu.methods import LinearQuantization, TruncatedSVD
from compedu.networks import build


class Holding(nn.Module):
    """A network that holds more than modules: one list twice, itself, a tensor, a set, a module that is no child."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.again = self.layer
        self.inside = nn.Sequential(nn.Linear(2, 2))
        self.names, self.inside.names = [["a"]], None
        self.inside.names = self.names
        self.around = {"self": self}
        self.constant = torch.ones(2)
        self.seen = {1, 2}
        self.order = OrderedDict(layer=self.layer)
        self.hidden = (nn.ReLU(),)
        self.nothing = None
        self.register_module("empty", None)
        self.register_buffer("count", torch.zeros(1), persistent=False)
        self.register_buffer("no_buffer", None)


class Restored(nn.Linear):
    """Does something when it is restored from a state."""

    def __setstate__(self, state):
        super().__setstate__({**state, "restored": True})


class Copied(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo):
        made = Copied(2, 2).requires_grad_(False)
        made.weight.zero_()
        made.bias.zero_()
        return made


class Keyed(nn.Module):
    """Looks something up by one of its modules."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.slopes = {self.layer: 0.5, (self.layer, "too"): 1.5}


class Tied(nn.Module):
    """A head that reads, as soon as it is restored, a layer that another module holds as well."""

    class Head(nn.Module):
        def __init__(self, embedding: nn.Module):
            super().__init__()
            self.embedding = embedding

        def __setstate__(self, state):
            super().__setstate__(state)
            self.shape = tuple(self.embedding.weight.t().shape)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.inside = nn.Sequential(nn.ReLU(), self.Head(self.embedding))


class WithArguments(nn.Linear):
    """Cannot be made without an argument."""

    def __new__(cls, *arguments):
        assert arguments
        return super().__new__(cls)

    def __getnewargs__(self):
        return self.in_features, self.out_features


class Listed(nn.Linear):
    """Its class is registered with `copyreg`."""


copyreg.pickle(Listed, lambda module: (nn.ReLU, ()))


class Bag(nn.Module, dict):
    """A module that is a dictionary as well."""

    __hash__ = nn.Module.__hash__
    __eq__ = nn.Module.__eq__


def bag() -> nn.Module:
    made = Bag()
    made["a"] = 1
    return nn.Sequential(made)


def with_its_own_way() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].__deepcopy__ = lambda memo: nn.ReLU()
    return model


def with_hooks() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[0].register_forward_hook(print)
    model[1].register_forward_pre_hook(print)
    return model


def compressed() -> nn.Module:
    return (TruncatedSVD(rank=0.5) | LinearQuantization(bits=4))(build("lenet5(width=0.2)"))


KINDS = {
    "networks": lambda: build("resnet(blocks=1, width=0.25)"),
    "forms": compressed,
    "a single form": lambda: Masked(Geometry.of(nn.Linear(2, 2)), torch.ones(2, 2), torch.ones(2, 2) > 0, None),
    "holding": Holding,
    "hooks": with_hooks,
    "recurrent": lambda: nn.Sequential(nn.LSTM(2, 3, 2)),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 8, batch_first=True),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
    "graph": lambda: nn.Sequential(fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))))),
    "restored": lambda: nn.Sequential(Restored(2, 2)),
    "keyed": Keyed,
    "tied": Tied,
    "with arguments": lambda: nn.Sequential(WithArguments(2, 2)),
    "listed": lambda: nn.Sequential(Listed(2, 2)),
    "bag": bag,
    "its own way": with_its_own_way,
    "copied": lambda: nn.Sequential(Copied(2, 2), nn.Sequential(Copied(2, 2))),
}


def contents(value, seen: dict) -> object:
    """What `value` is made of, its objects numbered in the order in which they are met."""
    if id(value) in seen:
        return "met before", seen[id(value)]
    if value is None or isinstance(value, (bool, int, float, str, type)):
        return value
    seen[id(value)] = len(seen)
    kind = type(value)
    if isinstance(value, Tensor):
        return kind.__name__, tuple(value.shape), value.dtype, value.requires_grad, value.tolist()
    if isinstance(value, nn.Module):
        items = sorted(value.items()) if isinstance(value, dict) else ()
        return kind.__name__, items, [(name, contents(item, seen)) for name, item in sorted(vars(value).items())]
    if isinstance(value, dict):
        return kind, [(contents(key, seen), contents(item, seen)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set)):
        return kind, [contents(item, seen) for item in value]
    return kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_what_deepcopy_makes(kind):
    model = KINDS[kind]()
    copied = whole_copy(model)
    assert contents(copied, {}) == contents(copy.deepcopy(model), {})
    assert switches_of(copied) == switches_of(copy.deepcopy(model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_shares_no_module_container_or_tensor_with_its_network(kind):
    model = KINDS[kind]()
    copied = whole_copy(model)
    parts: dict[int, int] = {}
    contents(copied, parts)
    containers = (value for module in model.modules() for value in vars(module).values())
    own = {id(value) for value in containers if isinstance(value, (dict, list, set))}
    own |= {id(one) for one in (*model.modules(), *model.parameters(), *model.buffers())}
    assert not own & parts.keys()


def test_a_shared_copy_has_the_same_tensors():
    model = build("resnet(blocks=1, width=0.25)")
    tensors = model.state_dict(keep_vars=True)
    assert {name: id(tensor) for name, tensor in shared_copy(model).state_dict(keep_vars=True).items()} == {
        name: id(tensor) for name, tensor in tensors.items()
    }
    ones = torch.ones(1)
    given = next(iter(tensors.values()))
    assert next(iter(shared_copy(model, {id(given): ones}).state_dict(keep_vars=True).values())) is ones


def test_a_copy_keeps_no_class_alive():
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2)))
    whole_copy(nn.Sequential(graph))
    kind = weakref.ref(type(graph))
    del graph
    gc.collect()
    assert kind() is None


def test_a_module_is_put_in_place_inside_one_that_adds_modules():
    class Adding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "layer":
                super().__setattr__(f"other{len(self._modules)}", nn.ReLU())

    model = Adding()
    new = nn.Linear(2, 2)
    put_module(model, model.layer, new)
    assert model.layer is new


def test_modules_of_ordinary_classes_are_not_left_to_deepcopy(monkeypatch):
    asked = []
    original = copy.deepcopy
    monkeypatch.setattr(copying.copy, "deepcopy", lambda value, memo: asked.append(value) or original(value, memo))
    model = build("lenet5(width=0.2)")
    shared_copy(model)
    assert not [value for value in asked if isinstance(value, nn.Module) and value is not model]
