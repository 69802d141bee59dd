"""What the page of an explorer shows, as plain data made from its view: the panel sends it."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compedu.explorers.figures import gauges, sideways, tradeoff
from compedu.explorers.figures.figure import drawn, moving
from compedu.explorers.figures.pictures import Picture
from compedu.explorers.figures.pictures.picture import layer_names
from compedu.explorers.main_knob import main_knob
from compedu.explorers.panel.badge import about_html, badge
from compedu.explorers.panel.controls import Control
from compedu.explorers.panel.panel import Panel
from compedu.explorers.panel.strip import strip
from compedu.explorers.panel.tables import captioned, criteria_table, layers_table, points_table
from compedu.explorers.view import News, State, View
from compedu.explorers.words import sentence
from compedu.methods import Method

SHOWN_KNOBS = 3
DATA_KNOB = "calibration_images"  # it matters only where a method, with its other knobs, uses images
TABS = {
    "Newly wrong": "images that the dense network gets right and this network wrong: dense→now",
    "Newly right": "images that the dense network gets wrong and this network right: dense→now",
    "What runs": "what each layer became, what it costs, and the kernel that actually runs it",
    "Criteria": "the survey's criteria of this network: compression rates, space saving, speed-up",
    "Points": "the points of the trade-off curve as a table",
    "Picture": "the picture's figures for every layer as a table",
    "In words": "gauges and picture in sentences",
}
BUTTONS = {
    "Run": "train and measure the network with these knobs",
    "Cancel": "stop the training; the network is untouched",
    "Reset": "back to the initial knobs, without pins",
    "Pin": "keep the measured point in plot and table for comparison; a fourth pin replaces the first",
}


class Screen:
    """What the page shows: the chosen picture, layer and axis, and the `panel` that everything is sent through.

    `heard` is called with what a page says. `show` brings the panel up to a view.
    """

    def __init__(
        self, view: View, pictures: Sequence[Picture], controls: Mapping[str, Control],
        heard: Callable[[dict[str, Any]], None],
    ):  # fmt: skip
        self.pictures = {picture.name: picture for picture in pictures}
        self.picture = pictures[0]
        self.layer = self.picture.start(view.before)
        self.question: dict[str, Any] | None = None
        self.remark = ""
        self.displayed = 0.0  # when a cell showed the explorer, in ms since 1970: its page then scrolls to it
        self.heard = 0  # the number of the newest message of a page
        self.typed: str | None = None  # code that was refused, which can be corrected in place
        self._controls = controls
        parts = {
            "knobs": [control.parts for control in controls.values()], "main": main_knob(view.method),
            "pictures": list(self.pictures), "layers": layer_names(view), "tabs": TABS, "buttons": BUTTONS,
            "sideways": sideways.choices(view), "gauges": gauges.NAMES,
        }  # fmt: skip
        self.panel = Panel(parts, self._figures(view), heard)

    def _figures(self, view: View) -> dict[str, Any]:
        return moving(view) | {"picture": drawn(view, self.picture, self.layer)}

    def choose_picture(self, view: View, name: str) -> None:
        """Choose a picture by name, with the layer that it starts with unless another one was chosen."""
        untouched = self.layer == self.picture.start(view.before)
        self.picture = self.pictures[name]
        self.layer = self.picture.start(view.before) if untouched else self.layer

    def choose_layer(self, view: View, name: str) -> None:
        """Choose the layer in the picture; raises `ValueError` for an unknown one."""
        if name not in layer_names(view):
            raise ValueError(f"there is no layer {name!r} to show; there are: {', '.join(layer_names(view))}")
        self.layer = name

    def show(self, view: View, looks: int, steps: tuple[int, int], news: News) -> None:
        """Bring the page up to the view, of which `news` says what has changed."""
        lively = news in (News.NETWORK, News.TRAINING) or (self.picture.lively and news == News.KNOBS)
        self.panel.draw(self._figures(view) if lively else moving(view))
        self.panel.shown = self._shown(view, looks, steps)
        looked_up = view.state == State.PREVIEW and view.method.needs == "training"  # nothing is measured before Run
        if looked_up or view.state in (State.FINAL, State.ERROR, State.CANCELLED):
            self.fill(view)

    def confirm(self) -> None:
        """Tell the page that its newest message was heard, even where nothing changed: a slider waits for that."""
        if self.panel.shown.get("heard") != self.heard:
            self.panel.shown = self.panel.shown | {"heard": self.heard}

    def _shown(self, view: View, looks: int, steps: tuple[int, int]) -> dict[str, Any]:
        word, why = badge(view)
        front = self._front(view.method)
        running = view.state == State.RUNNING
        trains = view.method.needs == "training"
        return {
            "heard": self.heard, "code": repr(view.method), "typed": self.typed, "state": view.state,
            "badge": word, "why": why, "message": message_html(view, self.remark), "about": about_html(view, looks),
            "knobs": {name: control.shown for name, control in self._controls.items()}, "front": front,
            "buttons": {
                "Run": trains and not running, "Cancel": trains and running, "Reset": True,
                "Pin": view.state == State.FINAL,
            },
            "trains": trains, "progress": list(steps) if running else None,
            "gauges": dict(zip(gauges.NAMES, gauges.captions(view), strict=True)), "legend": tradeoff.legend(view),
            "caption": self.picture.caption(view, self.layer), "heading": self.picture.headings[0],
            "picture": self.picture.name, "layer": self.layer, "sideways": view.sideways, "question": self.question,
            "said": self._said(view), "displayed": self.displayed,
        }  # fmt: skip

    def _front(self, method: Method) -> list[str]:
        """Return the knobs that are shown at once; the others are below More, those without effect included."""
        idle = {DATA_KNOB} if method.needs == "weights" else set()
        return [name for name in list(self._controls)[:SHOWN_KNOBS] if name not in idle]

    def _said(self, view: View) -> str:
        return f"{in_words(view)} Picture: {self.picture.say(view, self.layer)}."

    def fill(self, view: View) -> None:
        """Update tables and words to the view, once a measurement is complete or has failed."""
        report = view.report if view.state == State.FINAL else None
        wrong, right = (None, None) if report is None else (report.newly_wrong, report.newly_right)
        counts = {"Newly wrong": wrong, "Newly right": right}
        said = f"<p>{html.escape(in_words(view))}</p>"
        seen = f"<p>Picture: {html.escape(self.picture.say(view, self.layer))}.</p>"
        texts = {
            "Newly wrong": strip(wrong, view.data, view.split, "newly wrong"),
            "Newly right": strip(right, view.data, view.split, "newly right"),
            "What runs": layers_table(report), "Criteria": criteria_table(report), "Points": points_table(groups(view)),
            "Picture": captioned(*self.picture.table(view), f"The picture as a table: {view.method!r}"),
            "In words": said + seen,
        }  # fmt: skip
        if why := gauges.why_nothing(view):  # these wait for a measurement, and none comes
            nothing = f"<p class='compedu-quiet'>{why}</p>"
            texts |= dict.fromkeys(("Newly wrong", "Newly right", "What runs", "Criteria"), nothing)
        self.panel.panes = {
            name: {"count": None if (flips := counts.get(name)) is None else len(flips), "html": text}
            for name, text in texts.items()
        }


def in_words(view: View) -> str:
    """Return the figures of the gauges in a sentence, with the method they belong to."""
    if view.report is None:
        why = gauges.why_nothing(view)  # of the knobs, which need not be those of the method
        return f"These knobs give no network: {view.message}" if why else f"{view.method!r}: nothing is measured yet."
    kind = "" if view.measured else ", a stored point"
    return f"{view.report.method}{kind}. {sentence(view.report, view.baseline, view.measured)}"


def message_html(view: View, remark: str = "") -> str:
    """Return the message of an error with a collapsed traceback, or a remark, or nothing."""
    if not view.message:
        return f"<div class='compedu-note'>{html.escape(remark)}</div>" if remark else ""
    fold = (
        f"<details><summary>full traceback</summary><pre tabindex='0'>{html.escape(view.details)}</pre></details>"
        if view.details
        else ""
    )
    return f"<div class='compedu-error' role='alert'>{html.escape(view.message)}{fold}</div>"


def groups(view: View) -> list[tuple[str, tuple]]:
    """Return the points of the trade-off curve by kind."""
    return [
        ("dense network", (view.baseline,)), ("now", () if view.report is None else (view.report,)),
        *((f"pin {letter}", (pin,)) for letter, pin in zip("ABC", view.pins, strict=False)),
        ("as measured", view.asked), ("measured here", tuple(view.seen.values())), ("stored points", view.points),
        ("small dense net", view.controls), ("at random", view.random_baseline),
    ]  # fmt: skip
