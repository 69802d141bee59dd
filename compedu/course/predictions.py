"""Predict before you see: an answer stays hidden until a prediction is in the lab book."""

import math
from dataclasses import dataclass
from numbers import Real
from types import EllipsisType
from typing import Any

from compedu.course.amounts import amount, unit_of_difference
from compedu.course.lab_book import LabBook


class Told(str):
    """Text with figures below it; as the last line of a cell it shows both."""

    figures: tuple[Any, ...] = ()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self:
            print(self)
        if self.figures:
            display(*self.figures)


@dataclass(frozen=True)
class Prediction:
    """A learner's prediction of a named quantity; `value` is None until a number is committed.

    `later` is a number that was given after `value` was committed, and does not count. `problem` says why the given
    value was not committed.
    """

    name: str
    question: str
    unit: str
    value: float | None
    book: LabBook | None
    later: float | None = None
    problem: str = ""

    @property
    def committed(self) -> bool:
        """Whether a number is committed."""
        return self.value is not None

    def reveal(self, measured: float, *more: Any, reason: str = "") -> Told:
        """Return prediction and measurement in one sentence, and record both in the lab book; hidden until committed.

        `more` are strings and figures that reveal the answer too; they are shown below.
        """
        if self.value is None:
            return self.show()
        measured = round(measured, 4)  # as in the lab book, so that both agree
        if self.book is not None:
            why = {"reason": reason} if reason else {}
            self.book.write("measurement", self.name, predicted=self.value, measured=measured, unit=self.unit, **why)
        gap = measured - self.value
        apart = amount(abs(gap), unit_of_difference(self.unit))
        side = "exactly as predicted" if gap == 0 else f"{apart} {'more' if gap > 0 else 'less'}"
        said = f"You predicted {amount(self.value, self.unit)}; measured: {amount(measured, self.unit)}, {side}."
        return self.show(said, *more)

    def show(self, *things: Any) -> Told:
        """Return strings and figures that reveal the answer, for a cell to show; hidden until committed."""
        if self.value is None:
            why = f": {self.problem}" if self.problem else f". {self.question}"
            return Told(f"Hidden: commit a prediction first{why}")
        told = Told("\n".join(thing for thing in things if isinstance(thing, str)))
        told.figures = tuple(thing for thing in things if not isinstance(thing, str))
        return told

    def __repr__(self) -> str:
        if self.problem:
            return f"{self.question} Not committed yet: {self.problem}"
        if self.value is None:
            return f"{self.question} Your prediction: not committed yet: replace ... by a number"
        late = "" if self.later is None else (
            f" (your first, from the lab book: it counts; {amount(self.later)} is recorded beside it)"
        )  # fmt: skip
        return f"{self.question} Your prediction: {amount(self.value, self.unit)}{late}"


def predict(name: str, question: str, value: Any, unit: str, book: LabBook | None = None) -> Prediction:
    """Commit `value` as the prediction for `name`; the placeholder ... commits nothing. Returns the prediction.

    The first committed number counts: a later one is recorded too, but the prediction keeps the first. An implausible
    value commits nothing either, and the prediction says what to write.
    """
    if isinstance(value, EllipsisType):
        return Prediction(name, question, unit, None, book)
    try:
        said = number_meant(value, unit)
    except ValueError as doubt:
        return Prediction(name, question, unit, None, book, problem=str(doubt))
    before = book.newest("prediction", name) if book is not None else None
    if book is not None and (before is None or before["value"] != said):
        book.write("prediction", name, question=question, value=said, unit=unit)
    first = said if book is None else book.first("prediction", name)["value"]
    return Prediction(name, question, unit, float(first), book, None if first == said else said)


def number_meant(value: Any, unit: str) -> float:
    """Return the number given for a prediction; a `ValueError` says what to write for an implausible value.

    A percentage between 0 and 1 may have been meant as a fraction: it is accepted as a string with unit, "0.6 %".
    """
    with_unit = isinstance(value, str) and bool(unit) and value.strip().endswith(unit)
    try:
        number = float(value.strip().removesuffix(unit)) if with_unit else float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not (with_unit or isinstance(value, Real)) or not math.isfinite(number):
        raise ValueError(f"give a number such as {60 if unit == '%' else 4}, without quotes; this is {value!r:.40}")
    if unit == "%" and not 0 <= number <= 100:
        raise ValueError(f"give a percentage, from 0 to 100; this is {number:g}")
    if unit == "%" and 0 < number < 1 and not with_unit:
        share = f"{100 * number:.6g}"
        raise ValueError(
            f"{number:g} % or {share} %? For {share} % write {share}; if you do mean {number:g} %, write "
            f'"{number:g} %", with the quotes'
        )
    return number
