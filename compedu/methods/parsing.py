"""Methods read from text: their `repr` builds them again, and nothing in it is executed."""

import ast
from collections.abc import Iterable
from typing import Any

from compedu.knobs import knobs, no_such_knob
from compedu.methods import METHODS
from compedu.methods.method import Method
from compedu.specs import keyword_values

ADVICE = "write it as its repr, such as MagnitudePruning(sparsity=0.9)"


def method_of(text: str, known: Iterable[type[Method]] = METHODS) -> Method:
    """Return the method whose `repr` is `text`, such as "A(x=0.5) | B()", of the classes `known`; nothing is executed.

    A knob may hold a method, A(student=B()), of any class in `METHODS`. Raises `ValueError` for any other string, for
    an unknown class and for a value that the knob does not allow.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _built(tree, {cls.__name__: cls for cls in known}, text)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:  # all that parsing Python may raise
        raise ValueError(f"{text[:80]!r} is not a method: {error}; {ADVICE}") from error


def _built(tree: ast.expr, known: dict[str, type[Method]], text: str) -> Method:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
        return _built(tree.left, known, text) | _built(tree.right, known, text)
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args):
        raise ValueError(f"{text!r} is not a method; {ADVICE}")
    if tree.func.id not in known:
        raise ValueError(f"no method is called {tree.func.id!r}; there are: {', '.join(known)}")
    cls = known[tree.func.id]
    values = _values(tree, known, text)
    if unknown := values.keys() - knobs(cls).keys():
        raise ValueError(no_such_knob(cls, unknown.pop()))
    return cls(**values)


def _values(call: ast.Call, known: dict[str, type[Method]], text: str) -> dict[str, Any]:
    """Return the values of the knobs in `call`: literals, and methods where a call or a pipeline stands in a knob."""
    held = {item.arg: item.value for item in call.keywords if item.arg is not None and _holds_method(item.value)}
    # Each method leaves an empty place behind, so that a name given twice is still seen.
    rest = [ast.keyword(item.arg, ast.Constant(None) if item.arg in held else item.value) for item in call.keywords]
    values = keyword_values(ast.Call(call.func, [], rest))
    inside = {cls.__name__: cls for cls in METHODS} | known
    return values | {name: _built(tree, inside, text) for name, tree in held.items()}


def _holds_method(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Call) or (isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr))
