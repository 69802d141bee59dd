"""The explorer: knobs on the left, measured answers on the right, one worker thread behind them."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from IPython.display import display
from torch import nn

from compedu.course.lab_book import LabBook
from compedu.datasets.dataset import Dataset
from compedu.explorers.conclusion import conclusion
from compedu.explorers.figures import sideways
from compedu.explorers.figures.pictures import LANES, pictures_of
from compedu.explorers.main_knob import stored_start
from compedu.explorers.pages.page import page_form
from compedu.explorers.pages.races import stored_race
from compedu.explorers.pages.still import still_form
from compedu.explorers.panel.controls import Control, controls_of
from compedu.explorers.panel.panel import Panel
from compedu.explorers.panel.screen import Screen
from compedu.explorers.panel.tables import csv_text
from compedu.explorers.prediction import Bet, Prediction
from compedu.explorers.race import RaceSession
from compedu.explorers.session import Session
from compedu.explorers.view import News, Sideways, State
from compedu.knobs import no_such_knob
from compedu.methods import Method, Pipeline
from compedu.metrics import Report
from compedu.sweeps import method_of


class Explorer:
    """Turn the knobs of one method on one trained network and see measured accuracy, size and speed.

    `method` is a method class, or a method with the initial values. While a knob moves, the nearest stored point is
    drawn at once as a preview; then the network is compressed and measured, newest position first. `explorer.method`
    is the current method and `explorer.report` the newest report; `settle()` waits for it.

    With `predict`, True or the name of a knob, the answers stay hidden until a curve of accuracies is committed, drawn
    on the screen or by `commit`; a `book` records it. With `race`, Run trains the student of a distillation twice, with
    its teacher and alone, and `predict` asks for a bet on both accuracies. Raises `ValueError` where `predict` or
    `race` is not possible, and for a pipeline: knobs, points and pictures are those of one method.
    """

    def __init__(
        self, method: Method | type[Method], model: nn.Module, data: Dataset, *, split: str = "validation",
        predict: bool | str = False, book: LabBook | None = None, race: bool = False,
    ):  # fmt: skip
        self._start = method() if isinstance(method, type) else method
        self._views: dict[str, int] = {}  # how often each page shows it
        self._stills: list[Any] = []  # the outputs that a notebook keeps
        _refuse_several(self._start)
        self._session = (RaceSession if race else Session)(self._start, model, data, split, self._show)
        self.view = self._session.view
        if isinstance(method, type) and self._start.needs == "training":
            self._start = self.view.method = stored_start(self._start, self.view.points)
        self.view.sideways = sideways.first_choice(self.view)
        self._controls = controls_of(self._start)
        pictures = ((LANES,) if race else ()) + pictures_of(type(self._start))
        self._screen = Screen(self.view, pictures, self._controls, self._on_message)
        self._screen.fill(self.view)
        self._prediction: Prediction | None = None
        if predict:
            self._ask((Bet if race else Prediction)(self._start, predict, self.view, book))
        self._put(self._start)  # measured before the first move, which then finds all kernels warm

    def __repr__(self) -> str:
        said = "commit your prediction first, then run this cell again" if self.hidden else self.state
        return f"explorer of {self.method!r} on {self.view.baseline.model}, {self.view.data.name}: {said}"

    # What a notebook uses

    @property
    def method(self) -> Method:
        """The method with the current knob values; its `repr` is the code to copy."""
        return self.view.method

    @property
    def report(self) -> Report | None:
        """The shown report; `state` says how far it is measured. None while a prediction is pending."""
        return None if self.hidden else self.view.report

    @property
    def state(self) -> State:
        """How far the shown report is measured: PREVIEW, MEASURING, FINAL, RUNNING, CANCELLED or ERROR."""
        return self.view.state

    @property
    def hidden(self) -> bool:
        """Whether the answers are hidden until a prediction is committed; on a page of results, the page hides them."""
        return self._prediction is not None and not self.view.predicted and not _becomes_a_page()

    @property
    def widget(self) -> Panel:
        """The widget on the page, to be put into a layout of your own; an explorer as the last line shows itself."""
        return self._screen.panel

    @property
    def looks(self) -> int:
        """How many compressed networks were measured on the split."""
        return self._session.looks

    @property
    def pins(self) -> tuple[Report, ...]:
        """The pinned reports."""
        return tuple(self.view.pins)

    @property
    def csv(self) -> str:
        """All final reports of this explorer as comma-separated values."""
        with self._session.lock:
            return csv_text(() if self.hidden else tuple(self.view.seen.values()))

    def set(self, **values: Any) -> "Explorer":
        """Set knobs as on the screen; returns the explorer. Raises `ValueError` as the method does."""
        for name in values:
            if name not in self._controls:
                raise ValueError(no_such_knob(type(self.method), name))
        return self._put(replace(self.method, **values))

    def run(self) -> "Explorer":
        """Start a method that trains, as the Run button does."""
        self._session.run()
        return self

    def cancel(self) -> None:
        """Stop a running training, as the Cancel button does; the network is untouched."""
        self._session.cancel()

    def reset(self) -> "Explorer":
        """Reset all knobs to their initial values, and remove the pins."""
        with self._session.lock:
            self.view.pins.clear()
        return self._put(self._start)

    def pin(self) -> "Explorer":
        """Keep the shown report in the plot; a fourth pin replaces the first."""
        with self._session.lock:
            if self.report is not None and self.state == State.FINAL:
                self.view.pins[:] = [*self.view.pins, self.view.report][-3:]
                self._show(News.FIGURES)
        return self

    def commit(self, accuracies: Sequence[float]) -> "Explorer":
        """Commit a prediction, one accuracy in 0..1 per question, and show the answers. The first prediction counts."""
        if self._prediction is None:
            raise ValueError("this explorer asks for no prediction; open it with predict=True")
        with self._session.lock:
            self._prediction.commit(accuracies)
            self._screen.question = self._prediction.question
            self._show(News.NETWORK)
        return self

    def settle(self, timeout: float = 600.0) -> Report | None:
        """Wait until nothing is trained or measured and return the report; `TimeoutError` after `timeout` seconds."""
        if not self._session.runner.settle(timeout):
            raise TimeoutError(f"{self.method!r} is still being measured after {timeout:g} s")
        return self.report

    def conclude(self, points: float = 1.0) -> str:
        """Return in a sentence which setting measured here is the smallest that loses at most `points` points."""
        return repr(self) if self.hidden else conclusion(self.view, points)

    def close(self) -> None:
        """Stop the worker and remove the widget from all pages."""
        self._session.close()
        self._screen.panel.close()

    def _ask(self, prediction: Prediction) -> None:
        """Hide the answers behind a question, and measure its settings; then draw the curve where it was predicted."""
        self._prediction = prediction
        self._session.questions = prediction.unmeasured
        self._screen.question = prediction.question
        if prediction.along_main_knob:
            self.view.sideways = Sideways.KNOB

    # What the page says

    def _on_message(self, content: dict[str, Any]) -> None:
        """Do what a page says: a message names its `kind`, which is a method of ours."""
        actions = {
            "knob": self._on_knob, "code": self._on_code, "press": self._on_press, "picture": self._on_picture,
            "layer": self._on_layer, "sideways": self._on_sideways, "file": self._on_file, "commit": self._on_commit,
            "views": self._on_views, "still": self._on_still,
        }  # fmt: skip
        self._screen.heard = max(self._screen.heard, content.get("serial", 0))  # several pages count for themselves
        try:
            actions[content["kind"]](content)
        finally:
            with self._session.lock:
                self._screen.confirm()

    def _on_knob(self, content: dict[str, Any]) -> None:
        """Turn one knob, and go to the method that the controls describe, or show why there is none."""
        control: Control = self._controls[content["name"]]
        if "place" in content:
            control.turn(content["place"])
        else:
            control.type(content["text"])
        self._session.gesture = content.get("gesture")
        self._screen.typed = None
        try:
            method = type(self._start)(**{name: control.value for name, control in self._controls.items()})
        except ValueError as error:
            self._session.refuse(str(error))
        else:
            self._session.move(method)

    def _on_code(self, content: dict[str, Any]) -> None:
        """Go to the method written in the code line."""
        text = content["text"]
        try:
            method = method_of(text, (type(self._start),))
            _refuse_several(method)
            self._put(method)
        except ValueError as error:
            self._screen.typed = text
            self._session.refuse(
                f"this explorer turns {type(self._start).__name__}, written as {self._start!r}: {error}"
            )

    def _on_press(self, content: dict[str, Any]) -> None:
        {"Run": self.run, "Cancel": self.cancel, "Reset": self.reset, "Pin": self.pin}[content["name"]]()

    def _on_picture(self, content: dict[str, Any]) -> None:
        with self._session.lock:
            self._screen.choose_picture(self.view, content["name"])
            self._draw_again()

    def _on_layer(self, content: dict[str, Any]) -> None:
        with self._session.lock:
            self._screen.choose_layer(self.view, content["name"])
            self._draw_again()

    def _draw_again(self) -> None:
        """Draw the layer or picture that the learner has chosen."""
        self._show(News.NETWORK)
        self._session.request_picture(self._screen.picture.prepare)

    def _on_sideways(self, content: dict[str, Any]) -> None:
        with self._session.lock:
            self.view.sideways = Sideways(content["name"])
            self._show(News.FIGURES)

    def _on_file(self, content: dict[str, Any]) -> None:
        self._screen.panel.send({"kind": "file", "name": f"{type(self.method).__name__}.csv", "text": self.csv})

    def _on_commit(self, content: dict[str, Any]) -> None:
        self.commit(content["values"])

    def _on_views(self, content: dict[str, Any]) -> None:
        """Rest while no page shows the explorer: a cell that is run again leaves the one before it behind."""
        self._views[content["page"]] = content["count"]
        (self._session.wake if any(self._views.values()) else self._session.rest)()

    def _on_still(self, content: dict[str, Any]) -> None:
        """Keep a picture of the page in the notebook, for when it is opened without a kernel."""
        with self._session.lock:
            if content["code"] != repr(self.method) or self.state != State.FINAL:
                return  # moved on meanwhile: words and picture would not belong together
            form = still_form(self.view, content["images"], self.hidden)
        for still in self._stills:
            still.update(form, raw=True)

    # What the screen shows

    def _put(self, method: Method) -> "Explorer":
        """Set the controls to `method` and go to it."""
        for name, control in self._controls.items():
            control.value = getattr(method, name)
        self._session.gesture = None
        self._screen.typed = None
        self._session.move(method)
        return self

    def _show(self, news: News) -> None:
        """Update the screen to the view; the session's lock is held."""
        if self._prediction is not None:
            self._screen.remark = self._prediction.remark(self._session.answers(), self._session.without_network)
        self._screen.show(self.view, self._session.looks, self._session.steps, news)

    def _ipython_display_(self) -> None:
        """Show the explorer: on a page of its results, where nothing can be measured, the form that needs no kernel.

        In a notebook there are two outputs, of which one is seen: the live explorer, or, where it is not alive, the
        still picture that the notebook keeps.
        """
        if _becomes_a_page():
            self._session.measure_grid()
            with self._session.lock:
                known = self._session.answers().values()
                form = page_form(self.view, known, self._screen.question, self._session.questions)
            display({"text/html": form, "text/plain": repr(self)}, raw=True)
            if (figure := stored_race(self.view)) is not None:
                display(figure)
            return
        with self._session.lock:
            form = still_form(self.view, [], self.hidden)
        self._stills.append(display(form, raw=True, display_id=True))
        self._screen.displayed = 1000 * time.time()
        with self._session.lock:
            self._show(News.KNOBS)
        display(self._screen.panel)


def _becomes_a_page() -> bool:
    """Tell whether a notebook runs with nobody at its controls, so that its results can be read as a page."""
    return os.environ.get("COMPEDU_SYNC") == "1"


def _refuse_several(method: Method) -> None:
    if isinstance(method, Pipeline):
        raise ValueError(
            f"an explorer turns the knobs of one method, and {method!r} is a pipeline of {len(method.steps)}; compress "
            "with the first steps and explore the last one on the result"
        )
