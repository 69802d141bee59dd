"""What was measured last on a network, kept while it lives: a slider needs the same again and again."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

Result = TypeVar("Result")

LARGEST = 2**25  # bytes of a result that is kept

_last: WeakKeyDictionary[nn.Module, dict[str, tuple[tuple, Any]]] = WeakKeyDictionary()


def last_result(
    network: nn.Module, kind: str, key: tuple, measure: Callable[[], Result], largest: int = LARGEST
) -> Result:
    """Return the last result of this `kind` for `network` if its `key` is the same, else what `measure` returns.

    `key` must hold all that the result depends on. Results of more than `largest` bytes are not kept.
    """
    results = _last.setdefault(network, {})
    last = results.get(kind)  # once: another thread may ask about the same network
    if last is not None and last[0] == key:
        return last[1]
    del last  # two results need not fit into memory
    results.pop(kind, None)
    result = measure()
    if bytes_of(result) <= largest:
        results[kind] = key, result
    return result


def bytes_of(result: Any) -> int:
    """Return the bytes of the tensors in `result`: in mappings, sequences, and the attributes of other objects."""
    if isinstance(result, Tensor):
        return result.nbytes
    if isinstance(result, Mapping):
        return sum(map(bytes_of, result.values()))
    if isinstance(result, Iterable) and not isinstance(result, str):
        return sum(map(bytes_of, result))
    return sum(map(bytes_of, vars(result).values())) if hasattr(result, "__dict__") else 0
