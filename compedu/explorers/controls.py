"""Controls made from knobs: a slider with a number field, a list, a tick box or a text, with the knob's own help."""

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from compedu.knobs import Knob, knobs
from compedu.methods import Method

STEPS = 100  # positions of a slider over the tour of a fraction


class Control:
    """One knob on the screen: `widget` to show, `value` to read and set, `changed` called when the learner moves it."""

    def __init__(self, name: str, knob: Knob, changed: Callable[[], None]):
        self.name, self.knob = name, knob
        self._changed, self._quiet = changed, False
        self.fields = _fields(knob, name)
        for field in self.fields:
            field.observe(self._moved, "value")
        label = widgets.HTML(f"<label title='{_escaped(knob.help)}'>{name.replace('_', ' ')}{_unit(knob)}</label>")
        row = widgets.HBox(list(self.fields), layout=widgets.Layout(width="auto"))
        self.widget = widgets.VBox([label, row], layout=widgets.Layout(margin="0 0 4px 0"))

    @property
    def value(self) -> Any:
        """The value as the method takes it."""
        return self.knob.type(self.fields[0].value)

    @value.setter
    def value(self, value: Any) -> None:
        self._quiet = True
        try:
            for field in self.fields:
                field.value = _inside(field, value)
        finally:
            self._quiet = False

    def _moved(self, change: dict) -> None:
        if self._quiet:
            return
        self.value = change["new"]  # the slider and its number field follow each other
        self._changed()


def controls_of(method: Method | type[Method], changed: Callable[[], None]) -> dict[str, Control]:
    """Return one control for each knob of `method`, in order, set to its values (or defaults, for a class)."""
    made = {name: Control(name, knob, changed) for name, knob in knobs(method).items()}
    for name, control in made.items():
        value = control.knob.default if isinstance(method, type) else getattr(method, name)
        if not isinstance(value, Mapping):  # per-layer values have no slider; the method keeps them until it is moved
            control.value = value
    return made


def _fields(knob: Knob, name: str) -> tuple[widgets.Widget, ...]:
    wide = widgets.Layout(width="100%")
    tip = {"tooltip": f"{name}: {knob.help} ({knob})"}
    if knob.choices:
        return (widgets.Dropdown(options=list(knob.choices), value=knob.default, layout=wide, **tip),)
    if knob.type is bool:
        return (widgets.Checkbox(value=knob.default, indent=False, layout=wide, description="yes", **tip),)
    if knob.type is str:
        return (widgets.Text(value=knob.default, continuous_update=False, layout=wide, **tip),)
    whole = knob.type is int
    low, high = _ends(knob.low, knob.high)
    number = (widgets.BoundedIntText if whole else widgets.BoundedFloatText)(
        min=low, max=high, value=knob.default, step=_step(knob), layout=widgets.Layout(width="76px"), **tip
    )
    if knob.tour is None:
        return (number,)
    slider = (widgets.IntSlider if whole else widgets.FloatSlider)(
        min=knob.tour[0], max=knob.tour[1], value=knob.default, step=_step(knob), readout=False,
        layout=widgets.Layout(flex="1 1 auto", width="120px"), **tip,
    )
    return slider, number


def _ends(low: float | None, high: float | None) -> tuple[float, float]:
    """Return ends for a number field, which needs some even where the knob has none."""
    return (-1e9 if low is None else low), (1e9 if high is None else high)


def _step(knob: Knob) -> float:
    """Return a round step that divides the tour into at most `STEPS` parts."""
    if knob.type is int:
        return 1
    low, high = knob.tour or (0, 1)
    rounds = (0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    return next((step for step in rounds if (high - low) / step <= STEPS), 1.0)


def _inside(field: widgets.Widget, value: Any) -> Any:
    """Widen the ends of a field that cannot show a legal value of the method, so that nothing is clamped silently."""
    if hasattr(field, "max") and isinstance(value, (int, float)):
        field.max, field.min = max(field.max, value), min(field.min, value)
    return value


def _unit(knob: Knob) -> str:
    return f" ({knob.unit})" if knob.unit else ""


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("'", "&#39;").replace("<", "&lt;")
