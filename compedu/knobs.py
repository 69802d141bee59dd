"""Knobs: the fields of a method, each declared once with its default, help, legal range and slider range."""

import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import numpy as np

from compedu.specs import named_once

STEPS = 100  # stops of a slider over a range without round steps
LARGEST = 2**31 - 1  # of integers, where a knob has no upper bound of its own: beyond it torch may overflow
SHOWN = 100  # characters of a refused value in a message

Value = TypeVar("Value")
PerLayer: TypeAlias = Value | Mapping[str, Value]  # what a `per_layer` knob takes


def knob(*, default: Any, help: str, **ranges: Any) -> Any:
    """Declare a field of a method as a knob; `ranges` are the other fields of `Knob`."""
    return field_of(Knob(default, help, **ranges))


def seed_knob(help: str) -> Any:
    """Declare a field of a method as a seed; `help` says what is drawn."""
    return knob(default=0, help=help, low=0, high=LARGEST, slider_range=(0, 9))


# A type checker reads the fields of a method, and which of them have a default, off its class.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(knob,))
def method(cls: type[Value]) -> type[Value]:
    """Make a class of methods: a frozen dataclass whose knobs are given by name."""
    made = dataclass(frozen=True, repr=False, kw_only=True)(cls)
    build = made.__init__

    @functools.wraps(build)  # what notebooks show of a call is the signature with the knobs
    def __init__(self, *given: Any, **values: Any) -> None:
        for name in values.keys() - {field.name for field in dataclasses.fields(self)}:
            raise TypeError(no_such_knob(type(self), name))
        build(self, *given, **values)

    made.__init__ = __init__
    return made


class ByLayer(Mapping):
    """Values by layer name or pattern: an immutable copy of the caller's dictionary.

    The order counts, because the first match wins: the same pairs in another order are not equal.
    """

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)

    def __getitem__(self, pattern: str) -> Any:
        return self._values[pattern]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return list(self.items()) == list(other.items()) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


@dataclass(frozen=True)
class Knob:
    """The declaration of one knob; its type is the type of its default.

    `low` and `high` bound the legal values (`open` says which ends are excluded: "low", "high" or "both"); a method
    with any other value is refused. Integers end at `LARGEST`. `slider_range` is the part of the legal range that
    sliders and sweeps show. A `per_layer` knob also takes a mapping from layer names or patterns to values, such as
    {"conv*": 0.3, "*": 0.9}; the first match wins.
    """

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    open: str = ""
    slider_range: tuple[float, float] | None = None
    unit: str = ""
    choices: tuple = ()
    log: bool = False
    per_layer: bool = False

    def __post_init__(self):
        if self.type is int and self.high is None:
            object.__setattr__(self, "high", LARGEST)

    @property
    def type(self) -> type:
        """The Python type of a value: bool, int, float or str."""
        return type(self.default)

    def kept(self, value: Any) -> Any:
        """Return `value` in the canonical form that a method stores; an illegal value stays illegal.

        NumPy scalars become Python numbers, values of a float knob floats, -0.0 becomes 0.0, mappings `ByLayer`.
        """
        if self.per_layer and isinstance(value, Mapping):
            pairs = ((str(key) if isinstance(key, str) else key, self._kept_one(one)) for key, one in value.items())
            return ByLayer(dict(pairs))
        return self._kept_one(value)

    def _kept_one(self, value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        if self.type is float and type(value) in (int, float) and not self.choices:
            try:
                return float(value) + 0.0
            except OverflowError:
                return value
        return value

    def allows(self, value: Any) -> bool:
        """Tell whether `value` is legal: of the knob's type and inside its range, or a mapping of such values."""
        kept = self.kept(value)
        if isinstance(kept, ByLayer):
            return len(kept) > 0 and all(isinstance(key, str) and self._allows_one(one) for key, one in kept.items())
        return self._allows_one(kept)

    def _allows_one(self, value: Any) -> bool:
        if type(value) is not self.type or (self.type is float and not math.isfinite(value)):
            return False
        if self.choices:
            return value in self.choices
        if self.type in (bool, str):
            return True
        above = self.low is None or value > self.low or (value == self.low and self.open not in ("low", "both"))
        below = self.high is None or value < self.high or (value == self.high and self.open not in ("high", "both"))
        return above and below

    def __str__(self) -> str:
        """The allowed values: "a number from 0 to below 1", "one of 'a', 'b'", "a whole number from 1 to 8"."""
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        if self.type is bool:
            return "True or False"
        if self.type is str:
            return "a string"
        return f"a {'whole ' if self.type is int else ''}number {self._range()}".rstrip()

    def _range(self) -> str:
        """Return the legal range of a number in words."""
        above = self.open in ("low", "both")
        below = self.open in ("high", "both")
        if self.high is None:
            return "" if self.low is None else f"{'above' if above else 'of at least'} {_written(self.low)}"
        high = f"below {_written(self.high)}" if below else _written(self.high)
        if self.low is None:
            return high if below else f"up to {high}"
        if above:
            return f"above {_written(self.low)} {'and' if below else 'and up to'} {high}"
        return f"from {_written(self.low)} to {high}"

    def parse(self, text: str) -> Any:
        """Read a value as typed on a command line; "conv*=0.3,*=0.9" is a mapping. Anything else raises."""
        if self.per_layer and "=" in text:
            pairs = [item.split("=", 1) for item in text.split(",")]
            return named_once((name.strip(), self._parse_one(value.strip())) for name, value in pairs)
        return self._parse_one(text)

    def _parse_one(self, text: str) -> Any:
        if self.type is bool:
            known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            if text.lower() not in known:
                raise ValueError(f"{text!r} is neither true nor false")
            return known[text.lower()]
        if self.type is int or (self.type is float and self.per_layer and text.lstrip("-").isdigit()):
            return int(text)
        return self.type(text)

    def bad_values(self) -> list:
        """Return values that are certainly illegal, derived from the declared range: tests try each of them."""
        if self.choices:
            return [object(), "no such choice"]
        if self.type is bool:
            return ["yes", 2]
        if self.type is str:
            return [3]
        bad = ["text", None, True, math.nan]
        if self.type is int:
            bad.append(1.5)
        for bound, side, step in ((self.low, "low", -1), (self.high, "high", 1)):
            if bound is not None:
                bad.append(bound + step)
                if self.open in (side, "both"):
                    bad.append(bound)
        return bad

    def stops(self) -> list[int | float]:
        """Return the values that a slider stops at: round steps over `slider_range`, or equal ratios if it is `log`."""
        if self.slider_range is None or self.choices or self.type not in (int, float):
            return []
        low, high = self.slider_range
        if self.log:
            spread = [low * (high / low) ** (i / STEPS) for i in range(STEPS + 1)]
            return sorted({round(value) if self.type is int else float(f"{value:.2g}") for value in spread})
        if self.type is int:
            return list(range(low, high + 1, max(1, (high - low) // STEPS)))
        step = step_of(low, high)
        return [float(f"{low + i * step:.9g}") for i in range(round((high - low) / step) + 1)]

    def on_scale(self, value: Any) -> int | float | None:
        """Return a number on the slider's scale; None for values per layer, a whole number of fractions, log of 0."""
        kept = self.kept(value)
        number = type(kept) is self.type and self.type in (int, float) and not self.choices
        return kept if number and (kept > 0 or (kept <= 0 and not self.log)) else None  # NaN is neither

    def points(self, count: int = 9) -> list:
        """Return at most `count` of the slider's stops, spread evenly (or all choices): the points of a sweep."""
        if self.choices:
            return list(self.choices)
        if self.type is bool:
            return [False, True]
        if self.slider_range is None:
            return [self.default]
        stops = self.stops()
        scale = math.log if self.log else float
        low, high = map(scale, self.slider_range)
        wanted = [low + (high - low) * (i / (count - 1) if count > 1 else 0.5) for i in range(count)]
        return sorted({min(stops, key=lambda stop: abs(scale(stop) - place)) for place in wanted})


def _written(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def step_of(low: float, high: float) -> float:
    """Return the smallest round step that divides low..high into at most `STEPS` parts.

    >>> step_of(0.0, 0.97), step_of(0.99, 1)
    (0.01, 0.0001)
    """
    least = (high - low) / STEPS * (1 - 1e-9)
    power = 10 ** math.floor(math.log10(least))
    return float(f"{min(digit * power for digit in (1, 2, 5, 10) if digit * power >= least):.3g}")


def field_of(declared: Knob) -> Any:
    """Return the dataclass field of a knob; raise `ValueError` for a default that is not legal."""
    if not declared.allows(declared.default):
        raise ValueError(f"the default {declared.default!r} is not {declared}")
    return dataclasses.field(default=declared.default, metadata={"knob": declared})


def inherited(base: type, name: str, **changes: Any) -> Any:
    """Redeclare a knob of `base`, in this place and with `changes` to the fields of its `Knob`."""
    return field_of(dataclasses.replace(knobs(base)[name], **changes))


def knobs(method: Any) -> dict[str, Knob]:
    """Return the knobs of a method or method class by name: as its own class declares them, then those of its bases."""
    cls = method if isinstance(method, type) else type(method)
    declared = {field.name: field.metadata["knob"] for field in dataclasses.fields(cls) if "knob" in field.metadata}
    order = dict.fromkeys(name for base in cls.__mro__ for name in inspect.get_annotations(base))
    return {name: declared[name] for name in order if name in declared}


def no_such_knob(cls: type, name: str) -> str:
    """Return the message that `cls` has no knob `name`, with the one probably meant and those that exist."""
    known = list(knobs(cls))
    close = difflib.get_close_matches(name, known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{cls.__name__} has no knob {name!r}{meant}; it has: {', '.join(known)}"


def settle_knobs(method: Any) -> None:
    """Bring the values of a new method into the canonical form of each knob.

    Raises `ValueError` with class, knob, allowed range, given value and help for an illegal value.
    """
    for name, declared in knobs(method).items():
        value = getattr(method, name)
        if not declared.allows(value):
            also = ", or a mapping of layer names to such values" if declared.per_layer else ""
            raise ValueError(
                f"{type(method).__name__}.{name} must be {declared}{also}, got {_shown(value)} ({declared.help})"
            )
        object.__setattr__(method, name, declared.kept(value))


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return "a number too long to print"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def changed_knobs(method: Any) -> dict[str, Any]:
    """Return the knobs whose values differ from their defaults, in order."""
    values = {name: (getattr(method, name), declared.default) for name, declared in knobs(method).items()}
    return {name: value for name, (value, default) in values.items() if value != default}


def matches(layer: str, pattern: str) -> bool:
    """Tell whether a layer's name is `pattern` literally, brackets included, or matches it."""
    return layer == pattern or fnmatchcase(layer, pattern)


def value_for(value: Any, layer: str) -> Any:
    """Return the value of a per-layer knob for `layer`: the one value, that of the first matching pattern, or None."""
    if not isinstance(value, Mapping):
        return value
    return next((given for pattern, given in value.items() if matches(layer, pattern)), None)
