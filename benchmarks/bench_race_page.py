"""Races in a real browser: memory of page and kernel over ten of them, and how soon Cancel stops both lanes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab import lab, memory
from lab_page import LabPage
from table import DATA, Estimate, Section, Target, options, write

SAID = """
JupyterLab in a headless Chromium, one cell run again and again: `ce.explore(ce.{method}, model, data, race=True)` on
`lenet5` and {data}, with {images} training images. Each race is started by its button and ends, or is canceled. *Page*
is the resident memory of the browser's process, *heap* the part that scripts hold, *kernel* the resident memory of the
kernel, all in MB; *widgets* are those registered in the kernel. *Cancel* is the time from the click, with both lanes
training, to the badge that says so, in ms; {still}.
"""
HEAD = ("moment", "page", "heap", "kernel", "widgets")
SETTLED = 3  # races after which nothing is new any more
CUT = "data = data.shortened(train={images}, validation={images}, test=10)"
RACE = """[one.close() for one in opened]
opened[:] = [ce.explore(ce.{method}, model, data, race=True)]
opened[0]"""
STEPS = "print([len(one.losses) for one in (opened[0].view.race.alone, opened[0].view.learning)])"
CANCEL = """root => new Promise(done => {
    const button = [...root.querySelectorAll('button')].find(one => one.textContent.trim() === 'Cancel');
    const badge = root.querySelector('.compedu-badge');
    const start = performance.now();
    const look = () => badge.classList.contains('CANCELLED') ? done(performance.now() - start)
        : requestAnimationFrame(look);
    button.click();
    requestAnimationFrame(look);
})"""


@dataclass(frozen=True)
class Settings:
    """How many races end and how many are canceled, of which method, and on how many images."""

    races: int = 10
    cancels: int = 6
    method: str = "SoftTargetDistillation(student='lenet5(width=0.25)', epochs=5)"
    long: str = "SoftTargetDistillation(student='lenet5(width=0.25)', epochs=200)"
    images: int = 512
    rest_ms: int = 7000


QUICK = Settings(races=1, cancels=1, images=64, rest_ms=100)


def started(page: LabPage, index: int) -> Any:
    """Run the cell of a race and start it; return it on the page."""
    page.run_cell(index)
    shown = page.cell(index).locator(".compedu").last
    shown.scroll_into_view_if_needed()
    shown.get_by_role("button", name="Run", exact=True).click()
    return shown


def stopped_after(page: LabPage, index: int) -> tuple[float, bool]:
    """Start a race and cancel it; return the ms until the page says so, and whether no lane makes a step after that."""
    shown = started(page, index)
    shown.locator(".compedu-badge.RUNNING").wait_for()
    page.page.wait_for_timeout(500)  # both lanes have made steps
    took = shown.evaluate(CANCEL)
    page.python("opened[0].settle(60)")
    before = page.python(STEPS)
    page.page.wait_for_timeout(300)
    return took, page.python(STEPS) == before and min(json.loads(before)) > 0


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    cells = (CUT.format(images=settings.images), *(RACE.format(method=one) for one in (settings.method, settings.long)))
    rows: list[tuple[Any, ...]] = []
    with lab((), *cells) as page:
        page.run_cell(0)
        page.run_cell(1)
        rows.append(("no race yet", *memory(page, settings.rest_ms)))
        for race in range(1, settings.races + 1):
            started(page, 2).locator(".compedu-badge.FINAL").wait_for()
            rows.append((f"{race} raced", *memory(page, settings.rest_ms)))
        stops = [stopped_after(page, 3) for _ in range(settings.cancels)]
    rows += [(f"canceled: {took:.0f} ms", "", "", "", "") for took, _ in stops]
    slowest = max(took for took, _ in stops)
    targets = [Target("slowest answer to Cancel", 1000, Estimate(slowest, slowest, slowest), " ms")]
    if len(settled := rows[SETTLED : settings.races + 1]) > 1:
        for what, column in (("page", 1), ("kernel", 3)):
            growth = (settled[-1][column] - settled[0][column]) / (len(settled) - 1)
            targets.append(Target(f"growth of the {what} with a race", 3, Estimate(growth, growth, growth), " MB", 1))
    still = "no lane made a step after it" if all(quiet for _, quiet in stops) else "a lane went on after it"
    said = SAID.format(method=settings.method, data=DATA, images=settings.images, still=still)
    write(Section("race_page", "Races in a browser", said, HEAD, rows, tuple(targets)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
