"""An explorer as a page has it: what the page says, and the figures that it merges from what it hears."""

import base64
import json
from dataclasses import replace

import numpy as np

from compedu.explorers import Explorer
from compedu.explorers.figures.figure import drawn, moving
from compedu.explorers.panel.changes import as_json
from compedu.explorers.panel.panel import Panel


class Page:
    """A page that shows a panel: hears the kernel, and brings its figures up to date by numbered changes.

    While it is `asleep`, it misses what is sent.
    """

    def __init__(self, panel: Panel):
        self.panel = panel
        self.heard = []
        self.asleep = False
        self._take(over_the_wire(panel.get_state()["figures"]))
        panel.send = self.hear  # as an attribute of this one widget: the messages of the kernel end here

    def hear(self, message: dict, buffers: list | None = None) -> None:
        """Take a message of the kernel."""
        if self.asleep:
            return
        message = over_the_wire(message)
        self.heard.append(message)
        if message["kind"] == "all":
            self._take(message)
        elif message["kind"] == "changes" and message["number"] > self.number:
            if message["number"] != self.number + 1:
                self.ask()
                return
            self.number = message["number"]
            for name, changes in message["figures"].items():
                self.figures[name] = merged(self.figures[name], changes)

    def ask(self) -> None:
        """Say which figures the page has, as it does when it misses one and when it begins."""
        self.panel._on_message(self.panel, {"kind": "have", "number": self.number}, [])

    def _take(self, state: dict) -> None:
        self.number = state["number"]
        self.figures = state["figures"]


def over_the_wire(content):
    """What arrives of JSON that is sent; NaN, which JSON lacks, is an error."""
    return json.loads(json.dumps(content, allow_nan=False))


def merged(figure: dict, changes: dict) -> dict:
    """A figure after its changes, by the rule of `plots.js`."""
    if "whole" in changes:
        return changes["whole"]
    data = [properties(trace, changes["data"].get(str(index))) for index, trace in enumerate(figure["data"])]
    return {"data": data, "layout": properties(figure["layout"], changes["layout"])}


def properties(old: dict, changes: dict | None) -> dict:
    return {name: value for name, value in (old | (changes or {})).items() if value is not None}


def figures_now(explorer: Explorer) -> dict:
    """All figures as made anew from the explorer's view; only what the worker prepared is taken as it is."""
    screen = explorer._screen
    view = replace(explorer.view, kept={} if screen.picture.prepare is None else dict(explorer.view.kept))
    return over_the_wire(as_json(moving(view) | {"picture": drawn(view, screen.picture, screen.layer)}))


def shown_figures(explorer: Explorer) -> dict:
    """The figures that a page which opens now begins with."""
    return over_the_wire(explorer.widget.get_state()["figures"])["figures"]


def numbers(packed) -> list:
    """The numbers of an array as plotly.js reads them; a list is one already."""
    if isinstance(packed, list):
        return packed
    array = np.frombuffer(base64.b64decode(packed["bdata"]), np.dtype(packed["dtype"]).newbyteorder("<"))
    shape = [int(part) for part in packed.get("shape", str(array.size)).split(",")]
    return array.reshape(shape).tolist()


def trace(explorer: Explorer, meta: str) -> dict:
    """One trace of the trade-off curve as it is shown, by its `meta`."""
    return next(one for one in shown_figures(explorer)["tradeoff"]["data"] if one["meta"] == meta)


def sizes_of(node) -> list:
    """All font sizes in a figure."""
    if isinstance(node, dict):
        fonts = [value["size"] for key, value in node.items() if key.endswith("font") and "size" in value]
        return fonts + [size for value in node.values() for size in sizes_of(value)]
    return [size for value in node for size in sizes_of(value)] if isinstance(node, (list, tuple)) else []


def say(explorer: Explorer, kind: str, **content) -> None:
    """Say something to an explorer as its page does; what it raises is raised here."""
    explorer.widget._on_message(explorer.widget, {"kind": kind, **content}, [])


def turn(explorer: Explorer, name: str, place: int, **content) -> None:
    """Move the slider of a knob to a place."""
    say(explorer, "knob", name=name, place=place, **content)


def fill(explorer: Explorer, name: str, text: str) -> None:
    """Fill the field of a knob."""
    say(explorer, "knob", name=name, text=text)
