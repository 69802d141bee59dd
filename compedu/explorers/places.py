"""Where things are in the figure, in pixels from the upper left corner."""

KNOBS = 202  # width of the knobs beside the figure: together they fit into JupyterLab on a screen of 1280 x 800
WIDTH, HEIGHT = 640, 390
GAUGES = ((10, 204), (232, 418), (448, 626))  # from, to
LEFT, RIGHT = (40, 300), (362, 632)  # the picture, the trade-off curve
UPPER, LOWER = (142, 266), (314, 358)  # the picture's places: top and bottom
BESIDE = (212, 300)  # a third one, at the right end of the lower one
CURVE = (130, 336)


def title(text: str) -> dict:
    """Return the title of an axis."""
    return {"text": text, "standoff": 0, "font": {"size": 11}}


def across(left: float, right: float) -> list[float]:
    """Return the domain of a horizontal axis."""
    return [left / WIDTH, right / WIDTH]


def down(top: float, bottom: float) -> list[float]:
    """Return the domain of a vertical axis."""
    return [1 - bottom / HEIGHT, 1 - top / HEIGHT]
