"""Accuracy against size, knob, operations or time: sweep, earlier curves, the control at equal bytes, now, pins."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from compedu.explorers.figures import sideways
from compedu.explorers.figures.axes import axis, base
from compedu.explorers.figures.colors import CONTROL, EARLIER, LIVE, PINS, PREDICTION, PREVIEW
from compedu.explorers.figures.places import TEXT_SIZE, TRADE_OFF_SIZE
from compedu.explorers.main_knob import along, main_knob, others
from compedu.explorers.view import Sideways, View
from compedu.explorers.words import bytes_text, percent
from compedu.methods import Method
from compedu.metrics import Report
from compedu.sweeps import method_of

MANY = 30  # points of a curve beyond which marks would hide its line
SOLID = {"color": PREVIEW, "dash": "solid", "width": 2}
NAMES = {  # in the order in which they are drawn, so that the newest lies on top
    "controls": "small dense net", "random": "at random", "earlier": "before the last change",
    "stored": "stored points", "alone": "student alone", "trail": "measured here", "predicted": "your prediction",
    "asked": "as measured", "dense": "dense network", "now": "now",
}  # fmt: skip


def figure(view: View) -> dict[str, Any]:
    """Return the figure of the trade-off curve."""
    shown = reports_shown(view)
    seen = [report for report in shown if report is view.baseline or sideways.place(view, report) is not None]
    settings = sideways.axis_settings(view, shown)
    below = {"text": sideways.title(view), "standoff": 4, "font": {"size": TEXT_SIZE}}
    layout = base(*TRADE_OFF_SIZE, l=42, r=14, t=6, b=38) | {
        "xaxis": axis("y", title=below, **settings),
        "yaxis": axis("x", ticksuffix=" %", nticks=7, **accuracy_axis(seen, view.predicted_there)),
    }
    return {"data": traces(view), "layout": layout}


def traces(view: View) -> list[dict]:
    """Return the traces of the trade-off curve; their number and kinds never change."""
    now = [view.report] if view.report is not None else []
    return [
        _line(view, view.controls, CONTROL, "dot", "controls"),
        _line(view, view.random_baseline, CONTROL, "dashdot", "random")
        | {"marker": {"symbol": "x-thin", "size": 6, "line": {"width": 1.5, "color": CONTROL}}},
        _line(view, earlier(view), EARLIER, "dash", "earlier"),
        _stored(view),
        _dots(view, alone(view), CONTROL, "alone"),
        _trail(view),
        _prediction(view),
        _asked(view),
        _dense(view),
        *[_pin(view, view.pins[i : i + 1], color, "ABC"[i]) for i, color in enumerate(PINS)],
        _marks(view, now, "diamond", LIVE if view.measured else PREVIEW, "now"),
    ]


def alike(view: View, reports: Iterable[Report], method: Method) -> list[Report]:
    """Return the reports that differ from `method` in the main knob alone, or in the seed of a training."""
    knob = main_knob(method)
    if knob is None:
        return list(reports)
    free = (knob, "seed") if method.needs == "training" else (knob,)
    wanted = others(method, *free)

    def rest(report: Report) -> dict[str, Any]:
        return view.once(("rest", report.method), lambda: others(method_of(report.method, (type(method),)), *free))

    return [report for report in reports if rest(report) == wanted]


def earlier(view: View) -> list[Report]:
    """Return the curve before the last change of another knob than the main one: stored and measured points."""
    if view.earlier is None:
        return []
    known = {report.method: report for report in (*view.points, *view.seen.values())}
    return alike(view, known.values(), view.earlier)


def stored(view: View) -> list[Report]:
    """Return the stored curve of now; of a method that trains with settings of its own, the one that there is."""
    wanted = [report for report in view.points if report not in alone(view)]
    found = alike(view, wanted, view.method)
    return found or (list(along(wanted, view.method)) if view.method.needs == "training" else [])


def alone(view: View) -> list[Report]:
    """Return the stored points at which the method is its own control: the student that learns without a teacher."""
    settings = type(view.method).alone
    if not settings:
        return []

    def find() -> list[Report]:
        pairs = [(report, method_of(report.method, (type(view.method),))) for report in view.points]
        return [
            report for report, made in pairs if all(getattr(made, name) == value for name, value in settings.items())
        ]

    return view.once("alone", find)


MARKS = {  # in the legend, in its order
    "dense": ("■", CONTROL), "now": ("◆", LIVE), "stored": ("╍●", PREVIEW), "trail": ("─●", LIVE),
    "earlier": ("╍●", EARLIER), "controls": ("┅●", CONTROL), "random": ("┅✕", CONTROL), "alone": ("●", CONTROL),
    "predicted": ("━○", PREDICTION), "asked": ("◉", LIVE),
}  # fmt: skip
LEGEND_OF_PREDICTION = [(*MARKS[kind], NAMES[kind]) for kind in ("predicted", "asked")]


def legend(view: View) -> list[tuple[str, str, str]]:
    """Return mark, color and name of everything that is drawn now, and why the shown point is not if it is not."""
    drawn = {trace["meta"]: bool(trace["x"]) for trace in traces(view)}
    drawn["trail"] = drawn["trail"] and len(view.seen) > 1
    marks = MARKS | {"now": ("◆", LIVE if view.measured else PREVIEW)}
    why = "" if view.report is None else sideways.off_axis(view, view.report)
    names = NAMES | ({"now": f"now: {why}"} if why else {})
    return [(*marks[kind], names[kind]) for kind in marks if drawn[kind] or names[kind] != NAMES[kind]]


def reports_shown(view: View) -> list[Report]:
    """Return all reports in the plot."""
    now = [view.report] if view.report is not None else []
    known = (*view.controls, *view.random_baseline, *view.points, *view.seen.values(), *view.asked, *view.pins)
    return [report for report in (view.baseline, *known, *now) if report.file_bytes is not None]


def accuracy_axis(reports: Sequence[Report], predicted: Sequence[float] = ()) -> dict:
    """Return a linear axis in percent with a round lower end that covers `reports`, `predicted`, and 90 to 100."""
    lowest = min(100 * accuracy for accuracy in (*(report.accuracy for report in reports), *predicted))
    return {"range": [max(0.0, min(90.0, 10 * math.floor((lowest - 1) / 10))), 101.0]}


def _coordinates(view: View, reports: Iterable[Report]) -> dict:
    """Return places and texts of the reports that have a place on the chosen axis, from left to right."""
    placed = [(at, report) for report in reports if (at := sideways.place(view, report)) is not None]
    placed.sort(key=lambda pair: pair[0])
    return {
        "x": [at for at, _ in placed],
        "y": [100 * report.accuracy for _, report in placed],
        "text": [_words(report) for _, report in placed],
    }


def _words(report: Report) -> str:
    size = "" if report.file_bytes is None else f", {bytes_text(report.file_bytes)}"
    return f"{report.method or 'dense'}<br>{percent(report.accuracy)}{size}"


def _line(view: View, reports: Iterable[Report], color: str, dash: str, kind: str) -> dict:
    found = _coordinates(view, reports)
    return found | {
        "type": "scatter", "mode": "lines+markers", "name": NAMES[kind], "meta": kind,
        "line": {"color": color, "dash": dash, "width": 2},
        "marker": {"size": 5 if len(found["x"]) < MANY else 3, "color": color},
        "hovertemplate": "%{text}<extra>" + NAMES[kind] + "</extra>",
    }  # fmt: skip


def _stored(view: View) -> dict:
    """Return the stored points: a curve, or, where each is a training of its own, dots with their 95 % intervals."""
    if view.method.needs == "training":
        return _dots(view, stored(view), PREVIEW, "stored")
    made = _line(view, stored(view), PREVIEW, "dash", "stored")
    return made | {"mode": "lines", "line": SOLID} if len(made["x"]) > MANY else made


def _asked(view: View) -> dict:
    """Return the points of a prediction as measured: rings around points that are stored, or were measured here."""
    ring = {"symbol": "circle-open-dot", "size": 10, "color": LIVE, "line": {"width": 2}}
    made = _line(view, view.asked, LIVE, "solid", "asked")
    return made | {"mode": "markers", "marker": ring, "cliponaxis": False}  # whole also near 100 %


def _trail(view: View) -> dict:
    """Return what was measured here with the other knobs as they are."""
    made = _line(view, alike(view, view.seen.values(), view.method), LIVE, "solid", "trail")
    return made | {"line": {"color": LIVE, "width": 1}, "mode": "markers" if type(view.method).alone else made["mode"]}


def _dots(view: View, reports: Iterable[Report], color: str, kind: str) -> dict:
    """Return separate points with the 95 % interval of each over its images."""
    made = _line(view, reports, color, "solid", kind)
    by_text = {_words(report): report.accuracy_interval for report in reports}
    ends = [tuple(100 * end for end in by_text[text]) for text in made["text"]]
    return made | {
        "mode": "markers", "marker": {"size": 7, "color": color},
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": color,
            "array": [high - y for y, (_, high) in zip(made["y"], ends, strict=True)],
            "arrayminus": [y - low for y, (low, _) in zip(made["y"], ends, strict=True)],
        },
    }  # fmt: skip


def _dense(view: View) -> dict:
    """Return the dense network: a point, or, over the knob, which it does not have, its accuracy as a line."""
    if view.sideways != Sideways.KNOB:
        return _marks(view, [view.baseline], "square", CONTROL, "dense") | {"line": {"color": CONTROL, "width": 1}}
    made = _marks(view, [], "square", CONTROL, "dense")
    settings = sideways.axis_settings(view, reports_shown(view))
    ends = [10**end if settings["type"] == "log" else end for end in settings["range"]]
    return made | {
        "x": ends, "y": [100 * view.baseline.accuracy] * 2, "text": [_words(view.baseline)] * 2, "mode": "lines",
        "line": {"color": CONTROL, "width": 1},
    }  # fmt: skip


def _marks(view: View, reports: Iterable[Report], symbol: str, color: str, kind: str) -> dict:
    name = NAMES.get(kind, kind)
    return _coordinates(view, reports) | {
        "type": "scatter", "mode": "markers", "name": name, "meta": kind, "cliponaxis": False,
        "hovertemplate": "%{text}<extra>" + name + "</extra>",
        "marker": {"symbol": symbol, "size": 12, "color": color, "line": {"width": 1, "color": "#FFFFFF"}},
    }  # fmt: skip


def _pin(view: View, reports: Iterable[Report], color: str, letter: str) -> dict:
    made = _marks(view, reports, "star", color, f"pin {letter}")
    return made | {
        "mode": "markers+text", "text": [letter] * len(made["x"]), "hovertext": made["text"],
        "textposition": "top center", "hovertemplate": "%{hovertext}<extra>pin " + letter + "</extra>",
    }  # fmt: skip


def _prediction(view: View) -> dict:
    pairs = [
        (at, 100 * said)
        for report, said in zip(view.asked, view.predicted_there, strict=False)
        if (at := sideways.place(view, report)) is not None
    ]
    pairs.sort()
    return {
        "type": "scatter", "mode": "lines+markers", "name": NAMES["predicted"], "meta": "predicted",
        "x": [at for at, _ in pairs], "y": [said for _, said in pairs],
        "line": {"color": PREDICTION, "width": 2},
        "marker": {"symbol": "circle-open", "size": 8, "color": PREDICTION, "line": {"width": 2}},
        "hovertemplate": "your prediction: %{y:.1f} %<extra></extra>",
    }  # fmt: skip
