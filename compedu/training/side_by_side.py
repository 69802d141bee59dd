"""Several trainings side by side, each making a step in turn: none gets ahead, whatever else the machine does."""

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from compedu.errors import Cancelled
from compedu.training.listening import Step, listening

Result = TypeVar("Result")


def side_by_side(works: Sequence[Callable[[], Result]], heard: Callable[[int, Step], None]) -> list[Result]:
    """Return the results of `works`, functions that train, of which one computes at a time: a step, then the next work.

    `heard` gets the number of the work with each of its steps. What it raises ends all works, and so does an error of
    one of them: the first one is raised, once all have ended. Each work has the bits that it would have by itself.
    """
    turns = _Turns(len(works))
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(number: int) -> None:
        def after_step(step: Step) -> None:
            heard(number, step)
            turns.pass_on(number)
            turns.wait(number)

        try:
            turns.wait(number)
            with listening(after_step):
                results[number] = works[number]()
        except BaseException as error:
            errors.append(error)
        finally:
            turns.leave(number, failed=number not in results)

    others = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, number), name="compedu lane", daemon=True)
        for number in range(1, len(works))
    ]
    for thread in others:
        thread.start()
    run(0)
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]  # the later ones are `Cancelled`, because of it
    return [results[number] for number in range(len(works))]


class _Turns:
    """Whose turn it is among works that have not ended; once one has failed, all others are cancelled at their turn."""

    def __init__(self, count: int):
        self._changed = threading.Condition()
        self._left = list(range(count))
        self._now = 0
        self._failed = False

    def wait(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._now == number)
            if self._failed:
                raise Cancelled

    def pass_on(self, number: int) -> None:
        with self._changed:
            later = [other for other in self._left if other > number]
            self._now = (later or self._left or [number])[0]
            self._changed.notify_all()

    def leave(self, number: int, failed: bool) -> None:
        with self._changed:
            self._left.remove(number)
            self._failed = self._failed or failed
            if self._now == number:  # not so where an interrupt ended the waiting for a turn
                self.pass_on(number)
