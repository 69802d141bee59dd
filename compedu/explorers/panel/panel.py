"""The one widget of an explorer: plain data to the page, messages from it; every page draws the state of now."""

import functools
import gzip
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import plotly
import traitlets

from compedu.explorers.figures import places
from compedu.explorers.figures.figure import Figure
from compedu.explorers.panel.changes import as_json, changed

HERE = Path(__file__).parent
SCRIPTS = ("library.js", "plots.js", "controls.js", "prediction.js", "gauges.js", "panel.js")  # in the order of use
SIZES = {  # of the figures, which the page leaves room for, in pixels
    "knobs": places.KNOBS, "gauge-height": places.GAUGE[1], "picture-width": places.WIDTH,
    "picture-height": places.HEIGHT, "tradeoff-width": places.TRADE_OFF_SIZE[0],
    "tradeoff-height": places.TRADE_OFF_SIZE[1],
}  # fmt: skip
STYLE = f".compedu {{ {' '.join(f'--{name}: {size}px;' for name, size in SIZES.items())} }}\n" + (
    HERE / "panel.css"
).read_text(encoding="utf-8")
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


@functools.cache
def _scripts(*more: str) -> str:
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in (*SCRIPTS, *more))


def widget_script() -> str:
    """Return the scripts as the one module that a widget has."""
    return f"{_scripts()}\nexport default {{ initialize, render }};\n"


def page_script() -> str:
    """Return the script of a page without a kernel, which shows all explorers on it."""
    return f"(() => {{\n{_scripts('page.js')}\nshowPages();\n}})();\n"


class Panel(anywidget.AnyWidget):
    """An explorer on the page. `heard` is called with each message of a page, a dictionary with its `kind`.

    `parts` never change: knobs, pictures, layers, tabs. `shown` is what texts and controls show now, `panes` are the
    tabs. The figures travel as changes with a number. A page that misses one, since it loads or was asleep, notices by
    the number and asks for all of them: so no page stays blank or shows an old figure.

    The library that draws is sent on request, once a page, and is not part of the widget's state.
    """

    # Texts, not paths: of a path the class would watch the file, and so keep every widget alive.
    _esm = widget_script()
    _css = STYLE
    parts = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    panes = traitlets.Dict().tag(sync=True)
    figures = traitlets.Dict().tag(sync=True)

    def __init__(self, parts: dict[str, Any], figures: dict[str, Figure], heard: Callable[[dict[str, Any]], None]):
        self._drawn = {name: as_json(figure) for name, figure in figures.items()}
        self._number = 0
        self._one_at_a_time = threading.RLock()  # measurements and messages of the page draw on different threads
        super().__init__(parts=parts | {"number": uuid.uuid4().hex})
        self._heard = heard
        self.on_msg(self._on_message)

    def draw(self, figures: dict[str, Figure]) -> None:
        """Draw these figures: only what differs from what pages have is sent."""
        with self._one_at_a_time:
            made = {name: as_json(figure) for name, figure in figures.items()}
            changes = {name: found for name, now in made.items() if (found := changed(self._drawn.get(name), now))}
            if not changes:
                return
            self._drawn |= made
            self._number += 1
            self.send({"kind": "changes", "number": self._number, "figures": changes})

    @property
    def drawn(self) -> dict[str, Any]:
        """All figures as pages have them, with their number."""
        with self._one_at_a_time:
            return {"number": self._number, "figures": dict(self._drawn)}

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """Return the current state, the figures of now included: a reloaded page begins with it."""
        state = super().get_state(key, drop_defaults)
        if key is None or "figures" in ([key] if isinstance(key, str) else key):
            state["figures"] = self.drawn
        return state

    def _on_message(self, widget: "Panel", content: dict[str, Any], buffers: list) -> None:
        kind = content.get("kind")
        if kind == "library":
            self.send({"kind": "library"}, [gzip.compress(PLOTLY.read_bytes(), compresslevel=1)])
        elif kind == "have":
            with self._one_at_a_time:  # sent before the next change, or the page would go back to older figures
                if content.get("number") != self._number:
                    self.send({"kind": "all", **self.drawn})
        else:
            self._heard(content)

    def close(self) -> None:
        """Remove the widget from all pages and from the kernel, with the layout that every widget has."""
        layout = getattr(self, "layout", None)
        self.on_msg(self._on_message, remove=True)
        super().close()
        if layout is not None:
            layout.close()
        self._heard = lambda content: None
