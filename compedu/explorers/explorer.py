"""The explorer: knobs on the left, measured answers on the right, one worker thread behind them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as widgets
from torch import nn

from compedu.course.lab_book import LabBook
from compedu.datasets.dataset import Dataset
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.pages.static import page_figure
from compedu.explorers.session import Session
from compedu.explorers.view import News, State
from compedu.explorers.widgets.controls import controls_of
from compedu.explorers.widgets.predict import Questions, asked_methods, checked, largest_gap
from compedu.explorers.widgets.screen import Screen
from compedu.explorers.widgets.tables import csv_text
from compedu.knobs import no_such_knob
from compedu.methods import Method, Pipeline
from compedu.metrics import Report
from compedu.sweeps import method_of


class Explorer(widgets.VBox):
    """Turn the knobs of one method on one trained network and see measured accuracy, size and speed.

    `method` is a method class, or a method with the initial values. While a knob moves, the nearest stored point is
    drawn at once as a preview; then the network is compressed and measured, newest position first. `explorer.method`
    is the current method and `explorer.report` the newest report; `settle()` waits for it.

    With `predict`, True or the name of a knob, the answers stay hidden until five accuracies are committed, on the
    screen or by `commit`; a `book` records them. Raises `ValueError` where `predict` is not possible, and for a
    pipeline: knobs, points and pictures are those of one method.
    """

    def __init__(
        self, method: Method | type[Method], model: nn.Module, data: Dataset, *, split: str = "validation",
        predict: bool | str = False, book: LabBook | None = None,
    ):  # fmt: skip
        self._start = method() if isinstance(method, type) else method
        self._book = book
        _refuse_several(self._start)
        self._session = Session(self._start, model, data, split, self._show)
        self.view = self._session.view
        self._controls = controls_of(self._start, self._on_knob)
        actions = {"Run": self.run, "Cancel": self.cancel, "Reset": self.reset, "Pin": self.pin}
        self._screen = Screen(
            self.view, pictures=pictures_of(type(self._start)), controls=self._controls, actions=actions,
            on_code=self._on_code, csv=self._csv_file, on_picture=self._on_picture,
        )  # fmt: skip
        super().__init__(self._screen.widgets)
        self.add_class("compedu")
        self._screen.fill(self.view)
        if predict:
            self._ask(predict)
        self._put(self._start)  # measured before the first move, which then finds all kernels warm

    def __repr__(self) -> str:
        return f"explorer of {self.method!r} on {self.view.baseline.model}, {self.view.data.name}: {self.state}"

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
        """Whether the answers are hidden until a prediction is committed."""
        return bool(self._session.questions) and not self.view.predicted

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
        return csv_text(self._session.seen.values())

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
        said = checked(accuracies, len(self._session.questions))
        with self._session.lock:
            if self.hidden:
                self.view.predicted = said
                if self._book is not None and self._recorded_prediction() is None:
                    settings = [repr(method) for method in self._session.questions]
                    self._book.write("prediction", self._question, value=list(said), settings=settings, unit="accuracy")
                self._screen.answer()
                self._show(News.NETWORK)
        return self

    def settle(self, timeout: float = 60.0) -> Report | None:
        """Wait until nothing is being measured and return the report; raises `TimeoutError` after `timeout` seconds."""
        if not self._session.runner.settle(timeout):
            raise TimeoutError(f"{self.method!r} is still being measured after {timeout:g} s")
        return self.report

    def close(self) -> None:
        """Stop the worker and remove the widgets."""
        super().close()  # first, so that the page removes the figure before the figure's model is gone
        if hasattr(self, "_screen"):  # the finalizer also closes a widget whose construction failed
            self._session.runner.close()
            self._screen.close()

    # What the screen calls

    def _on_knob(self) -> None:
        """Go to the method that the controls describe, or show why there is none."""
        try:
            method = type(self._start)(**{name: control.value for name, control in self._controls.items()})
        except ValueError as error:
            self._session.refuse(str(error))
        else:
            self._session.move(method)

    def _on_code(self, text: str) -> None:
        """Go to the method written in the code line."""
        try:
            method = method_of(text, (type(self._start),))
            _refuse_several(method)
            self._put(method)
        except ValueError as error:
            self._session.refuse(
                f"this explorer turns {type(self._start).__name__}, written as {self._start!r}: {error}"
            )

    def _put(self, method: Method) -> "Explorer":
        """Set the controls to `method` and go to it."""
        for name, control in self._controls.items():
            control.value = getattr(method, name)
        self._session.move(method)
        return self

    def _csv_file(self) -> tuple[str, str]:
        return f"{type(self.method).__name__}.csv", self.csv

    def _on_picture(self) -> None:
        """Draw the layer or picture that the learner has chosen."""
        with self._session.lock:
            self._show(News.NETWORK)
        self._session.request_picture(self._screen.picture.prepare)

    def _show(self, news: News) -> None:
        """Update the screen to the view; the session's lock is held."""
        if self._session.questions and self.view.predicted and not self.view.asked:
            self._compare_with_prediction()
        self._screen.show(self.view, self._session.looks, self._session.steps, news)

    # Predict before you see

    def _ask(self, knob: bool | str) -> None:
        """Hide the answers behind questions, unless the book already holds a prediction."""
        self._session.questions = asked_methods(self._start, knob, self.view.points)
        self._question = (
            f"{self._session.questions[0]!r} to {self._session.questions[-1]!r}: "
            f"{self.view.baseline.model} on {_named(self.view.data)}"
        )
        if (entry := self._recorded_prediction()) is not None:
            self.view.predicted = tuple(entry["value"])
            return
        self._screen.ask(
            Questions(self._session.questions, self.view.baseline, len(self.view.data.classes), self.commit)
        )

    def _recorded_prediction(self) -> dict[str, Any] | None:
        """Return the first prediction that the book holds for these questions, or None."""
        if self._book is None:
            return None
        return self._book.first("prediction", self._question)

    def _compare_with_prediction(self) -> None:
        """Compare prediction and measurement as soon as all points are measured."""
        known = self._session.answers()
        names = [repr(method) for method in self._session.questions]
        if not all(name in known for name in names):
            return
        self.view.asked = tuple(known[name] for name in names)
        self._screen.note(largest_gap(self.view.predicted, self.view.asked))
        if self._book is not None and self._book.newest("measurement", self._question) is None:
            measured = [report.accuracy for report in self.view.asked]
            self._book.write(
                "measurement", self._question, predicted=list(self.view.predicted), measured=measured, unit="accuracy"
            )

    def _repr_mimebundle_(self, **options: Any) -> dict:
        """Add HTML that works without a kernel, for pages and saved notebooks."""
        bundle = super()._repr_mimebundle_(**options) or {}
        if os.environ.get("COMPEDU_SYNC") == "1":  # the result is a page, on which nothing can be measured
            self._session.measure_grid()
        with self._session.lock:
            return bundle | {"text/html": page_figure(self.view, self._session.answers().values(), self.hidden)}


def _named(data: Dataset) -> str:
    """Return the name of `data` in a lab book; for a user's own, named by a path, a digest identifies the images."""
    return data.name if data.origin else f"{data.name} ({data.digest[:8]})"


def _refuse_several(method: Method) -> None:
    if isinstance(method, Pipeline):
        raise ValueError(
            f"an explorer turns the knobs of one method, and {method!r} is a pipeline of {len(method.steps)}; compress "
            "with the first steps and explore the last one on the result"
        )
