"""Predict before you see: an answer stays hidden until a prediction stands in the lab book."""

import math
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from compedu.course.lab_book import LabBook


@dataclass(frozen=True)
class Prediction:
    """What a learner expects of a named quantity; `value` is None until a number is committed.

    `later` is a number that was given after `value` was committed, and does not count.
    """

    name: str
    question: str
    unit: str
    value: float | None
    book: LabBook | None
    later: float | None = None

    @property
    def committed(self) -> bool:
        """Whether a number stands in the lab book."""
        return self.value is not None

    def reveal(self, measured: float, reason: str = "") -> str:
        """Return prediction and measurement in one sentence, and keep both in the lab book; hidden until committed."""
        if self.value is None:
            return f"Hidden: commit a prediction first. {self.question}"
        if self.book is not None:
            why = {"reason": reason} if reason else {}
            self.book.write(
                "measurement", self.name, predicted=self.value, measured=round(measured, 4), unit=self.unit, **why
            )
        gap = measured - self.value
        apart = "points" if self.unit == "%" else self.unit
        side = "exactly as predicted" if gap == 0 else f"{abs(gap):.3g} {apart} {'more' if gap > 0 else 'less'}"
        return f"You predicted {self.value:.3g} {self.unit}; measured: {measured:.3g} {self.unit}, {side}."

    def __repr__(self) -> str:
        said = "not committed yet: replace ... by a number" if self.value is None else f"{self.value:.3g} {self.unit}"
        late = "" if self.later is None else (
            f" (your first, from the lab book: it counts; {self.later:.3g} is written down beside it)"
        )  # fmt: skip
        return f"{self.question} Your prediction: {said}{late}"


def predict(name: str, question: str, value: Any, unit: str, book: LabBook | None = None) -> Prediction:
    """Commit `value` as the prediction for `name`; the place holder ... commits nothing. Returns the prediction.

    The first committed number stands: a later one is written down too, but the prediction keeps the first.
    """
    if isinstance(value, EllipsisType):
        return Prediction(name, question, unit, None, book)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"a prediction is a number of {unit}, got {value!r}")
    if not math.isfinite(value) or (unit == "%" and not 0 <= value <= 100):
        raise ValueError(
            f"a prediction in {unit} lies {'between 0 and 100' if unit == '%' else 'on the number line'}, got {value!r}"
        )
    before = book.newest("prediction", name) if book is not None else None
    if book is not None and (before is None or before["value"] != value):
        book.write("prediction", name, question=question, value=value, unit=unit)
    first = value if book is None else book.first("prediction", name)["value"]
    return Prediction(name, question, unit, float(first), book, None if first == value else float(value))
