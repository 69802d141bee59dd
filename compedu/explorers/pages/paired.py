"""The paired test as images: those whose answer changed, the broken ones beside the fixed ones."""

from collections.abc import Sequence

import plotly.graph_objects as go

from compedu.datasets.dataset import Dataset
from compedu.explorers.pages.standalone import StandaloneFigure, styled
from compedu.explorers.panel.strip import image_bytes
from compedu.explorers.words import apart_text, change_text
from compedu.metrics import Change, Flip, Report

SIDE = 44  # pixels of an image
CELL = (62, 84)  # width and height of an image with both answers below it
COLUMNS = 6
MOST = 24  # images on either side
GAP = 40  # between the two sides
HEAD = 24  # the line above each side
LETTERS = 8  # of an answer: no more fit below an image


def paired_grid(report: Report, data: Dataset) -> go.Figure:
    """Return the figure of the images that the network broke, on the left, and of those that it fixed, on the right.

    Below each image are the answers before and after; the interval and the exact p-value of McNemar's test are at the
    bottom. Raises `ValueError` for a report without these images, and for `data` other than it was measured on.
    """
    broke, fixed, change = _changed(report, data)
    sides = [(broke, "broke", "right before"), (fixed, "fixed", "wrong before")]
    rows = max(1, *(-(-min(len(flips), MOST) // COLUMNS) for flips, _, _ in sides))
    figure = StandaloneFigure()
    for left, (flips, word, before) in zip((0, COLUMNS * CELL[0] + GAP), sides, strict=True):
        shown = flips[:MOST]
        more = f", the first {MOST} of them" if len(flips) > MOST else ""
        figure.add_annotation(
            x=left, y=0, xanchor="left", yanchor="top", showarrow=False,
            text=f"<b>{word} {len(flips)}</b>: {before}{more}",
        )  # fmt: skip
        figure.add_scatter(**_answers(shown, data, left))
        for index, flip in enumerate(shown):
            x, y = _corner(index, left)
            figure.add_layout_image(
                source=image_bytes(data, report.split, flip.image, SIDE), xref="x", yref="y", x=x, y=y, sizex=SIDE,
                sizey=SIDE, layer="above",
            )  # fmt: skip
    width = 2 * COLUMNS * CELL[0] + GAP
    height = HEAD + rows * CELL[1]
    test = f"{change_text(change)}, 95 % interval; exact McNemar test: p = {change.p_value:.2g}; {apart_text(change)}"
    figure.update_layout(
        showlegend=False, xaxis={"range": [0, width], "visible": False},
        yaxis={"range": [height, 0], "visible": False},
    )  # fmt: skip
    figure.add_annotation(
        x=0, y=0, xref="paper", yref="paper", xanchor="left", yanchor="top", showarrow=False, text=test
    )
    return styled(figure, width + 20, height + 40, l=10, r=10, t=10, b=30)


def _changed(report: Report, data: Dataset) -> tuple[Sequence[Flip], Sequence[Flip], Change]:
    if report.criterion is not None:
        raise ValueError(
            f"paired_grid shows classes, but an answer for {report.data!r} is correct if {report.criterion}: print the "
            "report instead"
        )
    if report.newly_wrong is None or report.newly_right is None or report.change is None:
        raise ValueError(
            f"paired_grid: the report of {report.method or 'the dense network'} lists no images; allowed is a complete "
            "one with a baseline: measure again, ce.measure(network, data, baseline=model)"
        )
    if report.data != data.name:
        raise ValueError(
            f"paired_grid: the report is of {report.data!r}, the data are {data.name!r}; give the data that it was "
            "measured on"
        )
    return report.newly_wrong, report.newly_right, report.change


def _corner(index: int, left: float) -> tuple[float, float]:
    """Return the upper left corner of an image, in pixels."""
    return left + index % COLUMNS * CELL[0] + (CELL[0] - SIDE) / 2, HEAD + index // COLUMNS * CELL[1]


def _answers(flips: Sequence[Flip], data: Dataset, left: float) -> dict:
    """Return the answers before and after below each image, in full where the pointer is."""
    corners = [_corner(index, left) for index in range(len(flips))]
    names = [tuple(data.classes[label] for label in (flip.true, flip.before, flip.after)) for flip in flips]
    return {
        "x": [x + SIDE / 2 for x, _ in corners], "y": [y + SIDE / 2 for _, y in corners], "mode": "markers+text",
        "marker": {"size": SIDE, "symbol": "square", "color": "rgba(0,0,0,0)"}, "textposition": "bottom center",
        "text": [f"{_short(before)}<br>→ {_short(after)}" if len(before + after) > 4 else f"{before} → {after}"
                 for _, before, after in names],
        "hovertext": [f"image {flip.image} is {true}: the dense network says {before}, this one {after}"
                      for flip, (true, before, after) in zip(flips, names, strict=True)],
        "hoverinfo": "text",
    }  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
