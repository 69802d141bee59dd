"""Knobs: what is legal, what is refused and how, what is parsed and shown."""

import copy
import dataclasses
import inspect
import math
import pickle
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compedu.knobs import Knob, changed_knobs, inherited, knob, knobs, method, settle_knobs, value_for
from compedu.methods import Method
from compedu.methods.low_rank.shared.rank import RankKnob

QUIET = settings(derandomize=True, deadline=None)
FRACTION = Knob(0.5, "a share", low=0, high=1, open="high", slider_range=(0.0, 0.9), per_layer=True)
WHOLE = Knob(8, "a count", low=1, high=8, slider_range=(1, 8))
STEP = Knob(1e-3, "a step", low=0, high=1, open="low", slider_range=(1e-4, 1e-1), log=True)
WORD = Knob("layer", "a place", choices=("layer", "global"))
NUMBER = Knob(0, "one of some", choices=(0, 2, 4))
SWITCH = Knob(False, "yes or no")
TEXT = Knob("all", "some words")
ANY = Knob(1.0, "any number")
RANK = RankKnob(0.5, "a rank", low=0.0, high=1.0, open="low", per_layer=True)
ALL = (FRACTION, WHOLE, STEP, WORD, NUMBER, SWITCH, TEXT, ANY)


@method
class Example(Method):
    """A method that is only its knobs."""

    family: ClassVar[str] = "pruning"
    sparsity: float = knob(default=0.5, help="fraction of zeros", low=0, high=1, open="high", per_layer=True)
    bits: int = knob(default=8, help="bits of a weight", low=1, high=8)

    def compress(self, task):
        return task.model


@method
class Narrowed(Example):
    """Declares a knob of its own and one anew."""

    seed: int = knob(default=0, help="what is drawn", low=0)
    bits: int = knob(default=4, help="bits of a weight", low=1, high=4)


@QUIET
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_is_legal_exactly_inside_its_range(value):
    assert FRACTION.allows(value) == (0 <= value < 1)
    assert STEP.allows(value) == (0 < value <= 1)
    assert ANY.allows(value) == math.isfinite(value)


@QUIET
@given(st.integers(-20, 20))
def test_a_whole_number_knob_takes_whole_numbers_alone(value):
    assert WHOLE.allows(value) == (1 <= value <= 8)
    assert not WHOLE.allows(float(value)) and not WHOLE.allows(bool(value)) and not WHOLE.allows(str(value))


@pytest.mark.parametrize("declared", ALL, ids=str)
def test_every_bad_value_is_illegal_and_every_point_and_default_legal(declared):
    assert declared.bad_values()
    assert not any(declared.allows(value) for value in declared.bad_values())
    assert declared.points() and all(declared.allows(value) for value in [declared.default, *declared.points()])


@pytest.mark.parametrize("declared", ALL, ids=str)
def test_what_is_typed_is_read_back(declared):
    for value in [declared.default, *declared.points()]:
        read = declared.parse(str(value))
        assert read == value and type(read) is type(value) and declared.allows(read)


def test_a_text_that_is_no_value_is_refused():
    for declared, text in ((WHOLE, "4.5"), (FRACTION, "half"), (SWITCH, "maybe")):
        with pytest.raises(ValueError, match=text):
            declared.parse(text)
    assert SWITCH.parse("Yes") is True and SWITCH.parse("0") is False


def test_values_by_layer_are_typed_read_and_checked():
    assert FRACTION.parse("conv*=0.3, *=0.9") == {"conv*": 0.3, "*": 0.9}
    assert FRACTION.allows({"conv*": 0.3, "*": 0}) and not FRACTION.allows({"conv*": 1.0})
    assert not FRACTION.allows({}) and not FRACTION.allows({3: 0.5}) and not WHOLE.allows({"*": 3})


@pytest.mark.parametrize("layer, expected", [("conv1", 0.3), ("fc1", 0.9), ("conv1.x", 0.3)])
def test_the_first_pattern_that_fits_a_layer_counts(layer, expected):
    assert value_for({"conv*": 0.3, "*": 0.9, "fc1": 0.1}, layer) == expected
    assert value_for(0.7, layer) == 0.7 and value_for({"stage*": 0.3}, layer) is None


@pytest.mark.parametrize("declared, words", [
    (FRACTION, "a number from 0 to below 1"), (WHOLE, "a whole number from 1 to 8"),
    (STEP, "a number above 0 and up to 1"), (ANY, "a number"),
    (WORD, "one of 'layer', 'global'"), (NUMBER, "one of 0, 2, 4"), (SWITCH, "True or False"), (TEXT, "a string"),
])  # fmt: skip
def test_the_allowed_values_are_said_in_words(declared, words):
    assert str(declared) == words


def test_points_spread_evenly_or_by_equal_ratios_over_what_is_worth_showing():
    assert FRACTION.points(4) == [0.0, 0.3, 0.6, 0.9]
    assert STEP.points(4) == [0.0001, 0.001, 0.01, 0.1]
    assert WHOLE.points() == [1, 2, 3, 4, 5, 6, 7, 8] and WHOLE.points(3) == [1, 4, 8]
    assert WORD.points() == ["layer", "global"] and SWITCH.points() == [False, True] and TEXT.points() == ["all"]
    assert FRACTION.points(1) == [0.45]


@pytest.mark.parametrize("declared, given, kept", [
    (FRACTION, np.float64(0.25), 0.25), (FRACTION, np.float32(0.5), 0.5), (FRACTION, 0, 0.0), (FRACTION, -0.0, 0.0),
    (FRACTION, np.int64(0), 0.0), (WHOLE, np.int64(4), 4), (WHOLE, np.uint8(8), 8), (SWITCH, np.True_, True),
    (WORD, np.str_("global"), "global"), (NUMBER, np.int32(2), 2), (ANY, 2**64, 2.0**64), (TEXT, np.str_("fc1"), "fc1"),
    (RANK, 1, 1), (RANK, np.int64(40), 40), (RANK, 1.0, 1.0), (RANK, np.float64(1.0), 1.0),
    (FRACTION, {np.str_("fc1"): np.float64(0.5)}, {"fc1": 0.5}),
    (RANK, {"fc1": np.int64(3), "*": 0.5}, {"fc1": 3, "*": 0.5}),
], ids=repr)  # fmt: skip
def test_every_value_is_kept_in_one_form(declared, given, kept):
    assert declared.allows(given)
    found = declared.kept(given)
    assert found == kept and repr(found) == repr(kept)
    assert math.copysign(1, found) == 1 if isinstance(found, float) else True


@pytest.mark.parametrize("declared, value", [
    (WHOLE, np.float64(4.0)), (FRACTION, np.True_), (ANY, 10**400), (FRACTION, np.array([0.5])), (SWITCH, np.int64(1)),
    (Knob(1, "a count", low=1), 2**31), (RANK, 2**31), (RANK, 0), (RANK, True), (ANY, np.float64("nan")),
])  # fmt: skip
def test_numbers_of_the_wrong_kind_and_without_end_stay_illegal(declared, value):
    assert not declared.allows(value)


def test_numpy_values_and_every_zero_give_the_method_that_plain_ones_give():
    plain = Example(sparsity=0.25, bits=4)
    for chosen in ({"sparsity": np.float64(0.25), "bits": np.int64(4)}, {"sparsity": np.float32(0.25), "bits": 4}):
        assert repr(Example(**chosen)) == repr(plain) and Example(**chosen) == plain and eval(repr(plain)) == plain
    zeros = {repr(Example(sparsity=zero)) for zero in (0, 0.0, -0.0, np.float64(-0.0), np.int8(0))}
    keys = {Example(sparsity={"*": zero}).key(nn.Linear(1, 1), None).split("|")[0] for zero in (0, 0.0, -0.0)}
    assert zeros == {"Example(sparsity=0.0)"} and keys == {"Example/1(bits=8, sparsity={'*': 0.0})"}


def test_a_method_keeps_what_a_dictionary_held_when_it_was_made():
    given = {"conv*": 0.3, "*": 0.9}
    example = Example(sparsity=given)
    given["conv*"] = 0.5
    del given["*"]
    assert repr(example) == "Example(sparsity={'conv*': 0.3, '*': 0.9})" and eval(repr(example)) == example
    with pytest.raises(TypeError, match="does not support item assignment"):
        example.sparsity["conv*"] = 0.5
    same = (pickle.loads(pickle.dumps(example)), copy.deepcopy(example), dataclasses.replace(example, bits=8))
    assert all(other == example and hash(other) == hash(example) and repr(other) == repr(example) for other in same)
    assert value_for(example.sparsity, "conv1") == 0.3 and len(example.sparsity) == 2


def test_methods_whose_first_match_differs_are_not_equal():
    exact, same, shadowed = (
        Example(sparsity=given) for given in ({"a": 0.5, "*": 0.9}, {"a": 0.5, "*": 0.9}, {"*": 0.9, "a": 0.5})
    )
    assert value_for(exact.sparsity, "a") != value_for(shadowed.sparsity, "a")
    assert exact == same and hash(exact) == hash(same) and exact != shadowed and len({exact, same, shadowed}) == 2
    assert exact.sparsity == {"a": 0.5, "*": 0.9} != shadowed.sparsity and exact.sparsity != 0.5


def test_a_value_too_long_to_be_shown_is_refused_in_one_line():
    long = ((10**5000, "got a number too long to print"), ("x" * 5000, r"got 'xxx[x]*\.\.\. \(fraction"))
    for value, words in long:
        with pytest.raises(ValueError, match=words) as refusal:
            Example(sparsity=value)
        assert len(str(refusal.value)) < 300


def test_a_layer_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"'conv\*' is given twice"):
        FRACTION.parse("conv*=0.3, conv*=0.5")


def test_an_illegal_value_is_refused_with_class_knob_range_value_and_meaning():
    with pytest.raises(ValueError) as refusal:
        Example(sparsity=1.0)
    assert str(refusal.value) == (
        "Example.sparsity must be a number from 0 to below 1, or a mapping of layer names to such values, got 1.0 "
        "(fraction of zeros)"
    )
    with pytest.raises(ValueError, match=r"^Example\.bits must be a whole number from 1 to 8, got 4\.0 \(bits of"):
        Example(bits=4.0)
    with pytest.raises(TypeError, match="nosuch"):
        Example(nosuch=1)


def test_a_knob_with_an_illegal_default_cannot_be_declared():
    with pytest.raises(ValueError, match="the default 2 is not a whole number from 3 to 2147483647"):
        knob(default=2, help="too small", low=3)


def test_a_method_cannot_be_changed_and_its_repr_omits_defaults():
    example = Example(bits=8, sparsity={"conv*": 0.3})
    with pytest.raises(AttributeError):
        example.bits = 4
    assert repr(example) == "Example(sparsity={'conv*': 0.3})" and eval(repr(example)) == example
    assert changed_knobs(example) == {"sparsity": {"conv*": 0.3}} and repr(Example()) == "Example()"


def test_own_knobs_come_in_the_order_of_their_declaration_before_inherited_ones():
    assert list(knobs(Example)) == ["sparsity", "bits"]
    assert list(knobs(Narrowed)) == ["seed", "bits", "sparsity"] == list(knobs(Narrowed()))
    assert Narrowed().bits == 4 and knobs(Narrowed)["bits"].high == 4
    with pytest.raises(ValueError, match=r"Narrowed\.bits"):
        Narrowed(bits=8)
    settle_knobs(Narrowed(bits=3))


def test_an_inherited_knob_is_declared_anew_in_another_place_with_changes():
    @method
    class Derived(Example):
        bits: int = inherited(Example, "bits", high=5, default=5)
        extra: int = knob(default=1, help="something more", low=0)

    assert list(knobs(Derived)) == ["bits", "extra", "sparsity"] and Derived().bits == 5
    assert knobs(Derived)["bits"].high == 5 and knobs(Example)["bits"].high == 8
    assert knobs(Derived)["bits"].help == knobs(Example)["bits"].help


def test_a_misspelt_knob_is_named_with_the_one_that_was_meant():
    with pytest.raises(
        TypeError, match=r"Example has no knob 'sparsty' \(did you mean 'sparsity'\?\); it has: sparsity, bits"
    ):
        Example(sparsty=0.5)
    with pytest.raises(TypeError, match="Example has no knob 'volume'; it has"):
        Example(volume=1)
    assert copy.copy(Example(bits=3)) == pickle.loads(pickle.dumps(Example(bits=3))) == Example(bits=3)


def test_what_a_notebook_shows_of_a_call_are_the_knobs_with_their_defaults():
    shown = inspect.signature(Example).parameters
    assert {name: one.default for name, one in shown.items()} == {"sparsity": 0.5, "bits": 8}
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in shown.values())
    assert list(inspect.signature(Narrowed).parameters) == ["sparsity", "bits", "seed"]
