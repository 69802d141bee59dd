"""The only JavaScript of an explorer: what the page itself must do."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets


class Browser(anywidget.AnyWidget):
    """Two buttons, Copy and CSV; it also labels controls and figure for screen readers.

    `code` is what Copy copies, `said` the text alternative of the figure. `drawn` is called when a page has drawn the
    figure for the first time, `csv` returns name and content of the file, `tips` explains the tabs by name.
    """

    _esm = Path(__file__).with_name("browser.js")
    code = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    tips = traitlets.Dict().tag(sync=True)

    def __init__(self, drawn: Callable[[], None], csv: Callable[[], tuple[str, str]], tips: dict[str, str]):
        super().__init__(tips=tips)
        self._drawn = drawn
        self._csv = csv
        self.on_msg(self._on_request)

    def _on_request(self, widget: "Browser", content: dict, buffers: list) -> None:
        if content.get("kind") == "drawn":
            self._drawn()
        elif content.get("kind") == "csv":
            name, text = self._csv()
            self.send({"kind": "csv", "name": name, "text": text})
