"""The plots of an explorer's figure, under names of ours; Plotly's names of their axes are numbers."""

from typing import NamedTuple


class Plot(NamedTuple):
    """One plot of the figure: the names of its axes as traces refer to them, such as "x4" and "y4"."""

    x: str
    y: str

    @property
    def xaxis(self) -> str:
        """The horizontal axis in the layout, such as "xaxis4"."""
        return self.x.replace("x", "xaxis")

    @property
    def yaxis(self) -> str:
        """The vertical axis in the layout, such as "yaxis4"."""
        return self.y.replace("y", "yaxis")

    @property
    def axes(self) -> dict[str, str]:
        """The properties that place a trace in this plot."""
        return {"xaxis": self.x, "yaxis": self.y}


# The gauges, and the captions below them.
ACCURACY = Plot("x", "y")
SIZE = Plot("x2", "y2")
SPEED = Plot("x3", "y3")
GAUGE_CAPTIONS = Plot("x6", "y6")
# The picture: a large plot, a small one below it, a third at the right end of that for pictures that use it.
MAIN = Plot("x4", "y4")
BELOW = Plot("x7", "y7")
BESIDE = Plot("x8", "y8")
PICTURE_CAPTION = Plot("x9", "y9")
# The trade-off curve and its legend.
TRADE_OFF = Plot("x5", "y5")
LEGEND = Plot("x10", "y10")
