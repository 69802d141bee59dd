"""Questions to a learner's answer: each is answered with plain data of the requested kind, or with a hint."""

import base64
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from compedu.course.plain import Other, decode, encode
from compedu.errors import first_line

DOTS = "the answer is still three dots: write yours in their place"
FILE_BYTES = 4 * 2**20  # limit for a file that is an answer: the dense network's is smaller


class Elsewhere:
    """An answer in another process: `exchange` sends a question there, and returns the text of the reply."""

    def __init__(self, exchange: Callable[[str], str]):
        self.exchange = exchange


def reply(answer: Any, question: str) -> str:
    """Return the reply of `answer` to a question, both as strings; this runs in the process of the learner's code."""
    try:
        return encode(_said(answer, **decode(question)))
    except Exception as error:  # whatever the learner's code raises
        return encode({"failed": f"{type(error).__name__}: {first_line(error)}"})


def _said(answer: Any, do: str, given: list) -> dict[str, Any]:
    if answer is ... or do == "describe":
        return {"answer": answer}
    if do == "read":
        named = answer[given[0]] if given else answer
        return {"answer": named, "content": _content(named)}
    before = encode(given)
    return {"answer": answer(*given), "changed": encode(given) != before}


def _content(path: Any) -> str | None:
    """Return a file's bytes in base64, at most `FILE_BYTES`; None where the answer names no file."""
    if not isinstance(path, (str, os.PathLike)) or not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return base64.b64encode(file.read(FILE_BYTES)).decode()


def _asked(answer: Any, do: str, *given: Any) -> dict[str, Any]:
    question = encode({"do": do, "given": list(given)})
    said = decode(answer.exchange(question) if isinstance(answer, Elsewhere) else reply(answer, question))
    assert isinstance(said, dict), "no reply came from your answer"
    assert said.get("answer") is not ..., DOTS
    return said


def described(answer: Any) -> Any:
    """Return an answer that is not a function, as plain data."""
    said = _asked(answer, "describe")
    assert "answer" in said, f"your answer cannot be read: {said.get('failed')}"
    return said["answer"]


def file_content(answer: Any, *part: str) -> tuple[str, bytes]:
    """Return path and bytes of the file that an answer names; anything else is an `AssertionError` with a hint.

    `part` is the name under which a dictionary that is the answer holds the path.
    """
    said = _asked(answer, "read", *part)
    path = said.get("answer")
    content = said.get("content")
    assert isinstance(path, str), f"give the path of a file that ce.save has written, not {path!r:.60}"
    assert isinstance(content, str), f"there is no file {path}: write it first, with ce.save(network, path)"
    return path, base64.b64decode(content)


def called(function: Any, *arguments: Any) -> Any:
    """Return what a learner's function returns; a failure or a missing result is an `AssertionError` with a hint."""
    said = _asked(function, "call", *arguments)
    given = f"it was given {short(arguments)}"
    assert "failed" not in said, f"your function failed with {said['failed']}; {given}"
    assert said.get("answer") is not None, f"your function returns nothing: write its last line, return ...; {given}"
    assert said.get("changed") is False, f"your function changes its arguments: work on a copy; {given}"
    return said["answer"]


def short(arguments: tuple) -> str:
    """Return the arguments of a learner's function in one line: of dictionaries the first names, of arrays the shape.

    >>> short(({"a": 1, "b": 2}, [1, 4], Tensor(2, 3)))
    '({a, b}, [1, 4], a tensor of shape (2, 3))'
    """
    return f"({', '.join(map(_one, arguments))})"


def _one(argument: Any) -> str:
    if isinstance(argument, dict):
        return f"{{{few(argument, 2)}}}"
    if isinstance(argument, Tensor):
        return f"a tensor of shape {tuple(argument.shape)}"
    return f"{argument!r:.200}"


def few(names: Iterable, most: int = 6) -> str:
    """Return names in one line; of many names, only the first.

    >>> few("abc"), few("abc", 2)
    ('a, b, c', 'a, b and 1 more')
    """
    names = list(map(str, names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def number(function: Any, *arguments: Any) -> int | float:
    """Return the number that a learner's function returns; anything else is an `AssertionError` with a hint."""
    answer = called(function, *arguments)
    assert _is_number(answer), f"your function returns {answer!r:.80} for {short(arguments)}: expected one number"
    return answer


def numbers(function: Any, count: int, *arguments: Any) -> tuple[int | float, ...]:
    """Return the `count` numbers that a learner's function returns; all else is an `AssertionError` with a hint."""
    answer = called(function, *arguments)
    parts = answer.tolist() if hasattr(answer, "tolist") else answer
    assert isinstance(parts, list) and len(parts) == count and all(map(_is_number, parts)), (
        f"your function returns {answer!r:.80} for {short(arguments)}: expected {count} numbers: return a, b, ..."
    )
    return tuple(parts)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def kind_of(answer: Any) -> str:
    """Return the class name of an answer, also where its class is unknown here."""
    return answer.kind if isinstance(answer, Other) else type(answer).__name__
