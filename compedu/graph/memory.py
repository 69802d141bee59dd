"""Answers about how a network reaches its layers, found once for all that is made from it, whatever the knobs."""

from collections.abc import Callable
from types import FunctionType
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from compedu.forms.form import Form
from compedu.graph.channels import kind_of

Answer = TypeVar("Answer")

_memory: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


def share_answers(source: nn.Module, made: nn.Module) -> None:
    """Let `made`, which a method made from `source`, have the answers that were remembered for that."""
    _memory[made] = _memory.setdefault(source, {})


def remembered(
    source: nn.Module, question: tuple, model: nn.Module, example: Tensor | None, answer: Callable[[], Answer]
) -> Answer:
    """Return the answer to a `question` about how `model`, made from `source`, reaches its layers; found only once.

    The answer must not depend on numbers: it holds for all models of these kinds of layers that are made from
    such a `source`.
    """
    answers = _memory.setdefault(source, {})
    key = question, _kinds_of(source), _kinds_of(model), None if example is None else tuple(example.shape)
    if key not in answers:
        answers[key] = answer()
    return answers[key]


def _kinds_of(model: nn.Module) -> tuple:
    """Return what decides how a network reaches its layers: the kinds of its modules, and their switches."""
    return tuple((name, kind_of(module), _switches(module)) for name, module in model.named_modules())


def _switches(module: nn.Module) -> tuple:
    """Return the attributes of `module` that a forward pass may choose its way by: flags, words and functions."""
    if isinstance(module, Form):
        return ()
    chosen = [(name, value) for name, value in vars(module).items() if isinstance(value, (bool, str, FunctionType))]
    return tuple(switch for switch in chosen if switch[0] != "training")
