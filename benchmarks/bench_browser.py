"""What a learner waits for in a real browser, and what explorers cost page and kernel in memory."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab import lab, memory, opened
from lab_page import LabPage
from table import DATA, Estimate, Section, Target, options, write

TIMES = """
JupyterLab in a headless Chromium, `lenet5` on {data}, one explorer for each method: its main slider moved by {presses}
presses of an arrow key, each at rest. *Handle*: all that the page does before it can paint the moved slider. *Preview*:
the figures of the new value are drawn. *Report*: accuracy, bytes and speed are measured, and the badge says FINAL; a
method that trains has none. All begin with the key's own time stamp, and are looked for once a frame (17 ms). *From a
fresh kernel*: the kernel is started again, the cell with the imports and the cell of the explorer run, and its figures
are drawn. Times in ms; the last ones in s, once each.
"""
HEAD = ("method", "handle", "preview", "report", "from a fresh kernel, s")
LIMITS = {"handle": 15, "preview": 100, "report": 1000}
MEMORY = """
The same notebook with explorers of {methods} in turn, one cell each. *Page* is the resident memory of the browser's
process, *heap* the part that scripts hold, *kernel* the resident memory of the kernel, all in MB; *widgets* are those
registered in the kernel. Without explorers, page and kernel already hold JupyterLab, torch, the network and the images.
"""
STAGES = ("moment", "page", "heap", "kernel", "widgets")


@dataclass(frozen=True)
class Settings:
    """The four named knobs' methods, how often a key is pressed, and how many explorers are opened."""

    methods: tuple[str, ...] = ("MagnitudePruning", "TruncatedSVD", "LinearQuantization", "SoftTargetDistillation")
    presses: int = 20
    crowd: tuple[str, ...] = (
        "MagnitudePruning", "LinearQuantization", "TruncatedSVD", "FilterPruning", "BlockCirculantProjection",
    )  # fmt: skip
    explorers: tuple[int, ...] = (1, 10, 20)
    runs: int = 12
    rest_ms: int = 7000  # before memory is read: workers without work end meanwhile


QUICK = Settings(
    methods=("MagnitudePruning",), presses=6, crowd=("MagnitudePruning",), explorers=(1,), runs=1, rest_ms=100
)

# Notes, for each press of a key in the main slider, when what is seen follows; `root.times` has one entry a press.
WATCH = """root => {
    const slider = root.querySelector('.compedu-main input[type=range]'), code = root.querySelector('.compedu-code');
    const badge = root.querySelector('.compedu-badge');
    root.times = [];
    slider.addEventListener('keydown', event => {
        const times = {}, before = code.value, since = () => performance.now() - event.timeStamp;
        root.times.push(times);
        slider.addEventListener('input', () => queueMicrotask(() => { times.handle = since(); }), {once: true});
        const look = () => {
            if (!times.preview && code.value !== before) times.preview = since();
            if (times.preview && badge.classList.contains('FINAL')) times.report = since();
            times.done = badge.classList.contains('PREVIEW') ? times.preview && root.dataset.trains : times.report;
            if (!times.done) requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }, {capture: true});
}"""
FORGET = """[one.close() for one in opened]
opened.clear(), Out.clear()
_ = __ = ___ = None
[globals().pop(name) for name in list(globals()) if name[1:].isdigit()]"""


def times_of(page: LabPage, index: int, name: str, presses: int) -> dict[str, Estimate]:
    """Press an arrow key in the main slider of a method's explorer; return its times in ms."""
    shown = opened(page, index)
    trains = page.python("print(opened[-1].method.needs == 'training')") == "True"
    shown.evaluate(f"root => {{ root.dataset.trains = {'1' if trains else ''!r}; }}")
    shown.evaluate(WATCH)
    slider = shown.locator(".compedu-main input[type=range]")
    slider.focus()
    key = "ArrowRight"
    for press in range(presses):
        at_end = {"ArrowRight": "slider.value === slider.max", "ArrowLeft": "slider.value === slider.min"}
        if slider.evaluate(f"slider => {at_end[key]}"):
            key = "ArrowLeft" if key == "ArrowRight" else "ArrowRight"
        page.page.keyboard.press(key)
        done = "([root, count]) => root.times.length === count && root.times.at(-1).done"
        page.page.wait_for_function(done, arg=[shown.element_handle(), press + 1])
        page.python("opened[-1].settle(300)")
    found = shown.evaluate("root => root.times")
    whats = [what for what in LIMITS if what != "report" or not trains]
    return {what: Estimate.of([times[what] for times in found]) for what in whats}


def from_a_fresh_kernel(page: LabPage, index: int) -> float:
    """Return the seconds from the start of a kernel to the figures of one explorer."""
    page.start_over()
    start = time.perf_counter()
    page.run_cell(0)
    page.run_cell(index)
    shown = page.cell(index).locator(".compedu").last
    shown.locator(".compedu-tradeoff .main-svg").first.wait_for(state="attached")
    known = "badge => badge.isConnected && !['', 'PREVIEW'].includes(badge.textContent)"
    page.page.wait_for_function(known, arg=shown.locator(".compedu-badge").element_handle())
    return time.perf_counter() - start


def waiting(settings: Settings) -> Section:
    """Return the section on times."""
    rows, targets = [], []
    with lab(settings.methods) as page:
        page.run_cell(0)
        times = {name: times_of(page, i, name, settings.presses) for i, name in enumerate(settings.methods, start=1)}
        fresh = {name: from_a_fresh_kernel(page, i) for i, name in enumerate(settings.methods, start=1)}
    for name, found in times.items():
        rows.append((name, *(found[what].text(0) if what in found else "" for what in LIMITS), f"{fresh[name]:.1f}"))
        targets += [Target(f"{what} ({name})", LIMITS[what], found[what], " ms") for what in found]
        targets.append(Target(f"from a fresh kernel ({name})", 12, single(fresh[name]), " s", 1))
    said = TIMES.format(data=DATA, presses=settings.presses)
    return Section("browser", "Explorers in a browser: times", said, HEAD, rows, tuple(targets))


def single(value: float) -> Estimate:
    """Return a figure that was measured once."""
    return Estimate(value, value, value)


def crowded(settings: Settings) -> Section:
    """Return the section on memory."""
    most = max(settings.explorers)
    names = (settings.crowd * most)[:most]
    rows: list[tuple[Any, ...]] = []
    with lab(names) as page:
        page.run_cell(0)
        rows.append(("no explorer", *memory(page, settings.rest_ms)))
        for index in range(1, most + 1):
            opened(page, index)
            if index in settings.explorers:
                rows.append((f"{index} open", *memory(page, settings.rest_ms)))
        page.python(FORGET)
        rows.append(("all closed", *memory(page, settings.rest_ms)))
        for _ in range(settings.runs):
            opened(page, 1)
            page.python("del opened[:-1]")  # as where a variable holds the newest one
        rows.append((f"one cell run {settings.runs} times", *memory(page, settings.rest_ms)))
    by_moment = {moment: figures for moment, *figures in rows}
    targets = ()
    if "10 open" in by_moment:
        page_mb, _, kernel_mb, _ = by_moment["10 open"]
        targets = (
            Target("page with ten open", 600, single(page_mb), " MB"),
            Target("kernel with ten open", 900, single(kernel_mb), " MB"),
        )
    said = MEMORY.format(methods=", ".join(f"`{name}`" for name in settings.crowd))
    return Section("browser_memory", "Explorers in a browser: memory", said, STAGES, rows, targets)


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its two sections."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    write(waiting(settings), path)
    write(crowded(settings), path)


if __name__ == "__main__":
    main(sys.argv[1:])
