"""Show the library's own source in a cell, so that chapters copy no code."""

import inspect
from typing import Any


class Source:
    """The source of a function or class, with syntax highlighting in a notebook."""

    def __init__(self, text: str):
        self.text = text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"

    def __repr__(self) -> str:
        return self.text


def show(*things: Any, docstring: bool = False) -> Source:
    """Return the source of functions or classes of the library, without docstrings unless `docstring` is true."""
    return Source("\n\n\n".join(_text(thing, docstring) for thing in things))


def _text(thing: Any, docstring: bool) -> str:
    text = inspect.getsource(thing).rstrip()
    if not thing.__doc__ or docstring:
        return text
    start = text.find('"""')
    prefix = text[:start].rstrip("r \t\n") if start > 0 else text
    return prefix + text[text.find('"""', start + 3) + 3 :]
