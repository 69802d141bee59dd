"""Controls made from knobs: a slider with a field, a list, a checkbox or a text field, with the knob's own help."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from compedu.knobs import Knob, knobs
from compedu.methods import Method


class Control:
    """One knob on the screen: `widget` to show, `value` to read and set, `changed` called when the learner moves it.

    The slider covers the slider range; the field beside it takes every value, so that the method itself refuses illegal
    ones, in its own words, and none is clamped. Where a knob takes values per layer, so does the field.
    """

    def __init__(self, name: str, knob: Knob, value: Any, changed: Callable[[], None]):
        self.name = name
        self.knob = knob
        self._changed = changed
        self._quiet = False
        self._value = value
        self.places = (
            knob.stops()
        )  # the slider's positions; the widget holds their indices only, so that it rounds nothing
        self.slider = _slider(self.places, knob, name)
        self.field = _field(knob, name)
        fields = [field for field in (self.slider, self.field) if field is not None]
        for field in fields:
            field.observe(self._on_change, "value")
        unit = f" ({knob.unit})" if knob.unit else ""
        help = html.escape(f"{knob.help}; {knob}", quote=True)
        self.label = widgets.HTML(f"<label title='{help}'>{html.escape(name.replace('_', ' '))}{unit}</label>")
        self.widget = widgets.VBox([self.label, widgets.HBox(fields)])
        self.widget.add_class("compedu-knob")
        self.value = value

    @property
    def value(self) -> Any:
        """The value as the method takes it; raises `ValueError` for text that is not a value."""
        if isinstance(self._value, ValueError):
            raise self._value
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value
        self._show(value, (self.slider, self.field))

    def _show(self, value: Any, fields: tuple[widgets.Widget | None, ...]) -> None:
        self._quiet = True
        try:
            for field in fields:
                if field is None:
                    continue
                if field is not self.slider:
                    field.value = as_text(value) if isinstance(field, widgets.Text) else value
                elif type(value) in (int, float):  # values per layer have no place on the slider
                    field.value = self._place(value)
        finally:
            self._quiet = False

    def _place(self, value: float) -> int:
        """Return the slider's position nearest to `value`, which may lie far beyond its ends."""
        near = min(max(value, self.places[0]), self.places[-1])
        return min(range(len(self.places)), key=lambda index: abs(self.places[index] - near))

    def _on_change(self, change: dict) -> None:
        if self._quiet:
            return
        source = change["owner"]
        try:
            self._value = self._read(source, change["new"])
        except ValueError:
            self._value = ValueError(f"{self.name} must be {self.knob}, got {change['new']!r} ({self.knob.help})")
        else:
            self._show(self._value, tuple(field for field in (self.slider, self.field) if field is not source))
        self._changed()

    def _read(self, source: widgets.Widget, shown: Any) -> Any:
        if source is self.slider:
            return self.places[shown]
        return self.knob.parse(shown) if self.knob.per_layer and isinstance(source, widgets.Text) else shown


def controls_of(method: Method, changed: Callable[[], None]) -> dict[str, Control]:
    """Return one control for each knob of `method`, in order, set to its value."""
    return {name: Control(name, knob, getattr(method, name), changed) for name, knob in knobs(method).items()}


def as_text(value: Any) -> str:
    """Return a value as `Knob.parse` reads it: "0.5", "conv*=0.3,*=0.9"."""
    if isinstance(value, Mapping):
        return ",".join(f"{layer}={one}" for layer, one in value.items())
    return str(value)


def _slider(stops: list, knob: Knob, name: str) -> widgets.Widget | None:
    if not stops:
        return None
    layout = widgets.Layout(flex="1 1 auto", width="110px")
    return widgets.IntSlider(min=0, max=len(stops) - 1, readout=False, layout=layout, tooltip=f"{name}: {knob.help}")


def _field(knob: Knob, name: str) -> widgets.Widget:
    """Return the field, which takes any value of the knob."""
    wide = {"layout": widgets.Layout(width="100%")}
    tip = {"tooltip": f"{name}: {knob.help} ({knob})"}
    if knob.choices:
        return widgets.Dropdown(options=list(knob.choices), **wide, **tip)
    if knob.type is bool:
        return widgets.Checkbox(indent=False, description="yes", **wide, **tip)
    if knob.type is str:
        return widgets.Text(continuous_update=False, **wide, **tip)
    narrow = {"layout": widgets.Layout(width="78px", flex="0 0 78px" if knob.slider_range else "1 1 78px")}
    if knob.per_layer:
        return widgets.Text(continuous_update=False, **narrow, **tip)
    return (widgets.IntText if knob.type is int else widgets.FloatText)(**narrow, **tip)
