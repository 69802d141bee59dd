"""Predict before you see: a curve to be drawn at a few settings hides an explorer's figures until it is committed."""

import itertools
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
NEAR = 0.03  # of the slider's length, with as little difference in accuracy: handles there would cover each other


def asked_methods(method: Method, knob: str | bool, points: Sequence[Report]) -> list[Method]:
    """Return the settings to ask about, along `knob`; True is the first knob with a slider range.

    Along the main knob they are stored `points` where there are enough with the other knobs of `method`, more of them
    where accuracy changes fast, so that a cliff cannot be passed in a straight line. With a method that trains, the
    largest stored curve counts. Raises `ValueError` for a method that trains without stored points, and
    for a knob without a slider range.
    """
    name = main_knob(type(method)) if knob is True else knob
    known = knobs(method)
    if name not in known or known[name].slider_range is None:
        shown = ", ".join(name for name, declared in known.items() if declared.slider_range is not None) or "none"
        raise ValueError(
            f"predict={knob!r}: {type(method).__name__} has no such knob with a slider range; it has: {shown}"
        )
    curve = along(points, method) if method.needs == "training" else on_curve_of(method, points)
    stored = curve if name == main_knob(type(method)) else ()
    if len(stored) >= COUNT:
        return [method_of(report.method, (type(method),)) for report in interesting(stored, name, type(method))]
    if method.needs != "training":
        others = {other: getattr(method, other) for other in known if other != name}
        return [type(method)(**others | {name: value}) for value in known[name].points(COUNT)]
    if not points:
        raise ValueError(
            f"predict={knob!r}: {type(method).__name__} trains, and no points of it are stored for this network and "
            "data; leave predict out, or ship a sweep of it"
        )
    apart = _told_apart(stored, name, type(method)) if stored else list(points)
    return [method_of(report.method, (type(method),)) for report in _spread(apart)]


def _spread(points: Sequence[Report]) -> list[Report]:
    """Return at most `COUNT` points, evenly by number."""
    return [points[index] for index in sorted({round(i * (len(points) - 1) / (COUNT - 1)) for i in range(COUNT)})]


def _told_apart(stored: Sequence[Report], knob: str, cls: type[Method]) -> list[Report]:
    """Return the points without those that lie nearly at the same place as the one before."""
    kept: list[tuple[float, Report]] = []
    for place, report in _along_the_curve(stored, knob, cls):
        if not kept or place - kept[-1][0] >= NEAR:
            kept.append((place, report))
    return [report for _, report in kept]


def interesting(stored: Sequence[Report], knob: str, cls: type[Method]) -> list[Report]:
    """Return `COUNT` of the points along a knob, at equal distances on the curve of place and accuracy, each 0..1."""
    places = _along_the_curve(stored, knob, cls)
    whole = places[-1][0]
    wanted = [whole * i / (COUNT - 1) for i in range(COUNT)]
    nearest = {min(range(len(places)), key=lambda index: abs(places[index][0] - place)) for place in wanted}
    return [places[index][1] for index in sorted(nearest)]


def _along_the_curve(stored: Sequence[Report], knob: str, cls: type[Method]) -> list[tuple[float, Report]]:
    """Return how far along the curve of place and accuracy, each 0..1, the points lie that have a number."""
    values = [getattr(method_of(report.method, (cls,)), knob) for report in stored]
    numbers = [(value, report) for value, report in zip(values, stored, strict=True) if type(value) in (int, float)]
    along_it = [0.0]
    for (value, report), (after, later) in itertools.pairwise(numbers):
        width = positions([value, after], knobs(cls)[knob])
        along_it.append(along_it[-1] + abs(width[1] - width[0]) + abs(later.accuracy - report.accuracy))
    return [(place, report) for place, (_, report) in zip(along_it, numbers, strict=False)]


def positions(values: Sequence[float], declared: Knob) -> list[float]:
    """Return where values lie between the ends of a knob's slider, 0..1."""
    scale = math.log if declared.log else float
    if declared.slider_range is None:
        raise ValueError(f"a knob without a slider range has no places: {declared}")
    low, high = map(scale, declared.slider_range)
    return [(scale(value) - low) / (high - low) for value in values]


def question(methods: Sequence[Method], knob: str | bool, dense: Report, classes: int) -> dict[str, Any]:
    """Return what the page asks: the knob, its values with their places 0..1, and the accuracies known beforehand."""
    cls = type(methods[0])
    name = str(main_knob(cls) if knob is True else knob)
    values = [getattr(method, name) for method in methods]
    numbers = [value for value in values if type(value) in (int, float)]
    even = len(numbers) < len(values)
    places = [i / max(1, len(values) - 1) for i in range(len(values))] if even else positions(values, knobs(cls)[name])
    return {
        "knob": name.replace("_", " "), "values": [as_text(value) for value in values], "places": places,
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
