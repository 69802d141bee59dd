"""An experiment on a claim: a trial that can be run and displayed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compedu.claims.page import Page, means_table, stored_page
from compedu.claims.running import run
from compedu.claims.store import Run
from compedu.claims.trial import Trial
from compedu.columns import Columns


@dataclass(frozen=True, kw_only=True)
class Experiment(Trial):
    """A trial as learners and commands use it: with its runs and its page."""

    def run(self, full: bool = False, store: str | Path | None = None) -> tuple[Run, ...]:
        """Return the runs of a plan, on one thread; those in the file `store` are reused, new ones are added."""
        return run(self, self.plan(full), store)

    def page(self, live: Sequence[Run] = ()) -> Page:
        """Return the page of the claim from the shipped runs, quick and full; `live` runs come before them."""
        return stored_page(self, live)

    def means(self, measure: str) -> Columns:
        """Return the means over seeds that the full plan found for a `measure`: settings in rows, arms in columns."""
        return means_table(self.stored(full=True), measure)
