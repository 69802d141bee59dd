"""What the trade-off curve is drawn over: bytes of the file, the main knob, multiply-accumulates, or time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compedu.errors import CompressionError
from compedu.explorers.main_knob import along, main_knob
from compedu.explorers.view import Sideways, View
from compedu.explorers.words import bytes_text
from compedu.knobs import Knob, changed_knobs, knobs
from compedu.methods import METHODS
from compedu.methods.layers import compressible, selected
from compedu.metrics import Report
from compedu.sweeps import method_of

MOST_TICKS = 6
SMALL = 0.1  # of the parameters: where only these change, all files are about as large


def choices(view: View) -> dict[str, str]:
    """Return the axes that this method's curve can be drawn over, with their names for a learner."""
    knob = main_knob(view.method)
    names = {str(one): str(one) for one in Sideways} | {str(Sideways.KNOB): (knob or "").replace("_", " ")}
    return {one: name for one, name in names.items() if name}


def first_choice(view: View) -> Sideways:
    """Return the axis at the start: the file's size, or the knob where it hardly changes the size.

    A temperature changes none, and neither does what is done to a small part of the network.
    """
    knob = main_knob(view.method)
    points = along(view.points, view.method)
    sizes = {report.file_bytes for report in points}
    same = len(points) > 1 and len(sizes) == 1
    return Sideways.KNOB if knob and (same or _small_part(view)) else Sideways.SIZE


def _small_part(view: View) -> bool:
    """Tell whether the learner chose layers that have less than a tenth of the network's parameters together."""
    selection = changed_knobs(view.method).get("layers")
    if selection is None:
        return False
    layers, others = compressible(view.before)
    try:
        chosen = selected(layers, selection, others)
    except CompressionError:
        return False  # the explorer will say so
    part = sum(parameter.numel() for layer in chosen.values() for parameter in layer.parameters())
    return part < SMALL * sum(parameter.numel() for parameter in view.before.parameters())


def place(view: View, report: Report) -> float | None:
    """Return where a report lies on the chosen axis, in its units; None where that is not known."""
    if view.sideways == Sideways.SIZE:
        return report.file_bytes
    if view.sideways == Sideways.MACS:
        return report.macs
    if view.sideways == Sideways.TIME:
        return _milliseconds(view, report)
    return knob_value(view, report)


def knob_value(view: View, report: Report) -> float | None:
    """Return the value of the main knob with which this method, or its random baseline, made a report.

    None for reports of other methods, whose knobs mean something else, and for values that are not on the axis.
    """
    given = _given(view, report)
    return None if given is None else _main(view)[1].on_scale(given)


def _given(view: View, report: Report) -> Any:
    """Return the main knob as it was given for a report: a number, or values per layer."""
    knob = main_knob(view.method)
    cls = type(view.method)
    if knob is None or not report.method or report.method.split("(")[0] not in (cls.__name__, cls.random_baseline):
        return None
    return view.once(("value", report.method), lambda: getattr(method_of(report.method, (*METHODS, cls)), knob))


def off_axis(view: View, report: Report) -> str:
    """Return in words why a report of this method is not drawn over the main knob, or nothing where it is."""
    if view.sideways != Sideways.KNOB or knob_value(view, report) is not None:
        return ""
    name, declared = _main(view)
    given = _given(view, report)
    named = name.replace("_", " ")
    if isinstance(given, Mapping):
        return f"{named} is given by layer, so not on this axis"
    if type(given) is not declared.type:
        return f"{named} {given} is not a fraction, so not on this axis"
    return f"{named} {given:g} is not on this logarithmic axis"


def _milliseconds(view: View, report: Report) -> float | None:
    """Return the time of a batch; of stored reports, measured on another machine, None."""
    if report is view.baseline:
        known = [one.latency.baseline_ms for one in view.seen.values() if one.latency is not None]
        return known[-1] if known else None
    timing = report.latency if report.method in view.seen else None
    return None if timing is None else timing.latency_ms


def more_is_smaller(view: View) -> bool:
    """Tell whether a larger value of the main knob makes the file smaller, as far as points along it are known.

    The axis of sizes then runs from large to small, so that left is the same side for the slider and the plot.
    """

    def judge() -> bool:
        known = [(knob_value(view, report), report.file_bytes) for report in along(view.points, view.method)]
        sized = sorted((value, size) for value, size in known if value is not None and size is not None)
        return len(sized) > 1 and sized[-1][1] < sized[0][1]

    return main_knob(view.method) is not None and view.once("more is smaller", judge)


def axis_settings(view: View, reports: Sequence[Report]) -> dict[str, Any]:
    """Return range, ticks and scale of the axis, so that it holds all `reports` that have a place on it."""
    if view.sideways == Sideways.KNOB:
        return _knob_axis(view, reports)
    if view.sideways == Sideways.SIZE:
        settings = size_axis(reports)
        return settings | {"range": settings["range"][::-1]} if more_is_smaller(view) else settings
    found = [place(view, report) for report in reports]
    known = [value for value in found if value]
    if not known:
        return {"type": "log", "range": [0, 1], "tickvals": [], "ticktext": []}
    return {"type": "log", "nticks": MOST_TICKS, "exponentformat": "SI", "minexponent": 3,
            "range": [math.log10(min(known)) - 0.1, math.log10(max(known)) + 0.1]}  # fmt: skip


def _main(view: View) -> tuple[str, Knob]:
    """Return the name of the main knob and the knob, where the axis is that of the knob."""
    name = main_knob(view.method)
    if name is None:
        raise ValueError(f"{type(view.method).__name__} has no knob to draw over; choose one of {choices(view)}")
    return name, knobs(view.method)[name]


def _knob_axis(view: View, reports: Sequence[Report]) -> dict[str, Any]:
    """Return the axis of the slider's range, and beyond it as far as a field has led."""
    _, declared = _main(view)
    values = [value for report in reports if (value := knob_value(view, report)) is not None]
    ends = (*(declared.slider_range or (0.0, 1.0)), *values)
    low = min(ends)
    high = max(ends)
    if not declared.log:
        return {
            "type": "linear",
            "range": [low - 0.03 * (high - low), high + 0.03 * (high - low)],
            "nticks": MOST_TICKS,
        }
    ticks = [tick for tick in _round_ticks() if low <= tick <= high]
    return {"type": "log", "range": [math.log10(low) - 0.04, math.log10(high) + 0.04], "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks]}  # fmt: skip


def _round_ticks() -> list[float]:
    return [digit * 10.0**power for power in range(-6, 10) for digit in (1, 2, 5)]


def size_axis(reports: Sequence[Report]) -> dict[str, Any]:
    """Return a logarithmic axis of bytes with round ends that covers `reports` and a twentieth of the largest."""
    sizes = [report.file_bytes for report in reports if report.file_bytes is not None]
    low = min(*sizes, max(sizes) / 20)
    ticks = [int(tick) for tick in _round_ticks() if tick >= 1]
    first = max(tick for tick in ticks if tick <= max(low, 1))
    last = min(tick for tick in ticks if tick >= max(sizes))
    inside = [tick for tick in ticks if first <= tick <= last]
    if len(inside) > MOST_TICKS:
        inside = [tick for tick in inside if str(tick)[0] == "1"]
    return {
        "type": "log", "range": [math.log10(first), math.log10(last) + 0.04], "tickvals": inside,
        "ticktext": [bytes_text(tick).replace(".0 ", " ").replace(".00 ", " ") for tick in inside],
    }  # fmt: skip


def title(view: View) -> str:
    """Return what stands below the axis, with the direction where it runs from large to small."""
    if view.sideways == Sideways.KNOB:
        name, declared = _main(view)
        return name.replace("_", " ") + (f" ({declared.unit})" if declared.unit else "")
    if view.sideways == Sideways.SIZE and more_is_smaller(view):
        return f"{Sideways.SIZE}, smaller to the right"
    names: dict[str, str] = {
        Sideways.MACS: "multiply-accumulates an image", Sideways.TIME: "ms a batch, measured here",
    }  # fmt: skip
    return names.get(view.sideways, str(view.sideways))
