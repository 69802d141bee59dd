"""Documentation cards, made from the docstring and the knobs of a method."""

import re
from typing import Any

from compedu import methods
from compedu.knobs import Knob, knobs
from compedu.methods.method import FAMILIES, Method

PARTS = ("Stored", "Skips", "Paper")  # each begins a line of the docstring, in this order, after sentence and formula


def card(method: type[Method], level: int = 1) -> str:
    """Return the card of a method as Markdown under a heading of that `level`, formulas between dollar signs.

    It holds what the method does, its formula, what is stored, what is skipped, the paper, what a call needs, for which
    objectives it is defined if not for all, and for each knob its default, allowed values and meaning. Raises
    `ValueError` naming what the docstring lacks.
    """
    sentence, formula, *parts = parts_of(method)
    entries = {"Family": f"{FAMILIES[method.family]}.", "Needs": needs_of(method)}
    if method.defined_for is not Method.defined_for:
        entries["Objectives"] = in_words(method.defined_for)
    if method.identity_settings is not None:
        entries["Identity"] = f"`{method(**method.identity_settings)!r}` gives the network back."
    entries |= zip(PARTS, parts, strict=True)
    return "\n".join([
        f"{'#' * level} {method.__name__}", "", sentence, "", formula, "",
        *(f"- **{name}:** {text}" for name, text in entries.items()), "",
        "| knob | default | allowed | meaning |", "|---|---|---|---|",
        *(row(name, knob) for name, knob in knobs(method).items()),
    ])  # fmt: skip


def cards() -> str:
    """Return the cards of all methods as one page, by family in the order of the chapters."""
    lines = ["# Methods", "", "Each method with its formula and its knobs, as `compedu methods NAME` shows it."]
    for family, title in FAMILIES.items():
        listed = [method for method in methods.METHODS if method.family == family]
        if listed:
            lines += ["", f"## {title}"]
        for method in listed:
            lines += ["", card(method, level=3)]
    return "\n".join(lines) + "\n"


def parts_of(method: type[Method]) -> tuple[str, ...]:
    """Return sentence, formula, and the text after "Stored:", "Skips:" and "Paper:" in a docstring, each as one line.

    >>> from compedu.methods import SmallDense
    >>> parts_of(SmallDense)[2]
    'The layers of the small network, dense, at full precision.'
    """
    text = "\n".join(line.strip() for line in (method.__doc__ or "").strip().splitlines())
    found = []
    for name in reversed(PARTS):
        text, mark, part = text.rpartition(f"\n{name}:")
        found.append(part if mark else "")
        text = text if mark else part
    sentence, _, formula = text.partition("\n\n")
    parts = [" ".join(part.split()) for part in (sentence, formula, *reversed(found))]
    if missing := [name for name, part in zip(("sentence", "formula", *PARTS), parts, strict=True) if not part]:
        raise ValueError(f"the docstring of {method.__name__} lacks: {', '.join(missing)}")
    return tuple(part[0].upper() + part[1:] for part in parts)


def needs_of(method: type[Method]) -> str:
    """Return in words what a call needs besides the network."""
    return "Weights alone." if method.needs is Method.needs else in_words(method.needs)


def in_words(told: Any) -> str:
    """Return the docstring of a property of a method as one line."""
    return " ".join((told.__doc__ or "").split())


def row(name: str, knob: Knob) -> str:
    """Return the row of a knob in a Markdown table."""
    allowed = re.sub(r"'[^']*'", r"`\g<0>`", str(knob)) + (", also by layer" if knob.per_layer else "")
    meaning = knob.help + (f" ({knob.unit})" if knob.unit not in knob.help else "")
    cells = (f"`{name}`", f"`{knob.default!r}`", allowed, meaning)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
