"""Answers about how a network reaches its layers: found once for what cannot differ, and again for what can."""

import copy
from unittest import mock

import laws
import pytest
import torch
from torch import nn

from compedu.graph import answers, replacement
from compedu.graph.known_code import runs_known_code, structure_of
from compedu.graph.own_hooks import has_own_forward
from compedu.methods import LinearQuantization, MagnitudePruning
from compedu.methods import task as task_module


@pytest.fixture
def compared(monkeypatch):
    """A list with an entry for each comparison; no answer is remembered at first."""
    calls, original = [], task_module.differing_forms
    monkeypatch.setattr(task_module, "differing_forms", lambda *given: calls.append(1) or original(*given))
    monkeypatch.setattr(answers, "_nothing_found", {})
    return calls


def test_a_network_is_compared_once_for_all_widths(compared):
    model, images = laws.plain(), laws.data()
    for bits in (8, 4, 2):
        LinearQuantization(bits=bits, activation_bits=bits)(model, images)
    assert len(compared) == 1
    LinearQuantization(bits=8)(model, images)  # activations as they are: another structure
    assert len(compared) == 2


def test_another_network_of_the_same_structure_is_not_compared_again(compared):
    other = laws.plain()
    other.fc1.weight.data.mul_(2)
    for model in (laws.plain(), other, copy.deepcopy(other)):
        MagnitudePruning()(model, laws.data())
    assert len(compared) == 1


class Foreign(nn.Sequential):
    """As torch's own, but who knows."""


def sequence(make=nn.Sequential, width=6):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 10))


def hooked():
    model = sequence()
    model[1].register_forward_hook(lambda layer, inputs, output: None)
    return model


def with_a_function():
    model = sequence()
    model[2].inside = [lambda x: x]
    return model


class Doubled(torch.Tensor):
    """Says itself what functions make of it."""


def with_a_strange_tensor():
    model = sequence()
    model[1].weight = nn.Parameter(model[1].weight.detach().as_subclass(Doubled))
    return model


def with_a_hidden_module():
    model = sequence()
    model[2].inside = [Foreign()]
    return model


@pytest.mark.parametrize("make", [lambda: sequence(Foreign), hooked, with_a_function, with_a_hidden_module])
def test_networks_with_code_of_others_are_compared_each(compared, make):
    assert not runs_known_code(make())
    for _ in range(2):
        MagnitudePruning(layers="-1")(make(), laws.data())
    assert len(compared) == 2


def tied():
    model = sequence()
    model[3].weight = nn.Parameter(model[1].weight[:, :6].detach())
    model[3].bias = model[1].bias
    return model


def frozen():
    return sequence().requires_grad_(False)


@pytest.mark.parametrize("make", [lambda: sequence(width=7), tied, frozen, lambda: sequence().double()])
def test_another_structure_is_asked_about_again(monkeypatch, make):
    monkeypatch.setattr(answers, "_nothing_found", {})
    assert runs_known_code(make()) and structure_of(make()) != structure_of(sequence())
    asked = []
    for model in (sequence(), sequence(), make(), make()):
        answers.remembered(model, (), model, None, lambda model=model: asked.append(model) or {})
    assert len(asked) == 2


def test_a_fault_is_found_again_in_each_network(monkeypatch):
    found = iter([{"1": "a fault of these values"}, {}, {"1": "never asked for"}])
    monkeypatch.setattr(answers, "_nothing_found", {})
    first, second, third = sequence(), sequence(), sequence()
    asked = [
        answers.remembered(model, ("is there one?",), model, None, lambda: next(found))
        for model in (first, second, third, first)
    ]
    assert asked == [{"1": "a fault of these values"}, {}, {}, {"1": "a fault of these values"}]


def test_what_was_not_compared_is_not_remembered(compared, monkeypatch):
    broken = mock.patch.object(replacement, "both_ways", side_effect=RuntimeError("not enough memory"))
    with broken:
        MagnitudePruning(layers="-1")(sequence(), laws.data())
    MagnitudePruning(layers="-1")(sequence(), laws.data())
    assert len(compared) == 2


def test_tensors_of_other_classes_hooks_for_all_and_patched_classes_are_code_of_others(monkeypatch):
    assert runs_known_code(sequence()) and not runs_known_code(with_a_strange_tensor())
    with nn.modules.module.register_module_forward_hook(lambda layer, inputs, output: None):
        assert not runs_known_code(sequence())
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x)
    assert not runs_known_code(sequence())


def test_the_oldest_answers_make_room(monkeypatch):
    monkeypatch.setattr(answers, "_nothing_found", {})
    monkeypatch.setattr(answers, "STRUCTURES", 2)
    calls = []
    for width in (3, 4, 5, 5, 3):
        model = sequence(width=width)
        answers.remembered(model, (), model, None, lambda width=width: calls.append(width) or {})
    assert calls == [3, 4, 5, 3] and len(answers._nothing_found) == 2


def test_a_forward_set_on_the_network_is_code_of_others():
    model = sequence()
    model.forward = model.forward
    assert has_own_forward(model) and not runs_known_code(model)
