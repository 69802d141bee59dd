"""Predict before you see: a curve to be drawn at a few settings hides an explorer's figures until it is committed."""

import math
from collections.abc import Sequence
from typing import Any

from compedu.explorers.main_knob import along, main_knob, on_curve_of
from compedu.explorers.panel.controls import as_text
from compedu.explorers.words import percent
from compedu.knobs import Knob, knobs
from compedu.methods import Method
from compedu.metrics import Report
from compedu.sweeps import method_of

COUNT = 7
WORDS = "which accuracy do you expect? Drag each point to where the curve goes, or type the numbers."
FEWEST = 5  # stored points that are enough for a curve
APART = 0.06  # of the width: nearer, two handles would touch


def asked_methods(method: Method, knob: str | bool, points: Sequence[Report]) -> list[Method]:
    """Return the settings to ask about, along `knob`; True is the first knob with a slider range.

    Along the main knob they are stored `points` where there are enough with the other knobs of `method`, as far apart
    as each other; else they are measured. With a method that trains, the largest stored curve counts. Raises
    `ValueError` for a method that trains without stored points, and for a knob without a slider range.
    """
    name = main_knob(type(method)) if knob is True else knob
    known = knobs(method)
    if name not in known or known[name].slider_range is None:
        shown = ", ".join(name for name, declared in known.items() if declared.slider_range is not None) or "none"
        raise ValueError(
            f"predict={knob!r}: {type(method).__name__} has no such knob with a slider range; it has: {shown}"
        )
    cls = type(method)
    trains = method.needs == "training"
    curve = along(points, method) if trains else on_curve_of(method, points)
    chosen = evenly(curve, known[name], cls, name) if name == main_knob(cls) else []
    if not trains and len(chosen) < FEWEST:  # as quick to measure as a move of the slider
        others = {other: getattr(method, other) for other in known if other != name}
        return [cls(**others | {name: value}) for value in known[name].points(COUNT)]
    if not points:
        raise ValueError(
            f"predict={knob!r}: {cls.__name__} trains, and no points of it are stored for this network and data; leave "
            "predict out, or ship a sweep of it"
        )
    return [method_of(report.method, (cls,)) for report in chosen or _spread(points)]


def _spread(points: Sequence[Report]) -> list[Report]:
    """Return at most `COUNT` points, evenly by number."""
    return [points[index] for index in sorted({round(i * (len(points) - 1) / (COUNT - 1)) for i in range(COUNT)})]


def evenly(curve: Sequence[Report], declared: Knob, cls: type[Method], name: str) -> list[Report]:
    """Return about `COUNT` points of a curve along a knob, nearest to places as far apart as each other.

    Places are those of the slider from the first point to the last, whatever the accuracies: more points where the
    curve falls would tell where it falls. Of two that lie nearer than `APART`, one is asked about; the ends always are.
    """
    values = [declared.on_scale(getattr(method_of(report.method, (cls,)), name)) for report in curve]
    numbers = [(value, report) for value, report in zip(values, curve, strict=True) if value is not None]
    if len(numbers) < 2:
        return [report for _, report in numbers]
    places = stretched(positions([value for value, _ in numbers], declared))
    count = COUNT + (len(numbers) == COUNT + 1)  # of eight bit-widths, none is left out
    wanted = [i / (count - 1) for i in range(count)]
    nearest = sorted({min(range(len(places)), key=lambda index: abs(places[index] - place)) for place in wanted})
    kept: list[int] = []
    for index in nearest:
        near_the_end = index != nearest[-1] and places[-1] - places[index] < APART
        if not kept or (places[index] - places[kept[-1]] >= APART and not near_the_end):
            kept.append(index)
    return [numbers[index][1] for index in kept]


def positions(values: Sequence[float], declared: Knob) -> list[float]:
    """Return where values lie between the ends of a knob's slider, 0..1."""
    scale = math.log if declared.log else float
    if declared.slider_range is None:
        raise ValueError(f"a knob without a slider range has no places: {declared}")
    low, high = map(scale, declared.slider_range)
    return [(scale(value) - low) / (high - low) for value in values]


def stretched(places: Sequence[float]) -> list[float]:
    """Return places moved and scaled so that they reach from 0 to 1, which is the width there is to draw on."""
    low = min(places)
    width = (max(places) - low) or 1.0
    return [(place - low) / width for place in places]


def question(methods: Sequence[Method], knob: str | bool, dense: Report, classes: int) -> dict[str, Any]:
    """Return what the page asks: the knob, its values with their places 0..1, and the accuracies known beforehand."""
    cls = type(methods[0])
    name = str(main_knob(cls) if knob is True else knob)
    values = [getattr(method, name) for method in methods]
    declared = knobs(cls)[name]
    numbers = [number for value in values if (number := declared.on_scale(value)) is not None]
    even = len(numbers) < len(values)
    places = [i / max(1, len(values) - 1) for i in range(len(values))] if even else positions(numbers, declared)
    return {
        "knob": name.replace("_", " "), "values": [as_text(value) for value in values], "places": stretched(places),
        "dense": dense.accuracy, "chance": 1 / classes, "words": WORDS,
    }  # fmt: skip


def checked(said: Sequence[float], count: int) -> tuple[float, ...]:
    """Return predicted accuracies; raise `ValueError` unless they are `count` numbers in 0..1."""
    if len(said) != count:
        raise ValueError(f"{count} accuracies are asked for, got {len(said)}")
    for place, value in enumerate(said, start=1):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"prediction {place} must be an accuracy in [0, 1], got {value!r}")
    return tuple(map(float, said))


def largest_gap(predicted: Sequence[float], asked: Sequence[Report]) -> str:
    """Return the largest difference between prediction and measurement in words."""
    said, report = max(zip(predicted, asked, strict=True), key=lambda pair: abs(pair[0] - pair[1].accuracy))
    return (
        f"Largest surprise: {report.method} gives {percent(report.accuracy)}, you said {percent(said)} "
        f"({100 * abs(said - report.accuracy):.1f} points apart)."
    )
