"""A race: how accurate the student is, step by step, alone and taught; pale behind it, the races of stored seeds."""

from collections.abc import Iterable, Sequence

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE, ORANGE, PALE_LIVE, PALE_ORANGE, PREDICTION, PREVIEW
from compedu.explorers.figures.pictures.picture import Picture, Table, line
from compedu.explorers.figures.places import HIGHER, down, title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import Race, View
from compedu.explorers.words import MINUS, percent

Points = Sequence[tuple[int, float]]  # a step, and the accuracy 0..1 there, or a difference of two
SHOWN = 10  # rows of the table


def main(view: View, layer: str) -> list[dict]:
    """Return the accuracies of both lanes over the steps, of the stored seeds too, the bet and where the race ended."""
    race = view.race or Race()
    last = _last_step(view, race)
    ends = [] if race.outcome is None else [race.outcome.alone.accuracy, race.outcome.taught.accuracy]
    return [
        _pale([list(zip(one.steps, one.alone, strict=True)) for one in race.stored], "stored, alone", PALE_ORANGE),
        _pale([list(zip(one.steps, one.taught, strict=True)) for one in race.stored], "stored, taught", PALE_LIVE),
        _accuracies(race.alone.reached, "alone", ORANGE, line={"dash": "dash"}),
        _accuracies(view.learning.reached, "taught", _live(view)),
        _marks(
            last, view.predicted, "your bet", [PREDICTION, PREDICTION], "circle-open", ["bet, alone", "bet, taught"]
        ),
        _marks(last, ends, "on all images", [ORANGE, _live(view)], "diamond"),
    ]


def below(view: View, layer: str) -> list[dict]:
    """Return how far the taught student is ahead, in points, for this seed and for the stored ones."""
    race = view.race or Race()
    stored = [
        [(step, taught - alone) for step, taught, alone in zip(one.steps, one.taught, one.alone, strict=True)]
        for one in race.stored
    ]
    level = [0, _last_step(view, race)]
    return [
        line(BELOW, level, [0, 0], "level", DENSE, line={"dash": "dot", "width": 1}),
        _pale(stored, "stored, ahead", PALE_LIVE, BELOW),
        _in_percent(BELOW, lead(view, race), "points ahead", _live(view)),
    ]


def lead(view: View, race: Race) -> list[tuple[int, float]]:
    """Return the accuracy of the taught student minus that of the other one, at the steps where both are known."""
    alone = dict(race.alone.reached)
    steps = sorted(alone)
    # The lanes are looked at by the clock, at steps of their own: between two looks a lane lies on a line.
    return [
        (step, reached - float(np.interp(step, steps, [alone[one] for one in steps])))
        for step, reached in view.learning.reached
        if steps and steps[0] <= step <= steps[-1]
    ]


def _last_step(view: View, race: Race) -> int:
    return max(view.learning.steps, race.alone.steps, *(one.steps[-1] for one in race.stored))


def _live(view: View) -> str:
    return PREVIEW if view.stale else LIVE


def _accuracies(points: Points, name: str, color: str, **style) -> dict:
    return _in_percent(MAIN, points, name, color, **style)


def _in_percent(at, points: Points, name: str, color: str, **style) -> dict:
    steps, values = zip(*points, strict=True) if points else ((), ())
    return line(at, np.array(steps, dtype=np.int32), 100 * np.array(values, dtype=np.float32), name, color, **style)


def _pale(lines: Iterable[Points], name: str, color: str, at=MAIN) -> dict:
    """Return several thin lines as one trace, with gaps between them."""
    x: list[int | None] = []
    y: list[float | None] = []
    for points in lines:
        for step, value in points:
            x.append(step)
            y.append(round(100 * value, 2))
        x.append(None)
        y.append(None)
    return line(at, x, y, name, color, line={"width": 1}, hoverinfo="skip", hovertemplate=None)


def _marks(
    step: int, accuracies: Sequence[float], name: str, colors: Sequence[str], symbol: str, text: Sequence[str] = ()
) -> dict:
    """Return two marks at the last step, of the students alone and taught, with a text on their left."""
    here = [step] * len(accuracies)
    marker = {"color": list(colors), "size": 9, "symbol": symbol, "line": {"width": 2, "color": list(colors)}}
    return line(
        MAIN,
        here,
        [100 * one for one in accuracies],
        name,
        colors[0],
        mode="markers+text" if text else "markers",
        marker=marker,
        text=list(text),
        textposition="middle left",
    )


def say(view: View, layer: str) -> str:
    """Say in words who is ahead, or who was, with the interval of the difference on all images."""
    race = view.race or Race()
    if view.learning.reached and race.alone.reached and (race.outcome is None or not _ended(view)):
        step, taught = view.learning.reached[-1]
        return f"step {step}: taught {percent(taught)}, alone {percent(race.alone.reached[-1][1])}"
    if race.outcome is None:
        return f"no race yet; pale: {len(race.stored)} stored seeds" if race.stored else "no race yet: Run starts it"
    low, high = (f"{100 * end:+.1f}".replace("-", MINUS) for end in race.outcome.change.interval)
    taught, alone = (percent(one.accuracy) for one in (race.outcome.taught, race.outcome.alone))
    return f"taught {taught}, alone {alone}: {low} to {high} points"


def _ended(view: View) -> bool:
    return view.state != "RUNNING"


def table(view: View) -> Table:
    """Return both accuracies and the lead at some steps, and at the end those on all images of the split."""
    race = view.race or Race()
    ahead = lead(view, race)
    taught = dict(view.learning.reached)
    kept = ahead[:: -(-len(ahead) // SHOWN) or 1]
    rows: list[tuple] = [
        (step, percent(taught[step] - gap), percent(taught[step]), f"{100 * gap:+.1f}") for step, gap in kept
    ]
    if race.outcome is not None:
        ends = (race.outcome.alone.accuracy, race.outcome.taught.accuracy)
        rows.append(("all images", *map(percent, ends), f"{100 * (ends[1] - ends[0]):+.1f}"))
    return ("step", "alone", "taught", "points ahead"), rows


PICTURE = Picture(
    name="the race",
    main=main,
    below=below,
    headings=("accuracy, %: blue = taught, orange = alone", "taught ahead of alone, points"),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"rangemode": "tozero", "showticklabels": False, "matches": BELOW.x},
        MAIN.yaxis: {"range": [0, 103], "nticks": 5},
        BELOW.xaxis: {"title": title("step"), "rangemode": "tozero", "nticks": 5},
        BELOW.yaxis: {"domain": down(*HIGHER), "nticks": 4},
    },
    lively=True,
)
