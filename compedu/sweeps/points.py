"""Points of a sweep: settings spread over a knob's range, and the measured one nearest to a setting."""

import ast
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from compedu.knobs import Knob, knobs, no_such_knob
from compedu.methods import METHODS, Pipeline
from compedu.methods.method import Method
from compedu.metrics import Report
from compedu.specs import keyword_values

ADVICE = "write it as its repr, such as MagnitudePruning(sparsity=0.9)"


def grid(method: Method | type[Method], knob: str, count: int = 9) -> list[Method]:
    """Return `method` at up to `count` values of `knob`, spread over its slider range.

    The other knobs are those of `method`, the defaults if it is a class. Raises `ValueError` for an unknown knob.
    """
    start = method() if isinstance(method, type) else method
    known = knobs(start)
    if knob not in known:
        raise ValueError(no_such_knob(type(start), knob))
    return [replace(start, **{knob: value}) for value in known[knob].points(count)]


def method_of(text: str, known: Iterable[type[Method]] = METHODS) -> Method:
    """Return the method whose `repr` is `text`, such as "A(x=0.5) | B()", of the classes `known`; nothing is executed.

    Raises `ValueError` for any other string, for an unknown class and for a value that the knob does not allow.
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
    values = keyword_values(tree)
    if unknown := values.keys() - knobs(cls).keys():
        raise ValueError(no_such_knob(cls, unknown.pop()))
    return cls(**values)


def nearest(reports: Iterable[Report], method: Method, within: float = math.inf) -> Report | None:
    """Return the one of `reports` whose method is nearest to `method`, as a preview; None if none has the same steps.

    The distance is the sum over knobs of the difference as a fraction of the slider range, or 1 for values that differ
    and are not numbers; on a logarithmic scale 0 is one full range below the rest. Only reports nearer than `within`
    count.
    """
    reports = list(reports)
    text = repr(method)
    if (exact := next((report for report in reports if report.method == text), None)) is not None:
        return exact
    wanted = _steps(method)
    best = (within, None)
    classes = {type(step) for step in wanted}
    for report in reports:
        try:
            given = _steps(method_of(report.method, classes))
        except ValueError:  # made by other methods, or by an earlier version with other knobs
            continue
        if [type(step) for step in given] == [type(step) for step in wanted]:
            far = sum(map(_distance, given, wanted))
            best = (far, report) if far < best[0] else best
    return best[1]


def _steps(method: Method) -> tuple[Method, ...]:
    return method.steps if isinstance(method, Pipeline) else (method,)


def _distance(one: Method, other: Method) -> float:
    return sum(_apart(declared, getattr(one, name), getattr(other, name)) for name, declared in knobs(other).items())


def _apart(knob: Knob, one: Any, other: Any) -> float:
    if one == other:
        return 0.0
    span = knob.slider_range or (knob.low, knob.high)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other, *span))
    if not numbers or knob.choices:
        return 1.0
    if not knob.log:
        return abs(one - other) / (span[1] - span[0])
    if span[0] <= 0:  # such a range has no length on a logarithmic scale
        return 1.0
    return abs(_log_place(one, *span) - _log_place(other, *span))


def _log_place(value: float, low: float, high: float) -> float:
    """Return the position of `value` on a logarithmic scale from 0 (`low`) to 1 (`high`); -1 for 0, which has none."""
    return math.log(value / low) / math.log(high / low) if value > 0 else -1.0
