"""Whether a record that was read from a file holds what its fields declare."""

from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


def check_declared(record: Any) -> None:
    """Raise `ValueError`, naming the field, unless every field of a dataclass or named tuple is of its type."""
    for name, fits in _fields(type(record)):
        if not fits(getattr(record, name)):
            raise ValueError(f"{type(record).__name__}.{name} cannot be {getattr(record, name)!r:.60}")


@cache
def _fields(kind: type) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    return tuple((name, _test(hint)) for name, hint in get_type_hints(kind).items())


@cache
def _test(hint: Any) -> Callable[[Any], bool]:
    """Return the predicate that a value is of a declared type."""
    kind = get_origin(hint)
    inside = [_test(one) for one in get_args(hint) if one is not ...]
    if kind is UnionType:
        return lambda value: any(test(value) for test in inside)
    if kind is tuple and get_args(hint)[1:] == (...,):
        return lambda value: isinstance(value, tuple) and all(map(inside[0], value))
    if kind is tuple:
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(inside)
            and all(test(item) for test, item in zip(inside, value, strict=True))
        )
    if kind is dict:
        return lambda value: (
            isinstance(value, dict) and all(map(inside[0], value)) and all(map(inside[1], value.values()))
        )
    if hint in (int, float):  # JSON writes 1.0 and 1 alike; True is neither
        return lambda value: type(value) is int or (hint is float and type(value) is float)
    if "__annotations__" in vars(hint):
        return lambda value: isinstance(value, hint) and check_declared(value) is None
    return lambda value: isinstance(value, hint)
