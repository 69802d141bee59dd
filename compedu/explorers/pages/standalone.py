"""Figures on their own in a notebook: a transparent background, and no button bar over their text."""

from typing import Any

import plotly.graph_objects as go
import plotly.io

from compedu.explorers.figures.colors import TEXT
from compedu.explorers.figures.places import TEXT_SIZE

GRID = "rgba(140, 140, 140, 0.25)"  # visible on light and dark pages


class StandaloneFigure(go.Figure):
    """A Plotly figure that is shown without Plotly's buttons, which none of ours needs."""

    def show(self, *args: Any, **options: Any) -> None:
        """Show the figure; `options` are those of `plotly.io.show`."""
        super().show(*args, **{"config": {"displayModeBar": False}} | options)

    def _ipython_display_(self) -> None:
        """Show the figure as the last line of a cell; Plotly's own method does not take `config`."""
        if plotly.io.renderers.render_on_display and plotly.io.renderers.default:
            self.show()
        else:
            print(repr(self))


def styled(figure: go.Figure, width: int, height: int, **margins: int) -> go.Figure:
    """Give a figure its size, `margins` (l, r, t, b) in pixels, and a style for light and dark pages; return it."""
    lines = {"gridcolor": GRID, "zerolinecolor": GRID, "title": {"font": {"size": TEXT_SIZE + 1}}}
    figure.update_xaxes(**lines)
    figure.update_yaxes(**lines)
    return figure.update_layout(
        width=width, height=height, margin={"l": 60, "r": 20, "t": 10, "b": 46} | margins,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": TEXT, "size": TEXT_SIZE},
    )  # fmt: skip
