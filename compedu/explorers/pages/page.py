"""The explorer on a page without a kernel: the same front end, whose slider chooses among measured points."""

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from compedu.explorers.figures import gauges, sideways, tradeoff
from compedu.explorers.figures.figure import moving
from compedu.explorers.main_knob import along, main_knob, on_one_curve
from compedu.explorers.panel.badge import badge
from compedu.explorers.panel.changes import as_json, changed
from compedu.explorers.panel.controls import Control
from compedu.explorers.panel.screen import groups, in_words
from compedu.explorers.panel.tables import points_table
from compedu.explorers.view import State, View
from compedu.knobs import knobs
from compedu.methods import Method
from compedu.metrics import Report
from compedu.sweeps import method_of

TABS = {"In words": "gauges in a sentence", "Points": "the points of the trade-off curve as a table"}


def page_form(
    view: View, known: Iterable[Report], question: dict[str, Any] | None, asked: Sequence[Method] = ()
) -> str:
    """Return HTML of the explorer over the `known` points along its main knob, with a `question` first if there is one.

    The known reports of the methods `asked` answer the question. The page must load plotly.js and the scripts of the
    panel; without them, the HTML shows the figures in words.
    """
    reports = {report.method: report for report in known}
    points = _on_the_slider(view, reports.values())
    if not points and view.report is None:
        return f"<p>{html.escape(repr(view.method))}: nothing is measured yet.</p>"
    shown = view.report or points[0]
    points = points or (shown,)
    start = next((index for index, point in enumerate(points) if point.method == shown.method), 0)
    seen = [_at(view, view.report if index == start and view.report else point) for index, point in enumerate(points)]
    figures = [as_json(moving(one)) for one in seen]
    content = {
        "parts": _parts(view, points), "start": start, "figures": figures[start],
        "places": [{"shown": _shown(one, index), "changes": _changes(figures[start], drawn)}
                   for index, (one, drawn) in enumerate(zip(seen, figures, strict=True))],
        "panes": {"Points": {"count": None, "html": points_table(groups(view))}},
        "question": question, "legend": tradeoff.LEGEND_OF_PREDICTION,
        "answers": [] if question is None else _answers(view, [reports.get(repr(method)) for method in asked]),
    }  # fmt: skip
    packed = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    said = in_words(seen[start]) if question is None else f"{view.method!r}: predict the curve before you see it."
    return (
        f"<div class='compedu-page'><script type='application/json'>{packed}</script><p>{html.escape(said)}</p></div>"
    )


def _on_the_slider(view: View, known: Iterable[Report]) -> tuple[Report, ...]:
    """Return the points along the curve of the shown report, so that it has its place; the largest if none is shown."""
    if view.report is not None:
        shown = method_of(view.report.method, (type(view.method),))
        known = [report for report in known if on_one_curve(shown, method_of(report.method, (type(view.method),)))]
    return along(known, view.method)


def _at(view: View, report: Report) -> View:
    """Return the view with another report; what this explorer did not measure itself is a preview, without speed."""
    own = report is view.report and view.state == State.FINAL
    stored = next((point for point in view.points if point.method == report.method), None)
    method = method_of(report.method, (type(view.method),))  # its own setting, so that it does not count as nearby
    state = State.FINAL if own else State.PREVIEW
    return replace(view, method=method, state=state, report=report, stored=stored, pins=[], kept={})


def _parts(view: View, points: tuple[Report, ...]) -> dict[str, Any]:
    knob = main_knob(view.method)
    declared = [] if knob is None else [Control(knob, knobs(view.method)[knob], getattr(view.method, knob)).parts]
    values = [_value(method_of(point.method, (type(view.method),))) for point in points]
    return {
        "knobs": [one | {"places": values if len(values) > 1 else []} for one in declared],
        "main": knob, "pictures": [], "layers": [], "tabs": TABS, "buttons": {}, "gauges": gauges.NAMES,
        "sideways": {view.sideways: sideways.choices(view)[view.sideways]}, "still": True,
        "name": type(view.method).__name__,
    }  # fmt: skip


def _value(method: Method) -> str:
    value = getattr(method, main_knob(method) or "", "")
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _shown(view: View, place: int) -> dict[str, Any]:
    word, why = badge(view)
    knob = main_knob(view.method)
    return {
        "heard": 0, "code": repr(view.method), "typed": None, "state": view.state, "badge": word, "why": why,
        "message": "", "about": "", "front": [], "buttons": {}, "trains": False, "progress": None,
        "knobs": {} if knob is None else {knob: {"place": place, "text": _value(view.method), "refused": False}},
        "gauges": dict(zip(gauges.NAMES, gauges.captions(view), strict=True)), "legend": tradeoff.legend(view),
        "caption": "", "heading": "", "picture": "", "layer": "", "sideways": view.sideways, "question": None,
        "said": in_words(view), "displayed": 0,
    }  # fmt: skip


def _changes(start: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {name: found for name, figure in now.items() if (found := changed(start[name], figure))}


def _answers(view: View, asked: Iterable[Report | None]) -> list[list[float | None] | None]:
    """Return place on the axis and accuracy in percent of each point asked for; None where there is no network."""
    return [None if report is None else [sideways.place(view, report), 100 * report.accuracy] for report in asked]
