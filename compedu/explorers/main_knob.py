"""The main knob of a method, the first with a range worth showing, and measured points along it."""

from collections.abc import Iterable
from typing import Any

from compedu.knobs import knobs
from compedu.methods import Method
from compedu.metrics import Report
from compedu.sweeps import method_of, nearest


def main_knob(method: Method | type[Method]) -> str | None:
    """Return the first knob of a method that has a range worth showing, or None."""
    return next((name for name, knob in knobs(method).items() if knob.slider_range is not None), None)


def others(method: Method, *free: str | None) -> dict[str, Any]:
    """Return the knobs of `method` but for those named: they are equal for methods that differ in these alone.

    Values, not a method with one knob replaced: not every value goes with all values of the other knobs.
    """
    return {name: getattr(method, name) for name in knobs(method) if name not in free}


def on_one_curve(one: Method, other: Method) -> bool:
    """Tell whether two methods of one class differ at most in the main knob."""
    knob = main_knob(one)
    return others(one, knob) == others(other, knob)


def stored_start(method: Method, points: Iterable[Report]) -> Method:
    """Return the stored setting along the largest curve that is nearest to `method` in the main knob, or `method`."""
    nearest_one = nearest(along(points, method), method)
    return method if nearest_one is None else method_of(nearest_one.method, (type(method),))


def on_curve_of(method: Method, reports: Iterable[Report]) -> tuple[Report, ...]:
    """Return the reports of settings that differ from `method` in the main knob at most, in its order."""
    return along([one for one in reports if on_one_curve(method_of(one.method, (type(method),)), method)], method)


def along(reports: Iterable[Report], method: Method) -> tuple[Report, ...]:
    """Return the largest group of reports that differ in the main knob alone, in its order.

    Ties go to the group with the other knobs of `method`. Values that are not on the knob's scale come last.
    """
    knob = main_knob(method)
    own = repr(others(method, knob))
    found = {}
    for report in reports:
        made = method_of(report.method, (type(method),))
        place = 0.0 if knob is None else knobs(method)[knob].on_scale(getattr(made, knob))
        found.setdefault(repr(others(made, knob)), []).append((float("inf") if place is None else place, report))
    chosen = max(found, key=lambda same: (len(found[same]), same == own), default=None)
    return tuple(report for _, report in sorted(found.get(chosen, ()), key=lambda pair: pair[0]))
