"""The controls of an explorer, made from knobs: places of a slider, text of a field, and what they refuse."""

import pytest
from page_of_explorer import over_the_wire

import compedu as ce
from compedu.explorers.panel.controls import as_text, controls_of
from compedu.knobs import knobs
from compedu.methods import METHODS


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_every_knob_has_a_control_with_its_name_help_and_value(cls):
    controls = controls_of(cls())
    assert list(controls) == list(knobs(cls))
    for name, control in controls.items():
        declared = knobs(cls)[name]
        parts = over_the_wire(control.parts)
        assert control.value == getattr(cls(), name) and control.text == as_text(control.value)
        assert (parts["name"], parts["label"], parts["unit"]) == (name, name.replace("_", " "), declared.unit)
        assert declared.help in parts["help"] and str(declared) in parts["help"]
        assert bool(parts["places"]) == (declared.slider_range is not None and not declared.choices)
        assert len(parts["places"]) == len(declared.stops())
        assert (parts["kind"] == "list") == bool(declared.choices) and (parts["kind"] == "flag") == (
            declared.type is bool
        )


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_whatever_a_page_offers_is_a_value_that_the_field_reads_again(cls):
    for name, control in controls_of(cls()).items():
        for text in (*control.parts["choices"], *control.parts["places"], control.text):
            control.type(text)
            assert not control.refused and control.knob.allows(control.value), (name, text)
            assert control.shown["text"] == text


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_every_stop_of_every_slider_is_a_legal_value_inside_the_range_worth_showing(cls):
    for name, declared in knobs(cls).items():
        stops = declared.stops()
        assert stops == sorted(set(stops)) and all(declared.allows(stop) for stop in stops), name
        if stops:
            assert (stops[0], stops[-1]) == pytest.approx(declared.slider_range) and 2 < len(stops) < 130


def test_a_moved_slider_moves_its_field():
    control = controls_of(ce.MagnitudePruning())["sparsity"]
    control.turn(control.places.index(0.25))
    assert (control.value, control.shown) == (0.25, {"place": 25, "text": "0.25", "refused": False})


@pytest.mark.parametrize("place", [-1, 1000])
def test_a_place_beyond_the_slider_is_refused(place):
    control = controls_of(ce.MagnitudePruning())["sparsity"]
    with pytest.raises(ValueError, match=f"sparsity has the slider places 0 to {len(control.places) - 1}, got {place}"):
        control.turn(place)


def test_a_field_takes_values_beyond_the_range_that_the_slider_shows():
    control = controls_of(ce.MagnitudePruning())["sparsity"]
    control.type("0.9995")
    assert control.value == 0.9995 and control.place == len(control.places) - 1


def test_a_value_between_two_stops_is_not_rounded_to_a_stop():
    control = controls_of(ce.SoftTargetDistillation(temperature=3.33))["temperature"]
    assert control.value == 3.33 and control.text == "3.33"
    assert abs(control.places[control.place] - 3.33) == min(abs(stop - 3.33) for stop in control.places)


def test_a_student_that_is_a_method_is_shown_as_text_and_replaced_by_words():
    student = ce.MagnitudePruning(sparsity=0.9)
    control = controls_of(ce.SoftTargetDistillation(student=student))["student"]
    assert control.value == student and control.text == "MagnitudePruning(sparsity=0.9)"
    control.type("lenet5(width=0.2)")
    assert control.value == "lenet5(width=0.2)"


def test_a_field_reads_values_per_layer_and_ranks():
    sparsity = controls_of(ce.MagnitudePruning())["sparsity"]
    sparsity.type("conv*=0.3,*=0.9")
    assert sparsity.value == {"conv*": 0.3, "*": 0.9} and as_text(sparsity.value) == "conv*=0.3,*=0.9"
    assert sparsity.place is None, "values per layer have no place on the slider"
    sparsity.type("0")
    assert sparsity.place == 0, "a whole number is a fraction where the knob has no other meaning of it"
    rank = controls_of(ce.TruncatedSVD())["rank"]
    rank.type("12")
    assert rank.value == 12 and type(rank.value) is int
    assert rank.place is None, "rank 12 does not lie behind 0.75 of the full rank"
    rank.type("0.2")
    assert rank.places[rank.place] == 0.2


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_numbers_of_a_slider_are_on_its_scale_and_ranks_layers_and_a_logarithm_of_zero_are_not(cls):
    for name, declared in knobs(cls).items():
        stops = declared.stops()
        assert [declared.on_scale(stop) for stop in stops] == stops, name
        assert declared.on_scale({"*": declared.default}) is None
        if declared.log:
            assert declared.on_scale(0) is None
        if str(declared).startswith("a fraction of the full rank"):
            assert declared.on_scale(1) is None and declared.on_scale(1.0) == 1.0
        elif stops and not declared.log:
            assert declared.on_scale(max(1, stops[0])) == max(1, stops[0])


def test_a_text_that_is_not_a_value_stays_in_the_field_and_is_refused_by_name():
    control = controls_of(ce.MagnitudePruning())["sparsity"]
    control.type("much")
    assert control.shown == {"place": None, "text": "much", "refused": True}
    with pytest.raises(ValueError, match="sparsity must be .*'much'.*fraction"):
        _ = control.value
    control.value = 0.5
    assert control.shown == {"place": 50, "text": "0.5", "refused": False}
