"""Answers about how a network reaches its layers, found once for all networks made from it, whatever the knobs."""

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from compedu.graph.known_code import runs_known_code, structure_of
from compedu.graph.switches import switches_of

Answer = TypeVar("Answer")

STRUCTURES = 512  # whose questions are remembered, at most, beyond the life of a network

_memory: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()
_nothing_found: dict[tuple, Any] = {}


def share_answers(source: nn.Module, made: nn.Module) -> None:
    """Let `made`, which a method made from `source`, share the answers remembered for `source`."""
    _memory[made] = _memory.setdefault(source, {})


def remembered(
    source: nn.Module, question: tuple, model: nn.Module, example: Tensor | None, answer: Callable[[], Answer]
) -> Answer:
    """Return the answer to a `question` about how `model`, made from `source`, reaches its layers; found only once.

    The answer must not depend on values: it holds for all models with such layers that are made from such a `source`,
    as `switches_of` distinguishes them. An empty dictionary, which finds no fault, also holds for any other networks of
    the same structure that run no code but torch's and ours.
    """
    answers = _memory.setdefault(source, {})
    shown = None if example is None else (tuple(example.shape), example.dtype, example.device)
    key = question, switches_of(source), switches_of(model), shown
    if key not in answers:
        known = runs_known_code(source) and runs_known_code(model)
        answers[key] = _found_once((*key, structure_of(source), structure_of(model)), answer) if known else answer()
    return answers[key]


def _found_once(key: tuple, answer: Callable[[], Answer]) -> Answer:
    """Return the answer, which is remembered if it is an empty dictionary.

    A fault may be one of these networks' values alone, and None may say that nothing was compared.
    """
    found = _nothing_found.get(key)
    if found is not None:
        return found
    found = answer()
    if found == {}:
        while len(_nothing_found) >= STRUCTURES:
            _nothing_found.pop(next(iter(_nothing_found)), None)  # the oldest; another thread may do the same
        _nothing_found[key] = found
    return found
