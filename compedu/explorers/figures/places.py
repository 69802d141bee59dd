"""Positions in the figure, in pixels from the upper left corner."""

KNOBS = 202  # width of the knobs beside the figure: together they fit into JupyterLab on a screen of 1280 x 800
WIDTH = 640
HEIGHT = 390
GAUGES = ((10, 204), (232, 410), (448, 626))  # from, to
LEFT = (40, 300)  # the picture
RIGHT = (362, 632)  # the trade-off curve
UPPER = (142, 262)  # the picture's upper plot: top and bottom
LOWER = (315, 356)
NAMED = (306, 338)  # the lower plot with slanted names of layers below it
RIGHT_END = (212, 300)  # of the lower plot, for the third one
CURVE = (130, 330)
TEXT_SIZE = 12  # pixels: the smallest font of any figure


def title(text: str, standoff: int = 0) -> dict:
    """Return the title of an axis, `standoff` pixels away from it."""
    return {"text": text, "standoff": standoff, "font": {"size": TEXT_SIZE}}


def across(left: float, right: float) -> list[float]:
    """Return the domain of a horizontal axis."""
    return [left / WIDTH, right / WIDTH]


def down(top: float, bottom: float) -> list[float]:
    """Return the domain of a vertical axis."""
    return [1 - bottom / HEIGHT, 1 - top / HEIGHT]
