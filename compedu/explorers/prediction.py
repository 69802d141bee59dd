"""A prediction that an explorer asks for before it shows its answers, in the lab book if there is one."""

from collections.abc import Collection, Sequence
from typing import Any

from compedu.course.lab_book import LabBook
from compedu.datasets.dataset import Dataset
from compedu.explorers.main_knob import main_knob
from compedu.explorers.panel.predict import asked_methods, checked, largest_gap, question
from compedu.explorers.view import View
from compedu.explorers.words import percent, points_text
from compedu.methods import Method
from compedu.metrics import Change, Report
from compedu.replications.races import lanes
from compedu.sweeps import method_of


class Prediction:
    """Accuracies at a few settings along `knob`, predicted and then measured; `settings` are the methods asked about.

    The first prediction counts: one that the book already holds is taken over. Raises `ValueError` where the method has
    no settings to ask about.
    """

    def __init__(self, start: Method, knob: bool | str, view: View, book: LabBook | None):
        self._knob = knob
        self._view = view
        self._book = book
        self.settings = self._asked(start)
        self.along_main_knob = knob is True or knob == main_knob(start)
        self._said: str | None = None  # how prediction and measurement compare, once both are known
        self._missing = ""  # which settings have no answer: told until a knob is turned
        self._told_at = start
        self._title = f"{self._subject}: {view.baseline.model} on {_named(view.data)}"
        if (entry := self._recorded()) is not None:  # of other points, if another version asked between the same ends
            classes = {type(setting) for setting in self.settings}
            self.settings = tuple(method_of(code, classes) for code in entry["settings"])
            view.predicted = tuple(entry["value"])

    def _asked(self, start: Method) -> Sequence[Method]:
        return asked_methods(start, self._knob, self._view.points)

    @property
    def _subject(self) -> str:
        return f"{self.settings[0]!r} to {self.settings[-1]!r}"

    @property
    def unmeasured(self) -> Sequence[Method]:
        """The settings that have to be measured for the answer, where nothing else measures them."""
        return self.settings

    @property
    def question(self) -> dict[str, Any] | None:
        """What the page asks; None once it is answered."""
        if self._view.predicted:
            return None
        return question(self.settings, self._knob, self._view.baseline, len(self._view.data.classes))

    def commit(self, accuracies: Sequence[float]) -> None:
        """Fix a prediction, one accuracy in 0..1 for each setting; a later one changes nothing.

        Raises `ValueError` for another number of accuracies, and for other values.
        """
        said = checked(accuracies, len(self.settings))
        if self._view.predicted:
            return
        self._view.predicted = said
        if self._book is not None and self._recorded() is None:
            settings = [repr(method) for method in self.settings]
            self._book.write("prediction", self._title, value=list(said), settings=settings, unit="accuracy")

    def remark(self, known: dict[str, Report], without_network: Collection[str]) -> str:
        """Return what stands above the figures: the comparison, and, until a knob is turned, what gave no network."""
        if self._said is None and (said := self.compare(known, without_network)) is not None:
            missing = [repr(method) for method in self.settings if repr(method) in without_network]
            why = f" No network comes of {', '.join(missing)}: choose it, and the explorer says why."
            self._said = said
            self._missing = why if missing else ""
            self._told_at = self._view.method
        if self._view.method != self._told_at:
            self._missing = ""
        return f"{self._said or ''}{self._missing}".strip()

    def compare(self, known: dict[str, Report], without_network: Collection[str] = ()) -> str | None:
        """Put the measurements beside the prediction, once all are `known`; return the largest difference in words.

        Settings that give no network, such as a rank that saves nothing, have no answer.
        """
        names = [repr(method) for method in self.settings if repr(method) not in without_network]
        if not self._view.predicted or not all(name in known for name in names):
            return None
        self._answer({name: known[name] for name in names})
        return largest_gap(self._view.predicted_there, self._view.asked) if names else ""

    def _answer(self, found: dict[str, Report]) -> None:
        """Show what was measured at settings beside what was predicted there; the first answer is in the lab book."""
        said = dict(zip(map(repr, self.settings), self._view.predicted, strict=True))
        self._view.asked = tuple(found.values())
        self._view.predicted_there = tuple(said[setting] for setting in found)
        if self._book is not None and self._book.newest("measurement", self._title) is None:
            measured = {setting: report.accuracy for setting, report in found.items()}
            self._book.write(
                "measurement", self._title, settings=list(measured), predicted=list(self._view.predicted_there),
                measured=list(measured.values()), unit="accuracy",
            )  # fmt: skip

    def _recorded(self) -> dict[str, Any] | None:
        """Return the first prediction that the book holds for these settings, or None."""
        return None if self._book is None else self._book.first("prediction", self._title)


class Bet(Prediction):
    """A bet on a race: the accuracies of a student alone and taught; the first race that ends is its outcome."""

    def _asked(self, start: Method) -> Sequence[Method]:
        return tuple(reversed(lanes(start)))

    @property
    def _subject(self) -> str:
        return f"a bet on {self.settings[1]!r}"

    @property
    def unmeasured(self) -> Sequence[Method]:
        """Nothing: the race does it."""
        return ()

    @property
    def question(self) -> dict[str, Any] | None:
        """What the page asks; None once it is answered."""
        if self._view.predicted:
            return None
        chance = 1 / len(self._view.data.classes)
        return {
            "knob": "student", "values": ["alone", "taught"], "places": [0.25, 0.75],
            "dense": self._view.baseline.accuracy, "chance": chance,
            "words": "how accurate will the student become, alone and taught? Drag both points, or type the numbers.",
        }  # fmt: skip

    def compare(self, known: dict[str, Report], without_network: Collection[str] = ()) -> str | None:
        """Put the outcome of the race beside the bet, once there is one; return both in words."""
        outcome = None if self._view.race is None else self._view.race.outcome
        if not self._view.predicted or outcome is None:
            return None
        self._answer(dict(zip(map(repr, self.settings), (outcome.alone, outcome.taught), strict=True)))
        measured = [report.accuracy for report in self._view.asked]
        return (
            f"You bet {_ahead(self._view.predicted)}. The race ended with {_ahead(measured)}, {apart(outcome.change)}."
        )


def _ahead(accuracies: Sequence[float]) -> str:
    alone, taught = accuracies
    return f"alone {percent(alone)}, taught {percent(taught)}: {points_text(taught - alone)}"


def apart(change: Change) -> str:
    """Return in words whether a change from alone to taught can be told from none, with its interval."""
    low, high = (points_text(end).removesuffix(" points") for end in change.interval)
    told = "distinguishable" if change.interval[0] > 0 or change.interval[1] < 0 else "not distinguishable"
    return f"{told} on these images ({low} to {high})"


def _named(data: Dataset) -> str:
    """Return the name of a data set; a user's own is named by its images."""
    return data.name if data.origin else f"{data.name} ({data.digest[:8]})"
