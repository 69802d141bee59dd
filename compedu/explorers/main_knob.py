"""The knob that is toured: the first one with a range worth showing; and measured points in its order."""

from collections.abc import Iterable

from compedu.knobs import knobs
from compedu.methods import Method
from compedu.metrics import Report
from compedu.sweeps import method_of


def main_knob(method: Method | type[Method]) -> str | None:
    """Return the first knob of a method that has a range worth showing, or None."""
    return next((name for name, knob in knobs(method).items() if knob.tour is not None), None)


def in_order(reports: Iterable[Report], cls: type[Method]) -> tuple[Report, ...]:
    """Return the reports of methods of class `cls`, ordered by its main knob; values per layer come last."""
    knob, found = main_knob(cls), []
    for report in reports:
        value = getattr(method_of(report.method, (cls,)), knob) if knob is not None else 0.0
        found.append((float(value) if isinstance(value, (int, float)) else float("inf"), report))
    return tuple(report for _, report in sorted(found, key=lambda pair: pair[0]))
