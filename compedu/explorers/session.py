"""What happens when a knob moves: the state of an explorer and the work behind it, without widgets."""

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import nn

from compedu.datasets.dataset import Dataset, refuse_no_data
from compedu.datasets.objectives import CLASSIFICATION
from compedu.errors import Cancelled, CompressionError
from compedu.evaluation import glance
from compedu.explorers.main_knob import main_knob, on_one_curve
from compedu.explorers.runner import Runner
from compedu.explorers.view import Learning, News, State, View
from compedu.memory import give_back
from compedu.methods import Method, SmallDense
from compedu.methods.method import refuse_no_method
from compedu.metrics import Baseline, Report, measure
from compedu.sweeps import grid, method_of, nearest, stored_points
from compedu.training import Step, listening

DRAW_EVERY_S = 0.2  # how often a training is shown
NEARBY = 0.06  # share of a slider within which an earlier point is shown for the requested one

Stale = Callable[[], bool]
Prepare = Callable[[View, Stale], None]


def refuse_other_objectives(data: Dataset) -> None:
    """Raise `CompressionError` for data without classes, whose figures no explorer draws."""
    if data.objective.kind != CLASSIFICATION:
        raise CompressionError(
            f"explorers show classes, but the objective of {data.name!r} is {data.objective.kind}: use "
            "measure(method(model, data), data, baseline=model), which reports on any objective"
        )


def _unheard(news: News) -> None:
    """Hear news that nobody is there for any more."""


class Session:
    """Turns requests for methods into views: `changed` is called with the news, under `lock`, on any thread."""

    watched: ClassVar[int] = 256  # images of the split on which a training is evaluated as it runs

    def __init__(self, method: Method, model: nn.Module, data: Dataset, split: str, changed: Callable[[News], None]):
        self.lock = threading.RLock()
        refuse_no_method(method)
        refuse_no_data(data)
        refuse_other_objectives(data)
        self.baseline = Baseline.of(model, data, split)
        dense = measure(model, data, baseline=self.baseline, split=split, speed=False)
        points, controls, random_baseline = stored_points(type(method), model, data, split)
        controls = () if isinstance(method, SmallDense) else controls  # it is the control
        self.view = View(
            data, split, dense, model, method, points=points, controls=controls, random_baseline=random_baseline
        )
        self.looks = 0
        self.resting = False  # while no page shows the explorer
        self.gesture: int | None = None  # which drag of a slider asks: however long, it counts as one look
        self._counted: int | None = None
        self._looked_at: set[str] = set()
        self.steps = (0, 1)  # of a training: done, in total
        self.questions: Sequence[Method] = ()  # further settings to be measured, for a prediction
        self.without_network: dict[str, str] = {}  # settings of a prediction that give no network, and why
        self.prepare: Prepare | None = None  # what the chosen picture needs
        self.runner = Runner(self._work, self._on_error)
        self._watched = tuple(part[: self.watched] for part in data.split(split))
        self._changed = changed

    def move(self, method: Method) -> None:
        """Go to `method`: show a nearby known point at once, then measure, unless that takes a training."""
        self.runner.cancel()  # first: what still runs must not publish itself as the new setting's
        with self.lock:
            if not on_one_curve(self.view.method, method):
                self.view.earlier = self.view.method
            self.view.method = method
            self.view.stored = nearest(self.view.points, method, NEARBY)
            self.view.report = nearest((*self.view.points, *self.view.seen.values()), method, NEARBY)
            self.become(State.PREVIEW, News.KNOBS)
        if method.needs != "training":
            self.runner.request(method)

    def refuse(self, message: str) -> None:
        """Show why the current knob values make no method; `view.method` stays the last valid one."""
        self.runner.cancel()
        with self.lock:
            self._fail(message, "", refused=True)

    def run(self) -> None:
        """Compress and measure, even where that takes a training."""
        with self.lock:
            if self.view.learning.losses:
                self.view.previous = self.view.learning
            self.view.learning = Learning()
            self.steps = (0, 1)
            self.become(State.RUNNING, News.TRAINING)
        self.runner.request(self.view.method)

    def cancel(self) -> None:
        """Stop whatever is running; the networks are untouched. A measured or refused setting keeps its state."""
        self.runner.cancel()
        with self.lock:
            if self.view.state in (State.FINAL, State.ERROR):
                return
            self.become(State.CANCELLED, News.KNOBS, "cancelled: the dense network is untouched")

    def request_picture(self, prepare: Prepare | None) -> None:
        """Request what a picture needs, computed now or after the current measurement."""
        with self.lock:
            self.prepare = prepare
            waiting = self.view.state == State.PREVIEW and self.view.method.needs == "training"
            idle = waiting or self.view.state in (State.FINAL, State.CANCELLED, State.ERROR)
        if prepare is not None and idle:
            self.runner.request(None)

    def close(self) -> None:
        """Stop the worker for good, and let go of what was computed."""
        self.runner.close()
        self._changed = _unheard
        with self.lock:  # notebooks keep the value of each cell, and with it each explorer that a cell ended with
            self.view.after = None
            self.view.kept = {}
            vars(self).pop("baseline", None)  # nothing is measured any more; closing twice is no error
        give_back()

    def rest(self) -> None:
        """Give back what can be computed again, while no page shows the explorer."""
        with self.lock:
            self.resting = True
            self._let_go()
        give_back()

    def _let_go(self) -> None:
        if self.resting and self.view.method.needs != "training" and self.view.state == State.FINAL:
            self.view.after = None
            self.view.kept = {}

    def wake(self) -> None:
        """Compute again what `rest` gave back."""
        self.resting = False
        if self.view.after is None and self.view.state == State.FINAL:
            self.move(self.view.method)

    def become(self, state: State, news: News, message: str = "", details: str = "") -> None:
        """Change the state and announce it."""
        self.view.state = state
        self.view.message = message
        self.view.details = details
        self._changed(news)

    def answers(self) -> dict[str, Report]:
        """Return all known points, by method."""
        return {report.method: report for report in self.view.points} | self.view.seen

    def measure_grid(self, count: int = 9) -> None:
        """Measure points along the main knob, without their speed, where a page with a slider has too few."""
        knob = main_knob(self.view.method)
        if knob is None or self.view.method.needs == "training":
            return
        cls = type(self.view.method)
        if sum(on_one_curve(self.view.method, method_of(name, (cls,))) for name in self.answers()) > 2:
            return
        for method in grid(self.view.method, knob, count):
            with contextlib.suppress(ValueError):  # a setting that leaves nothing to measure gives no point
                self._measure_aside(method, self._network(method), lambda: False)

    def _work(self, method: Method | None, stale: Stale) -> None:
        """Compress with `method`, if any, and measure; then do the other pending work. Runs on the worker's thread."""
        try:
            if method is not None:
                after = self._compress(method, stale)
                self._measure(method, after, stale)
        except Cancelled:
            return
        try:
            self._answer_questions(stale)
            self._prepare_picture(stale)
        except Cancelled:
            return
        except Exception as error:  # the network itself was measured, and stays
            with self.lock:
                if not stale():
                    said = f"{type(error).__name__}: {error}"
                    self.become(self.view.state, News.NETWORK, said, "".join(traceback.format_exception(error)))

    def _prepare_picture(self, stale: Stale) -> None:
        if self.prepare is None:
            return
        self.prepare(self.view, stale)
        with self.lock:
            if not stale():
                self._changed(News.NETWORK)

    def _compress(self, method: Method, stale: Stale) -> nn.Module:
        after = self._made(method, stale)
        with self.lock:
            if stale():
                raise Cancelled
            self.view.after = after
            self._count_look(method, self.gesture)
        return after

    def _made(self, method: Method, stale: Stale) -> nn.Module:
        with listening(lambda step: self._on_step(step, self.view.learning, stale)):
            return self._network(method)

    def _count_look(self, method: Method, gesture: int | None = None) -> None:
        """Count a network once: measuring it again, as when its page opens again, is not another choice."""
        if repr(method) in self._looked_at:
            return
        self._looked_at.add(repr(method))
        if gesture is None or gesture != self._counted:
            self.looks += 1
        self._counted = gesture

    def _measure(self, method: Method, after: nn.Module, stale: Stale) -> None:
        news = iter([News.NETWORK])
        view = self.view
        report = measure(
            after, view.data, baseline=self.baseline, split=view.split, stale=stale,
            on_partial=lambda partial: self._publish(method, partial, State.MEASURING, next(news, News.FIGURES), stale),
        )  # fmt: skip
        self._publish(method, report, State.FINAL, News.FIGURES, stale)

    def _publish(self, method: Method, report: Report, state: State, news: News, stale: Stale) -> None:
        with self.lock:
            if stale():
                raise Cancelled
            self.view.report = replace(
                report, method=repr(method)
            )  # without earlier steps, in case the given network was already compressed
            if state == State.FINAL:
                self._remember(method, report)
            self.become(state, news)
            self._let_go()

    def _remember(self, method: Method, report: Report) -> None:
        """Keep a final report, without the lists of images, which only the newest report needs."""
        self.view.seen[repr(method)] = replace(report, method=repr(method), newly_wrong=None, newly_right=None)

    def _answer_questions(self, stale: Stale) -> None:
        """Measure the points of a prediction that are not known yet, without their speed."""
        for method in self.questions:
            if repr(method) not in self.answers().keys() | self.without_network.keys():
                try:
                    self._measure_aside(method, self._network(method), stale)
                except ValueError as error:
                    self.without_network[repr(method)] = str(error)
        with self.lock:
            if self.questions and not stale():
                self._changed(News.FIGURES)

    def _network(self, method: Method) -> nn.Module:
        return method(self.view.before, self.view.data)

    def _measure_aside(self, method: Method, after: nn.Module, stale: Stale) -> Report:
        report = measure(after, self.view.data, baseline=self.baseline, split=self.view.split, speed=False, stale=stale)
        with self.lock:
            self._count_look(method)
            self._remember(method, report)
        return report

    def _on_step(self, step: Step, learning: Learning, stale: Stale) -> None:
        """Show a training step now and then; a stale training is cancelled."""
        if stale():
            raise Cancelled
        drawn = step.done == step.steps or time.monotonic() - learning.drawn_at > DRAW_EVERY_S
        reached = glance(step.model, *self._watched, self.view.data) if drawn else 0.0
        with self.lock:
            if stale():  # cancelled meanwhile, and the screen already says so
                raise Cancelled
            learning.steps = step.steps
            learning.losses.append(step.loss)
            if learning is self.view.learning:  # of two at once, the progress is that of the method
                self.steps = (step.done, step.steps)
            if drawn:
                learning.reached.append((step.done, reached))
                learning.drawn_at = time.monotonic()
                self.become(State.RUNNING, News.TRAINING)

    def _on_error(self, method: Method | None, error: BaseException, stale: Stale) -> None:
        with self.lock:
            if stale():  # another setting is shown meanwhile
                return
            details = "".join(traceback.format_exception(error))
            self._fail(f"{type(error).__name__}: {error}", details, refused=isinstance(error, ValueError))

    def _fail(self, message: str, details: str, *, refused: bool) -> None:
        self.view.report = self.view.after = None
        self.view.refused = refused
        self.become(State.ERROR, News.NETWORK, message, details)
