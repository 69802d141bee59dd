"""What a learner's function returns: numbers as asked for, or a hint."""

from collections.abc import Callable, Iterable
from numbers import Real

from compedu.errors import first_line


def called(function: Callable, *arguments):
    """Return what a learner's function returns; a failure or a missing result is an `AssertionError` with a hint."""
    try:
        answer = function(*arguments)
    except Exception as error:
        raise AssertionError(
            f"your function failed with {type(error).__name__}: {first_line(error)}; it was given {short(arguments)}"
        ) from error
    assert answer is not None, (
        f"your function returns nothing: write its last line, return ...; it was given {short(arguments)}"
    )
    return answer


def short(arguments: tuple) -> str:
    """Return what a learner's function was given, in one line: of dictionaries the first names alone.

    >>> short(({"a": 1, "b": 2}, [1, 4]))
    '({a, b}, [1, 4])'
    """
    return f"({', '.join(f'{{{few(one, 2)}}}' if isinstance(one, dict) else repr(one) for one in arguments)})"


def few(names: Iterable, most: int = 6) -> str:
    """Return names in one line, of many of them the first.

    >>> few("abc"), few("abc", 2)
    ('a, b, c', 'a, b and 1 more')
    """
    names = list(map(str, names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def number(function: Callable, *arguments) -> float:
    """Return the number that a learner's function returns; anything else is an `AssertionError` with a hint."""
    answer = called(function, *arguments)
    assert isinstance(answer, Real), f"your function returns {answer!r:.80} for {arguments}: wanted is one number"
    return answer


def numbers(function: Callable, count: int, *arguments) -> tuple[float, ...]:
    """Return the `count` numbers that a learner's function returns; all else is an `AssertionError` with a hint."""
    answer = called(function, *arguments)
    fits = (
        isinstance(answer, Iterable)
        and len(parts := tuple(answer)) == count
        and all(isinstance(p, Real) for p in parts)
    )
    assert fits, f"your function returns {answer!r:.80} for {arguments}: wanted are {count} numbers, return a, b, ..."
    return parts
