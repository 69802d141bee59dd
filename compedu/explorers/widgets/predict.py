"""Predict before you see: five questions that hide an explorer's figures until they are answered."""

import html
from collections.abc import Callable, Sequence

import ipywidgets as widgets

from compedu.explorers.main_knob import main_knob
from compedu.explorers.words import percent
from compedu.knobs import knobs
from compedu.methods import Method
from compedu.metrics import Report
from compedu.sweeps import method_of

COUNT = 5


def asked_methods(method: Method, knob: str | bool, points: Sequence[Report]) -> list[Method]:
    """Return the settings to ask about: `method` at five values of `knob`; True is its first knob with a slider range.

    For a method that trains these are stored `points`, where the answer is known. Raises `ValueError` where there are
    none, and for a knob without a slider range.
    """
    name = main_knob(type(method)) if knob is True else knob
    known = knobs(method)
    if name not in known or known[name].slider_range is None:
        shown = ", ".join(name for name, declared in known.items() if declared.slider_range is not None) or "none"
        raise ValueError(
            f"predict={knob!r}: {type(method).__name__} has no such knob with a slider range; it has: {shown}"
        )
    if method.needs != "training":
        others = {other: getattr(method, other) for other in known if other != name}
        return [type(method)(**others | {name: value}) for value in known[name].points(COUNT)]
    stored = [method_of(report.method, (type(method),)) for report in points]
    if not stored:
        raise ValueError(
            f"predict={knob!r}: {type(method).__name__} trains, and no points of it are stored for this network and "
            "data; leave predict out, or ship a sweep of it"
        )
    return [stored[index] for index in sorted({round(i * (len(stored) - 1) / (COUNT - 1)) for i in range(COUNT)})]


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
    gap, said, report = max(
        (abs(said - report.accuracy), said, report) for said, report in zip(predicted, asked, strict=True)
    )
    return (
        f"Largest surprise: {report.method} gives {percent(report.accuracy)}, you said {percent(said)} "
        f"({100 * gap:.1f} points apart)."
    )


class Questions:
    """The questions on the screen: `widget` to show; `committed` is called with one accuracy per question, 0..1."""

    def __init__(
        self, methods: Sequence[Method], dense: Report, classes: int, committed: Callable[[Sequence[float]], None]
    ):
        self._committed = committed
        head = widgets.HTML(
            "<p><b>Before you look:</b> what accuracy do you expect at these settings, in percent?<br>"
            f"The dense network has {percent(dense.accuracy)}; "
            f"random guessing gives about {percent(1 / classes, 0)}.</p>"
        )
        self.fields = [widgets.Text(placeholder="0 to 100", layout=widgets.Layout(width="90px")) for _ in methods]
        rows = [_row(method, field) for method, field in zip(methods, self.fields, strict=True)]
        self.button = widgets.Button(description="Commit", tooltip="fix the prediction and show what is measured")
        self.button.on_click(lambda button: self.commit())
        self.problem = widgets.HTML()
        self.widget = widgets.VBox([head, *rows, self.button, self.problem])

    def commit(self) -> None:
        """Read the fields and commit them, or say which of them is not an accuracy."""
        said = []
        for field in self.fields:
            try:
                said.append(float(field.value.replace(",", ".").rstrip(" %")) / 100)
            except ValueError:
                said.append(field.value)
        try:
            self._committed(checked(said, len(self.fields)))
        except ValueError:
            wrong = [str(i + 1) for i, v in enumerate(said) if isinstance(v, str) or not 0 <= v <= 1]
            self.problem.value = (
                f"<div role='alert' class='compedu-error'>answer {', '.join(wrong)}: "
                "a number from 0 to 100 is needed</div>"
            )


def _row(method: Method, field: widgets.Widget) -> widgets.Widget:
    label = widgets.HTML(f"<label>{html.escape(repr(method))}</label>", layout=widgets.Layout(width="420px"))
    row = widgets.HBox([label, field, widgets.HTML("%")])
    row.add_class("compedu-knob")
    return row
