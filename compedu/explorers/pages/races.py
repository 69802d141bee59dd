"""A race on a page without a kernel: the stored seeds of both lanes, as one figure."""

import plotly.graph_objects as go

from compedu.explorers.figures.figure import picture_layout
from compedu.explorers.figures.pictures import LANES
from compedu.explorers.pages.standalone import StandaloneFigure
from compedu.explorers.view import View


def stored_race(view: View) -> go.Figure | None:
    """Return the figure of the stored races of the shown method; None where there are none, or no race."""
    if view.race is None or not view.race.stored:
        return None
    return StandaloneFigure(data=LANES.traces(view, ""), layout=picture_layout(view, LANES))
