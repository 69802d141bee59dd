"""The plots of an explorer's picture, under names of ours; Plotly's names of their axes are numbers."""

from typing import NamedTuple


class Plot(NamedTuple):
    """One plot of a figure: the names of its axes as traces refer to them, such as "x2" and "y2"."""

    x: str
    y: str

    @property
    def xaxis(self) -> str:
        """The horizontal axis in the layout, such as "xaxis2"."""
        return self.x.replace("x", "xaxis")

    @property
    def yaxis(self) -> str:
        """The vertical axis in the layout, such as "yaxis2"."""
        return self.y.replace("y", "yaxis")

    @property
    def axes(self) -> dict[str, str]:
        """The properties that place a trace in this plot."""
        return {"xaxis": self.x, "yaxis": self.y}


# The picture: a large plot, a small one below it, a third at the right end of that for pictures that use it.
MAIN = Plot("x", "y")
BELOW = Plot("x2", "y2")
BESIDE = Plot("x3", "y3")
ONLY = Plot("x", "y")  # of a figure with one plot
