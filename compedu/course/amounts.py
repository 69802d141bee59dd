"""Numbers as a learner reads them: to three digits, with their unit."""

from typing import Any


def amount(value: Any, unit: str = "") -> str:
    """Return a number, or a list of numbers, to three digits: measurements on some thousand images justify no more.

    >>> amount(36.775, "%"), amount([0.9, 0.25], "accuracy"), amount(12345.6, "bytes")
    ('36.8 %', '0.9, 0.25 accuracy', '12,346 bytes')
    """
    return f"{', '.join(map(_digits, _several(value)))} {unit}".strip()


def difference(said: Any, measured: Any, unit: str = "") -> str:
    """Return measured minus predicted, element by element for lists; empty where there is nothing to compare.

    >>> difference(60, 36.775, "%"), difference(4, 5, "bits"), difference(4, None, "bits")
    ('-23.2 points', '+1 bits', '')
    """
    pairs = list(zip(_several(said), _several(measured), strict=False))
    if not all(_is_number(one) for pair in pairs for one in pair):
        return ""
    return f"{', '.join(_digits(found - one, '+') for one, found in pairs)} {unit_of_difference(unit)}".strip()


def unit_of_difference(unit: str) -> str:
    """Return the unit of a difference: points for percentages, so that it is not read as relative."""
    return "points" if unit == "%" else unit


def _several(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _digits(value: Any, sign: str = "") -> str:
    if not _is_number(value):
        return str(value)
    return f"{value:{sign}.3g}" if abs(value) < 999.5 else f"{value:{sign},.0f}"
