"""Points of a sweep: settings spread over a knob's range, and the measured one nearest to a setting."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from compedu.knobs import Knob, knobs, no_such_knob
from compedu.methods import Pipeline
from compedu.methods.method import Method
from compedu.methods.parsing import method_of
from compedu.metrics import Report


def grid(method: Method | type[Method], knob: str, count: int = 9) -> list[Method]:
    """Return `method` at up to `count` values of `knob`, spread over its slider range.

    The other knobs are those of `method`, the defaults if it is a class. Raises `ValueError` for an unknown knob.
    """
    start = method() if isinstance(method, type) else method
    known = knobs(start)
    if knob not in known:
        raise ValueError(no_such_knob(type(start), knob))
    return [replace(start, **{knob: value}) for value in known[knob].points(count)]


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
    if type(one) is not type(other):  # rank 1 is far from 1.0, the full rank, although Python calls them equal
        return 1.0
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
