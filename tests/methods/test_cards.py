"""Documentation cards: complete for every method, made of nothing but what the method says of itself."""

import inspect
import re
from typing import ClassVar

import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

import compedu
from compedu.knobs import knob, knobs, method
from compedu.methods import FAMILIES, METHODS
from compedu.methods.card import PARTS, card, cards, needs_of, parts_of
from compedu.methods.method import Method

MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)


@method
class Bare(Method):
    """Does something."""

    family: ClassVar[str] = "pruning"


@method
class Awkward(Method):
    r"""Change all weights.

    $a | b$ and more, which
    goes on here.
    Stored: all
    of it.
    Skips: nothing.
    Paper: none.
    """

    family: ClassVar[str] = "training"
    way: str = knob(default="a|b", help="one | or the other", choices=("a|b", "c"))
    wait: int = knob(default=3, help="how long it takes", low=1, unit="seconds")


def rows(text):
    """The cells of all table rows below the head, as a Markdown reader understands them."""
    tokens = MARKDOWN.parse(text)
    cells = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "td_open"]
    return [tuple(cells[start : start + 4]) for start in range(0, len(cells), 4)]


def plain(text):
    return text.replace("`", "")


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_every_method_has_a_complete_card(cls):
    text, said = card(cls), " ".join(inspect.getdoc(cls).split())
    assert text.startswith(f"# {cls.__name__}\n\n{inspect.getdoc(cls).splitlines()[0]}\n")
    assert FAMILIES[cls.family] in text and "**Needs:** " in text
    for name in PARTS:
        entry = re.search(rf"^- \*\*{name}:\*\* (\S.*)$", text, re.MULTILINE)[1]
        assert f"{name}: {entry[0].lower()}{entry[1:]}" in said or f"{name}: {entry}" in said
    for formula in re.findall(r"\$[^$]+\$", said):
        assert formula in text


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_the_table_says_of_each_knob_name_default_range_and_meaning(cls):
    declared = knobs(cls)
    table = rows(card(cls))
    assert [plain(name) for name, *_ in table] == list(declared)
    for (_, default, allowed, meaning), knob_ in zip(table, declared.values(), strict=True):
        assert plain(default) == repr(knob_.default)
        assert plain(allowed).startswith(str(knob_)) and ("by layer" in allowed) == knob_.per_layer
        assert meaning.startswith(knob_.help) and knob_.unit in meaning


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_formulas_are_read_as_formulas(cls):
    inside = [child for token in MARKDOWN.parse(card(cls)) for child in token.children or ()]
    assert any(child.type == "math_inline" for child in inside)
    assert not [child.content for child in inside if child.type == "text" and "$" in child.content]


def test_all_methods_stand_on_one_page_by_family():
    headings = re.findall(r"^(#+) (.*)$", cards(), re.MULTILINE)
    assert [name for marks, name in headings if marks == "###"] == [cls.__name__ for cls in METHODS]
    family = ""
    for marks, name in headings[1:]:
        family = name if marks == "##" else family
        assert marks == "##" or family == FAMILIES[getattr(compedu, name).family]


def test_every_method_is_a_public_name_with_a_card():
    public = [getattr(compedu, name) for name in dir(compedu)]
    found = {thing for thing in public if isinstance(thing, type) and issubclass(thing, Method)}
    assert found - {compedu.Pipeline} == set(METHODS)


def test_a_method_without_a_complete_docstring_has_no_card_and_says_what_is_missing():
    with pytest.raises(ValueError, match="the docstring of Bare lacks: formula, Stored, Skips, Paper"):
        card(Bare)


def test_lines_are_joined_and_bars_do_not_break_the_table():
    formula = "$a | b$ and more, which goes on here."
    assert parts_of(Awkward) == ("Change all weights.", formula, "All of it.", "Nothing.", "None.")
    assert rows(card(Awkward)) == [
        ("`way`", r"`'a|b'`", "one of `'a|b'`, `'c'`", "one | or the other"),
        ("`wait`", "`3`", "a whole number from 1 to 2147483647", "how long it takes (seconds)"),
    ]


def test_what_a_call_needs_is_said_in_words():
    assert needs_of(Awkward) == "Weights alone."
    assert "raining images" in needs_of(compedu.FineTune) and "calibrate" in needs_of(compedu.LinearQuantization)


def test_a_card_says_for_which_objectives_a_method_is_defined():
    soft = card(compedu.SoftTargetDistillation)
    assert "- **Objectives:** Classification: only logits have a softmax. Anything with `weight` 0" in soft
    assert "Objectives" not in card(compedu.LogitMatching)
