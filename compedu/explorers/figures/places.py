"""Sizes of the figures of an explorer, and positions in its picture, in pixels from the upper left corner."""

KNOBS = 202  # width of the knobs beside the figures: together they fit into JupyterLab on a screen of 1280 x 720
GAUGE = (200, 43)  # width and height of each gauge
TRADE_OFF_SIZE = (318, 208)
WIDTH = 312  # of the picture
HEIGHT = 238
LEFT = (40, 300)  # the picture's large plot, and the one below it
UPPER = (4, 114)  # the large plot: top and bottom
ABOVE_NAMES = (UPPER[0], UPPER[1] - 18)  # the large plot without the room that slanted names need
LOWER = (167, 206)
NAMED = (158, 190)  # the lower plot with slanted names of layers below it
HIGHER = (146, 206)  # the lower plot where no axis is above it
RIGHT_END = (212, 300)  # of the lower plot, for the third one
TEXT_SIZE = 12  # pixels: the smallest font of any figure


def title(text: str, standoff: int = 0) -> dict:
    """Return the title of an axis, `standoff` pixels away from it."""
    return {"text": text, "standoff": standoff, "font": {"size": TEXT_SIZE}}


def across(left: float, right: float) -> list[float]:
    """Return the domain of a horizontal axis of the picture."""
    return [left / WIDTH, right / WIDTH]


def down(top: float, bottom: float) -> list[float]:
    """Return the domain of a vertical axis of the picture."""
    return [1 - bottom / HEIGHT, 1 - top / HEIGHT]
