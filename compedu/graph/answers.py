"""Answers about how a network reaches its layers, found once for all networks made from it, whatever the knobs."""

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from compedu.graph.switches import switches_of

Answer = TypeVar("Answer")

_memory: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


def share_answers(source: nn.Module, made: nn.Module) -> None:
    """Let `made`, which a method made from `source`, share the answers remembered for `source`."""
    _memory[made] = _memory.setdefault(source, {})


def remembered(
    source: nn.Module, question: tuple, model: nn.Module, example: Tensor | None, answer: Callable[[], Answer]
) -> Answer:
    """Return the answer to a `question` about how `model`, made from `source`, reaches its layers; found only once.

    The answer must not depend on values: it holds for all models with such layers that are made from such a `source`,
    as `switches_of` distinguishes them.
    """
    answers = _memory.setdefault(source, {})
    key = question, switches_of(source), switches_of(model), None if example is None else tuple(example.shape)
    if key not in answers:
        answers[key] = answer()
    return answers[key]
