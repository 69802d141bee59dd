"""What all figures of an explorer share: the style of axes, ticks of bytes, and a layout without margins."""

import math
from typing import Any

from compedu.explorers.figures.colors import TEXT
from compedu.explorers.figures.places import TEXT_SIZE
from compedu.explorers.words import bytes_text

FONT = "Arial, Liberation Sans, Helvetica, sans-serif"  # narrow where the system has one of the first
LINES = "rgba(140, 140, 140, 0.5)"


def base(width: int, height: int, **margins: int) -> dict[str, Any]:
    """Return what all layouts share: the size, `margins` (l, r, t, b; 0 by default), and no background color."""
    return {
        "width": width, "height": height, "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "pad": 0} | margins,
        "font": {"size": TEXT_SIZE, "color": TEXT, "family": FONT},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "barmode": "overlay", "showlegend": False,
        "bargap": 0.1, "hovermode": "closest", "dragmode": False, "uirevision": "keep",
    }  # fmt: skip


def axis(anchor: str, domain: list[float] | None = None, **settings: Any) -> dict[str, Any]:
    """Return an axis in the style that all of them share."""
    return {
        "domain": domain or [0, 1], "anchor": anchor, "showgrid": False, "zeroline": False, "linecolor": LINES,
        "showline": True, "ticks": "outside", "ticklen": 3, "tickcolor": LINES, "title": {"text": ""},
        "fixedrange": True, "automargin": False,
    } | settings  # fmt: skip


def byte_ticks(end: float) -> list[tuple[int, str]]:
    """Return about four round ticks from 0 to `end` bytes, each with its name, units included."""
    power = 10 ** math.floor(math.log10(end / 2))
    step = max(digit * power for digit in (1, 2, 5) if digit * power <= end / 2)
    ticks = [int(step * i) for i in range(int(end / step) + 1)]
    return [(tick, bytes_text(tick).replace(".0 ", " ").replace("0 MB", " MB")) for tick in ticks]
