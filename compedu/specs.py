"""Specs: strings that name a network or data set with its knobs, such as "lenet5(width=0.5)"."""

import ast
from collections.abc import Iterable
from typing import Any


class RepeatedName(ValueError):
    """A name that was given twice, so that either value could be meant."""


def text(name: str, values: dict) -> str:
    """Return "name(knob=value, ...)", the inverse of `parse`."""
    return f"{name}({', '.join(f'{knob}={value!r}' for knob, value in values.items())})"


def parse(spec: str) -> tuple[str, dict]:
    """Split "name(knob=value, ...)" into name and values; raise `ValueError` for any other string."""
    try:
        tree = ast.parse(spec.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
            return tree.func.id, keyword_values(tree)
    except RepeatedName as error:
        raise ValueError(f"{spec!r}: {error}") from error
    except (
        MemoryError,
        RecursionError,
        SyntaxError,
        TypeError,
        ValueError,
    ):  # all that parsing a malformed string may raise
        pass
    raise ValueError(f'{spec!r} cannot be read; write a name such as "lenet5", or "lenet5(width=0.5)"')


def image_of(spec: str) -> tuple[int, int, int]:
    """Return channels, height and width of the images of a network, from its complete spec."""
    sizes = parse(spec)[1]
    return sizes["channels"], sizes["size"], sizes["size"]


def keyword_values(call: ast.Call) -> dict[str, Any]:
    """Return the keyword arguments of a call, all literals; raise `ValueError` for anything else."""
    for node in ast.walk(call):
        if isinstance(node, ast.Dict):
            named_once((ast.literal_eval(key), None) for key in node.keys if key is not None)
    if any(item.arg is None for item in call.keywords):
        raise ValueError("values must be given by name")
    return named_once((item.arg, ast.literal_eval(item.value)) for item in call.keywords)


def named_once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dictionary of `pairs`; raise `RepeatedName` for a repeated name."""
    found: dict[Any, Any] = {}
    for name, value in pairs:
        if name in found:
            raise RepeatedName(f"{name!r} is given twice; give it once")
        found[name] = value
    return found
