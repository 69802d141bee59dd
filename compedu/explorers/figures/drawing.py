"""Plotly's figure widget, with its state kept true and its updates cheap. The only file that knows its inside."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.serializers import custom_serializers

from compedu.explorers.figures.plots import TRADE_OFF


class Drawing(go.FigureWidget):
    """A `FigureWidget` that is changed by `draw` alone.

    Plotly's own updates (7.1) are not used: they validate every value again, which takes longer than a move of a slider
    may; what they send before a page has drawn the figure damages the page's copy of traces that do not change; and the
    state that a page gets when it is loaded again is that of the construction.
    """

    def draw(self, changes: Mapping[int, Mapping[str, Any]], axes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change properties of traces, by their numbers, and of axes, by name, with one message to the page."""
        for index, changed in changes.items():
            self._data[index].update(changed)
        layout = {f"{axis}.{name}": value for axis, settings in axes.items() for name, value in settings.items()}
        for axis, settings in axes.items():
            self._layout_obj._props[axis].update(settings)
        if not changes and not layout:
            return
        # Every trace of a message gives a value for every name, its present one or null: a gap is what does the damage.
        names = sorted(set().union(*changes.values()))
        style = {name: [self._data[index].get(name) for index in changes] for name in names}
        self._send_update_msg(style, layout, list(changes))

    @property
    def ends(self) -> dict[str, dict[str, Any]]:
        """The axes of the trade-off curve, which grow when a point lies outside."""
        axes = {name: self._layout_obj._props[name] for name in (TRADE_OFF.xaxis, TRADE_OFF.yaxis)}
        return {
            name: {key: axis[key] for key in ("range", "tickvals", "ticktext") if key in axis}
            for name, axis in axes.items()
        }

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict:
        """Return the state, or that of one `key`: that of now, not that of the construction."""
        state = super().get_state(key, drop_defaults)
        if key is None and hasattr(self, "_layout_obj"):  # not while it is being made
            as_sent = custom_serializers["to_json"]
            state |= {
                "_widget_data": as_sent(self._data, self),
                "_widget_layout": as_sent(self._layout_obj._props, self),
            }
        return state

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Ignore what the page says after each update: its defaults of all traces, which nobody here asks for.

        It would hold back what another thread draws meanwhile, and drop it: for plotly an update is a value that is set
        and at once taken back.
        """
