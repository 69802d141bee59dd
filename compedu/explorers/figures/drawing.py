"""Plotly's figure widget with correct state and cheap updates. The only file that knows its internals."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.serializers import custom_serializers

from compedu.explorers.figures.plots import TRADE_OFF


class Drawing(go.FigureWidget):
    """A `FigureWidget` that is changed by `draw` alone.

    Plotly's own updates (7.1) are not used: they validate every value again, which is too slow for a slider; updates
    that arrive before a page has drawn the figure damage the page's copy of unchanged traces; and a reloaded page gets
    the state at construction.
    """

    def draw(self, changes: Mapping[int, Mapping[str, Any]], axes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change properties of traces, by index, and of axes, by name, with one message to the page."""
        for index, changed in changes.items():
            self._data[index].update(changed)
        layout = {f"{axis}.{name}": value for axis, settings in axes.items() for name, value in settings.items()}
        for axis, settings in axes.items():
            self._layout_obj._props[axis].update(settings)
        if not changes and not layout:
            return
        # Every trace in a message has a value for every name, its current one or null: missing values do the damage.
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
        """Return the current state, or that of one `key`, rather than the state at construction."""
        state = super().get_state(key, drop_defaults)
        if key is None and hasattr(self, "_layout_obj"):  # not during construction
            as_sent = custom_serializers["to_json"]
            state |= {
                "_widget_data": as_sent(self._data, self),
                "_widget_layout": as_sent(self._layout_obj._props, self),
            }
        return state

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Ignore the page's reply to each update, its defaults of all traces, which are not used.

        Applying it would hold back, and then drop, what another thread draws meanwhile: for plotly an update is a value
        that is set and immediately reset.
        """
