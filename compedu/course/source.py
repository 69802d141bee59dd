"""Show the library's own source in a cell: a chapter copies no code."""

import inspect
from typing import Any


class Source:
    """The source text of a function or class, shown with colours where a notebook can."""

    def __init__(self, text: str):
        self.text = text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"

    def __repr__(self) -> str:
        return self.text


def show(thing: Any, docstring: bool = False) -> Source:
    """Return the source of a function or class of the library, without its docstring unless `docstring` is true."""
    text = inspect.getsource(thing).rstrip()
    written = thing.__doc__
    if written and not docstring:
        start = text.find('"""')
        prefix = text[:start].rstrip("r \t\n") if start > 0 else text
        end = text.find('"""', start + 3) + 3
        text = prefix + text[end:]
    return Source(text)
