"""Controls made from knobs: a slider with a field, a list, a checkbox or a text field, with the knob's own help."""

from collections.abc import Mapping
from typing import Any

from compedu.knobs import Knob, knobs
from compedu.methods import Method


class Control:
    """The state of one knob on the page: `value` to read and set, `place` on the slider and `text` in the field.

    The slider covers the slider range; the field beside it takes every value, so that the method itself refuses illegal
    ones, in its own words, and none is clamped. Where a knob takes values per layer, so does the field. Values that are
    not on the slider's scale have no place: None.
    """

    def __init__(self, name: str, knob: Knob, value: Any):
        self.name = name
        self.knob = knob
        self.places = knob.stops()
        self.place: int | None = None
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
        self.text = as_text(value)
        number = self.knob.on_scale(value) if self.places else None
        self.place = None if number is None else self._nearest(number)

    def turn(self, place: int) -> None:
        """Move the slider to one of its places; raises `ValueError` for another one."""
        if not 0 <= place < len(self.places):
            raise ValueError(f"{self.name} has the slider places 0 to {len(self.places) - 1}, got {place}")
        self.value = self.places[place]

    def type(self, text: str) -> None:
        """Fill the field with `text`; where that is not a value, reading `value` raises."""
        try:
            self.value = self.knob.parse(text)
        except ValueError:
            self._value = ValueError(f"{self.name} must be {self.knob}, got {text!r} ({self.knob.help})")
            self.place = None
        self.text = text

    def _nearest(self, value: float) -> int:
        """Return the slider's place nearest to `value`, which may lie far beyond its ends."""
        near = min(max(value, self.places[0]), self.places[-1])
        return min(range(len(self.places)), key=lambda index: abs(self.places[index] - near))

    @property
    def refused(self) -> bool:
        """Whether the text in the field is not a value."""
        return isinstance(self._value, ValueError)

    @property
    def shown(self) -> dict[str, Any]:
        """The state as the page shows it."""
        return {"place": self.place, "text": self.text, "refused": self.refused}

    @property
    def parts(self) -> dict[str, Any]:
        """What never changes: name, unit, help, kind of field, and the values at the slider's places."""
        kind = "list" if self.knob.choices else "flag" if self.knob.type is bool else "text"
        return {
            "name": self.name, "label": self.name.replace("_", " "), "unit": self.knob.unit,
            "help": f"{self.knob.help}; {self.knob}", "kind": kind,
            "wide": kind == "text" and self.knob.type is str,
            "choices": ["True", "False"] if kind == "flag" else [str(choice) for choice in self.knob.choices],
            "places": [as_text(place) for place in self.places],
        }  # fmt: skip


def controls_of(method: Method) -> dict[str, Control]:
    """Return one control for each knob of `method`, in order, set to its value."""
    return {name: Control(name, knob, getattr(method, name)) for name, knob in knobs(method).items()}


def as_text(value: Any) -> str:
    """Return a value as `Knob.parse` reads it: "0.5", "conv*=0.3,*=0.9"."""
    if isinstance(value, Mapping):
        return ",".join(f"{layer}={one}" for layer, one in value.items())
    return str(value)
