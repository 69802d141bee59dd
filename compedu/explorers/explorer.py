"""The explorer: knobs on the left, measured answers on the right, one worker behind."""

import html
import threading
import time
from typing import Any

import ipywidgets as widgets
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.errors import Cancelled
from compedu.explorers.controls import controls_of
from compedu.explorers.figure import LiveFigure, traces
from compedu.explorers.pictures import picture_of
from compedu.explorers.runner import Runner
from compedu.explorers.static import page_figure
from compedu.explorers.strip import strip
from compedu.explorers.style import STYLE
from compedu.explorers.tables import criteria_table, csv_text, layers_table
from compedu.explorers.view import View
from compedu.explorers.words import sentence
from compedu.methods import Method
from compedu.methods.layers import compressible
from compedu.metrics import Baseline, Report, measure
from compedu.sweeps import nearest, stored_points
from compedu.training import Step, listening

SHOWN_KNOBS = 3
PROGRESS_EVERY_S = 0.1


class Explorer(widgets.VBox):
    """Turn the knobs of one method on one trained network and see measured accuracy, size and speed.

    `method` is a method class, or a method whose values are the start. While a knob moves, the nearest stored point is
    drawn at once as a preview; then the network is compressed and measured, newest position first. `explorer.method` is
    the current method and `explorer.report` the newest report; `settle()` waits for it.
    """

    def __init__(self, method: Method | type[Method], model: nn.Module, data: Dataset, *, split: str = "validation"):
        self._lock = threading.RLock()
        self._start = method() if isinstance(method, type) else method
        self._model, self._data, self._split = model, data, split
        self._baseline = Baseline.of(model, data, split)
        stored = stored_points(type(self._start), model, data, split)
        self.view = View(
            data=data, baseline=self._baseline.report, before=model, method=self._start, points=stored.points,
            controls=stored.controls,
        )  # fmt: skip
        self.looks, self._shown_at = 0, 0.0
        self._seen: dict[str, Report] = {}
        self._runner = Runner(self._work, self._failed)
        self._picture = picture_of(self._start)
        self._controls = controls_of(self._start, self._moved)
        self._make_widgets()
        super().__init__([self._style, self._top, self._body, self._strip, self._bottom])
        self.add_class("compedu")
        self._say()
        if self._start.needs != "training":
            self._runner.request(self._start)

    # What a notebook uses

    @property
    def method(self) -> Method:
        """The method with the knobs as they stand; its `repr` is the text to copy."""
        return self.view.method

    @property
    def report(self) -> Report | None:
        """The report that is shown; `state` tells whether it is a preview, partial or final."""
        return self.view.report

    @property
    def state(self) -> str:
        """PREVIEW, MEASURING, FINAL, RUNNING, CANCELLED or ERROR."""
        return self.view.state

    @property
    def pins(self) -> tuple[Report, ...]:
        """The reports that were pinned."""
        return tuple(self.view.pins)

    @property
    def csv(self) -> str:
        """All final reports of this explorer as comma-separated values."""
        return csv_text(self._seen.values())

    def set(self, **values: Any) -> "Explorer":
        """Set knobs as if they were moved on the screen; returns the explorer."""
        for name, value in values.items():
            if name not in self._controls:
                raise ValueError(f"{type(self.method).__name__} has no knob {name!r}; it has: {', '.join(self._controls)}")
            self._controls[name].value = value
        self._moved()
        return self

    def run(self) -> "Explorer":
        """Start a method that trains, as the Run button does."""
        with self._lock:
            self.view.curve = []
            self._become("RUNNING")
        self._runner.request(self.method)
        return self

    def cancel(self) -> None:
        """Stop a running training, as the Cancel button does; the network is untouched."""
        self._runner.cancel()
        with self._lock:
            self._become("CANCELLED", "cancelled: the dense network is untouched")

    def settle(self, timeout: float = 60.0) -> Report | None:
        """Wait until nothing is measured any more and return the report; raises `TimeoutError` after `timeout` seconds."""
        if not self._runner.settle(timeout):
            raise TimeoutError(f"{self.method!r} is still being measured after {timeout:g} s")
        return self.report

    def close(self) -> None:
        """Stop the worker and remove the widgets."""
        self._runner.close()
        super().close()

    # What happens when a knob moves

    def _moved(self) -> None:
        try:
            method = type(self._start)(**{name: control.value for name, control in self._controls.items()})
        except ValueError as error:
            with self._lock:
                self._become("ERROR", str(error))
            self._runner.cancel()
            return
        with self._lock:
            self.view.method = method
            self.view.report = nearest((*self.view.points, *self._seen.values()), method)
            self._become("PREVIEW")
        if method.needs == "training":
            self._runner.cancel()
        else:
            self._runner.request(method)

    def _work(self, method: Method, stale) -> None:
        """Compress and measure: runs on the worker's thread."""
        try:
            with listening(lambda step: self._stepped(step, stale)):
                after = method(self._model, self._data)
        except Cancelled:
            return
        if stale():
            return
        with self._lock:
            self.view.after = after
        self.looks += 1
        report = measure(
            after, self._data, baseline=self._baseline, split=self._split, stale=stale,
            on_partial=lambda partial: self._publish(partial, stale, "MEASURING"),
        )  # fmt: skip
        if report is not None:
            self._publish(report, stale, "FINAL")

    def _publish(self, report: Report, stale, state: str) -> None:
        with self._lock:
            if stale():
                return
            self.view.report = report
            if state == "FINAL":
                self._seen[report.method] = report
            self._become(state)

    def _stepped(self, step: Step, stale) -> None:
        """Show a training step; a stale one is cancelled."""
        if stale():
            raise Cancelled
        with self._lock:
            self.view.curve.append(step.loss)
            if step.done == step.steps or time.monotonic() - self._shown_at > PROGRESS_EVERY_S:
                self._shown_at = time.monotonic()
                self._progress.max, self._progress.value = step.steps, step.done
                self._progress.description = f"{step.done}/{step.steps}"

    def _failed(self, method: Method, error: BaseException) -> None:
        with self._lock:
            self._become("ERROR", f"{type(error).__name__}: {error}")

    # What is on the screen

    def _become(self, state: str, message: str = "") -> None:
        self.view.state, self.view.message = state, message
        if state == "ERROR":
            self.view.report = self.view.after = None
        self._say()
        if state in ("PREVIEW", "MEASURING", "FINAL", "ERROR"):
            self._figure.show(traces(self.view, self._picture, self._layer.value))

    def _say(self) -> None:
        """Bring all texts up to the view."""
        view = self.view
        report, name = view.report, html.escape(repr(view.method))
        badge = view.state
        if view.state == "MEASURING" and report is not None:
            badge = f"MEASURING {report.seen} of {report.of}"
        size = f"{getattr(self._model, 'spec', type(self._model).__name__).split('(')[0]} on {view.data.name}"
        self._headline.value = (
            f"<div class='compedu-top'><b>{type(view.method).__name__}</b><span>{html.escape(size)}, {self._split}</span>"
            f"<span class='compedu-badge {view.state}' role='status'>{badge}</span>"
            f"<span class='compedu-quiet' title='every look at the validation set is a choice made with it'>"
            f"looks: {self.looks}</span></div>"
        )
        self._code.value = f"<span class='compedu-code' title='click, then copy'>{name}</span>"
        self._message.value = f"<div class='compedu-error' role='alert'>{html.escape(view.message)}</div>" if view.message else ""
        self._running(view.state == "RUNNING")
        if view.state in ("FINAL", "ERROR", "PREVIEW"):
            shown = report if view.state == "FINAL" else None
            self._strip.value = f"<div class='compedu-strip'>{strip(shown, view.data)}</div>"
            self._tables[0].value, self._tables[1].value = layers_table(shown), criteria_table(shown)
            said = sentence(report, view.baseline) if report is not None else "Nothing is measured yet."
            picture = self._picture.say(view, self._layer.value)
            self._tables[2].value = f"<p>{html.escape(said)}</p><p>{html.escape(picture)}</p>"

    def _running(self, running: bool) -> None:
        self._run.disabled, self._cancel.disabled = running, not running
        self._progress.layout.visibility = "visible" if running else "hidden"

    def _make_widgets(self) -> None:
        names = list(compressible(self._model)[0])
        largest = max(names, key=lambda name: sum(p.numel() for p in self._model.get_submodule(name).parameters()))
        self._layer = widgets.Dropdown(options=names, value=largest, layout=widgets.Layout(width="150px"))
        self._layer.observe(lambda change: self._redraw(), "value")
        self._style, self._headline = widgets.HTML(STYLE), widgets.HTML()
        self._top = widgets.HBox([self._headline])
        self._code, self._message, self._strip = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._tables = [widgets.HTML(), widgets.HTML(), widgets.HTML()]
        self._make_buttons()
        self._figure = LiveFigure(self.view, self._picture, self._layer.value)
        knobs = [control.widget for control in self._controls.values()]
        more = widgets.Accordion([widgets.VBox([*knobs[SHOWN_KNOBS:], widgets.Label("layer in the picture"), self._layer])])
        more.set_title(0, "more")
        left = [*knobs[:SHOWN_KNOBS], *self._buttons, self._message, more]
        column = widgets.VBox(left, layout=widgets.Layout(width="230px", flex="0 0 230px", overflow="hidden"))
        self._body = widgets.HBox([column, self._figure.widget], layout=widgets.Layout(align_items="flex-start"))
        tabs = widgets.Accordion([self._tables[0], self._tables[1], self._tables[2]])
        for index, title in enumerate(("What runs, layer by layer", "The survey's criteria", "In words")):
            tabs.set_title(index, title)
        self._bottom = widgets.VBox([self._code, tabs])

    def _make_buttons(self) -> None:
        small = widgets.Layout(width="auto")
        made = {}
        for name, action, tip in (
            ("Run", self.run, "train and measure with these knobs"),
            ("Cancel", self.cancel, "stop; the network is untouched"),
            ("Reset", self.reset, "back to the knobs at the start"),
            ("Pin", self.pin, "keep this point in the plot (three at most)"),
        ):
            made[name] = widgets.Button(description=name, tooltip=tip, layout=small)
            made[name].on_click(lambda button, action=action: action())
        self._run, self._cancel = made["Run"], made["Cancel"]
        self._progress = widgets.IntProgress(layout=widgets.Layout(width="210px"))
        trains = self._start.needs == "training"
        row = [made[name] for name in (("Run", "Cancel") if trains else ()) + ("Reset", "Pin")]
        self._buttons = [widgets.HBox(row), *([self._progress] if trains else [])]

    def _redraw(self) -> None:
        with self._lock:
            self._figure.show(traces(self.view, self._picture, self._layer.value))

    def reset(self) -> "Explorer":
        """Put all knobs back to where they were at the start, and forget the pins."""
        with self._lock:
            self.view.pins.clear()
            for name, control in self._controls.items():
                control.value = getattr(self._start, name)
        self._moved()
        return self

    def pin(self) -> "Explorer":
        """Keep the shown report in the plot; the fourth pin replaces the first."""
        with self._lock:
            if self.report is not None and self.state == "FINAL":
                self.view.pins[:] = [*self.view.pins, self.report][-3:]
                self._redraw()
        return self

    def _repr_mimebundle_(self, **options: Any) -> dict:
        """Add the form that moves without a kernel, for pages and saved notebooks."""
        bundle = super()._repr_mimebundle_(**options) or {}
        return bundle | {"text/html": page_figure(self.view)}
