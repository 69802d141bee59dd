"""Structural matrices: the time of one product against the size n, dense and by FFT, measured on this machine."""

from collections.abc import Callable
from functools import partial

from compedu.errors import Cancelled
from compedu.explorers.figures.colors import DENSE, GRAY, LIVE
from compedu.explorers.figures.pictures.picture import Picture, Table, line
from compedu.explorers.figures.places import title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View
from compedu.metrics import Latency, Timing
from compedu.metrics.products import time_circulant

SIDES = (16, 32, 64, 128, 256, 512, 1024, 2048)
TIMING = Timing(batch_size=32, budget_s=0.1)


def prepare(view: View, stale: Callable[[], bool]) -> None:
    """Time both products for all sizes; results from before an interruption are kept."""

    def go_on() -> None:
        if stale():
            raise Cancelled

    for side in SIDES:
        view.once(("product", side), partial(time_circulant, side, TIMING, go_on))


def timed(view: View) -> dict[int, Latency]:
    """Return the timings so far, by size."""
    return {side: view.kept["product", side] for side in SIDES if ("product", side) in view.kept}


def crossing(found: dict[int, Latency]) -> int | None:
    """Return the smallest size from which on FFT is faster, beyond the noise, at all larger sizes with a verdict."""
    first = None
    for side in sorted(found, reverse=True):
        if found[side].verdict == "faster":
            first = side
        elif not found[side].verdict.startswith("withheld"):
            break
    return first


def main(view: View, layer: str) -> list[dict]:
    """Return the time of a batch for both products against n, in microseconds."""
    found = timed(view)
    sides = list(found)
    return [
        line(MAIN, sides, [1000 * one.baseline_ms for one in found.values()], "dense, µs", DENSE, mode="lines+markers"),
        line(MAIN, sides, [1000 * one.latency_ms for one in found.values()], "FFT, µs", LIVE, mode="lines+markers"),
    ]


def below(view: View, layer: str) -> list[dict]:
    """Return the ratio of the two times with its interval, and the line where both take equally long."""
    found = timed(view)
    ratio = line(
        BELOW, list(found), [one.speed_up for one in found.values()], "dense time / FFT time", LIVE, mode="markers"
    )
    ends = [one.speed_up_interval for one in found.values()]
    up = [high - one.speed_up for one, (_, high) in zip(found.values(), ends, strict=True)]
    down = [one.speed_up - low for one, (low, _) in zip(found.values(), ends, strict=True)]
    return [
        line(BELOW, [SIDES[0], SIDES[-1]], [1, 1], "equally fast", GRAY, line={"width": 1}),
        ratio | {"error_y": {
            "type": "data", "symmetric": False, "array": up, "arrayminus": down,
            "color": LIVE, "thickness": 2, "width": 3,
        }},
    ]  # fmt: skip


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    found = timed(view)
    if len(found) < len(SIDES):
        return f"one circulant block of side n: {len(found)} of {len(SIDES)} timed"
    at = crossing(found)
    return "FFT is not faster at any n" if at is None else f"one circulant block: FFT is faster from n = {at} on"


def table(view: View) -> Table:
    """Return both times, their ratio and the verdict for each size."""
    rows = [
        (
            side, f"{1000 * one.baseline_ms:.1f}", f"{1000 * one.latency_ms:.1f}", f"{one.speed_up:.2f}",
            "{:.2f} to {:.2f}".format(*one.speed_up_interval), one.verdict,
        )
        for side, one in timed(view).items()
    ]  # fmt: skip
    empty = [("not timed yet", "", "", "", "", "")]
    return ("side n", "dense, µs", "FFT, µs", "dense / FFT", "95 % interval", "FFT is"), rows or empty


_SIDES = {"type": "log", "tickvals": list(SIDES[::2]), "ticktext": [str(side) for side in SIDES[::2]]}
PICTURE = Picture(
    name="time of a product",
    main=main,
    below=below,
    headings=(
        f"time of {TIMING.batch_size} products, µs: gray = dense, blue = FFT",
        "dense time / FFT time, with its interval",
    ),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: _SIDES,
        MAIN.yaxis: {"type": "log", "nticks": 5, "exponentformat": "SI"},
        BELOW.xaxis: _SIDES | {"title": title("side n")},
        BELOW.yaxis: {"type": "log", "nticks": 3},
    },
    prepare=prepare,
)
