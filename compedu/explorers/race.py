"""A race: the student that a teacher teaches and the same student alone, step by step side by side."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.explorers.session import Session, Stale
from compedu.explorers.view import Learning, News, Outcome, Race
from compedu.methods import Method
from compedu.metrics import Baseline, Change, Report
from compedu.replications.races import SPLIT, WATCHED, lanes, races_on
from compedu.training import side_by_side


class RaceSession(Session):
    """A session whose method trains two students at once: with its knobs, and with those of its control.

    Raises `ValueError` for a method that has no control.
    """

    watched: ClassVar[int] = WATCHED
    _control: tuple[Method, nn.Module]  # between training and measuring: the other method, and its student

    def __init__(self, method: Method, model: nn.Module, data: Dataset, split: str, changed: Callable[[News], None]):
        lanes(method)
        super().__init__(method, model, data, split, changed)
        self._stored = races_on(model, data) if split == SPLIT else lambda method: ()
        self._race = self.view.race = Race(stored=self._stored(method))

    def move(self, method: Method) -> None:
        """Go to `method`, with the races that are stored of it."""
        with self.lock:
            self._race.stored = self._stored(method)
        super().move(method)

    def _made(self, method: Method, stale: Stale) -> nn.Module:
        with self.lock:
            self._race.alone = Learning()
            self._race.outcome = None
            shown = (self.view.learning, self._race.alone)
        pair = lanes(method)
        works = [partial(self._network, one) for one in pair]
        taught, alone = side_by_side(works, lambda lane, step: self._on_step(step, shown[lane], stale))
        self._control = pair[1], alone
        return taught

    def _measure(self, method: Method, after: nn.Module, stale: Stale) -> None:
        control = self._control
        del self._control  # the network is needed no longer
        alone = self._measure_aside(*control, stale)
        right = is_correct(alone, self.baseline)
        super()._measure(method, after, stale)
        taught = self.view.report
        with self.lock:
            if taught is not None and not stale():
                change = Change.between(right, is_correct(taught, self.baseline))
                self._race.outcome = Outcome(alone, taught, change)
                self._changed(News.NETWORK)


def is_correct(report: Report, baseline: Baseline) -> Tensor:
    """Return whether each image is answered correctly: as by the baseline, but for the answers that changed."""
    right = baseline.evaluation.is_correct.clone()
    for flips, now in ((report.newly_wrong, False), (report.newly_right, True)):
        right[[flip.image for flip in flips or ()]] = now
    return right
