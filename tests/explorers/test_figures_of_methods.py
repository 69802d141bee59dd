"""The figures of every method's explorer: what the library computes, in traces of fixed number and kind, as JSON."""

from itertools import product

import pytest
from page_of_explorer import figures_now, over_the_wire, say, shown_figures, sizes_of, trace

import compedu as ce
from compedu.explorers.figures.colors import ROLES
from compedu.explorers.figures.figure import drawn, moving, picture_layout
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.figures.pictures.picture import layer_names
from compedu.explorers.figures.sideways import choices, place
from compedu.explorers.panel.changes import as_json
from compedu.explorers.panel.panel import STYLE
from compedu.explorers.words import bytes_text
from compedu.knobs import knobs
from compedu.methods import METHODS
from compedu.methods.distillation.shared.distillation import Distillation
from compedu.sweeps import method_of


def test_the_figures_shown_are_those_that_the_library_computes(seen, fitting):
    explorer, report, (model, data) = seen, seen.report, fitting(type(seen.method))
    assert method_of(repr(explorer.method)) == explorer.method
    again = ce.measure(method_of(repr(explorer.method))(model, data), data, baseline=model, speed=False)
    counts = (again.correct, again.file_bytes, again.entropy_coded_bytes, again.size_by_role, again.change)
    assert (report.correct, report.file_bytes, report.entropy_coded_bytes, report.size_by_role, report.change) == counts
    gauges, figures = explorer.widget.shown["gauges"], shown_figures(explorer)
    assert gauges["accuracy"][0] == f"{100 * again.accuracy:.1f} %"
    assert gauges["accuracy"][1].startswith(f"{again.correct} of {again.total};")
    assert gauges["size"][0] == bytes_text(again.file_bytes)
    assert figures["accuracy"]["data"][2]["x"] == pytest.approx([100 * again.accuracy])
    bars = [mark["x"] for mark in figures["size"]["data"] if mark["kind"] == "bar"][1:]
    bytes_of = {role: ends[1] - ends[0] for role, ends in zip(ROLES, bars, strict=True) if ends}
    assert bytes_of == {role: count for role, count in again.size_by_role.items() if count}
    assert trace(explorer, "now")["x"] == [place(explorer.view, again)]
    assert trace(explorer, "now")["y"] == pytest.approx([100 * again.accuracy])


def test_what_a_page_shows_is_made_of_the_view_of_now(seen):
    assert shown_figures(seen) == figures_now(seen)
    assert seen.widget.shown["code"] == repr(seen.method) and seen.widget.shown["state"] == "FINAL"
    over_the_wire([seen.widget.parts, seen.widget.shown, seen.widget.panes])


def kinds(figure: dict) -> list:
    return [(one.get("type") or one["kind"], one.get("xaxis")) for one in figure["data"]]


def test_traces_keep_their_number_and_kinds_whatever_is_shown(seen, before_and_after):
    empty, view = before_and_after(seen)
    names = {name: kinds(figure) for name, figure in moving(empty).items()}
    assert {name: kinds(figure) for name, figure in moving(view).items()} == names and len(names) == 4
    for picture in pictures_of(type(seen.method)):
        before = picture.table(view)
        if picture.prepare is not None:
            picture.prepare(view, lambda: False)
        for layer in layer_names(view):
            assert kinds(drawn(empty, picture, layer)) == kinds(drawn(view, picture, layer))
            assert any(word in picture.say(view, layer) for word in (layer, "teacher", "circulant", "FFT"))
        for head, rows in (before, picture.table(view)):
            assert rows and all(len(row) == len(head) for row in rows)


def test_all_that_a_figure_sends_is_json(seen, before_and_after):
    for view, picture in product(before_and_after(seen), pictures_of(type(seen.method))):
        for layer in layer_names(view)[:2]:
            assert over_the_wire(as_json(drawn(view, picture, layer)))
        view.sideways = list(choices(view))[-1]
        assert over_the_wire(as_json(moving(view)))


def test_no_text_of_a_figure_is_smaller_than_12_pixels(seen, before_and_after):
    for view, picture in product(before_and_after(seen), pictures_of(type(seen.method))):
        for figure in (moving(view)["tradeoff"], drawn(view, picture, layer_names(view)[0])):
            found = sizes_of([figure["layout"], *figure["data"]])
            assert found and min(found) >= 12
    assert ".compedu-marks text { font-size: 12px;" in STYLE  # of the gauges


def test_every_picture_of_a_method_can_be_chosen_and_follows_the_knobs(seen):
    explorer, first = seen, seen._screen.picture.name
    for picture in pictures_of(type(seen.method)):
        say(explorer, "picture", name=picture.name)
        explorer.settle(120)
        shown, view = explorer.widget.shown, explorer.view
        assert (shown["picture"], shown["heading"]) == (picture.name, picture.headings[0])
        assert shown["caption"] == picture.caption(view, shown["layer"])
        figure = shown_figures(explorer)["picture"]
        assert kinds(figure) == kinds(drawn(view, picture, shown["layer"]))
        assert figure["layout"] == over_the_wire(picture_layout(view, picture))
        assert len(shown["caption"]) <= 54, "the caption is wider than the picture"
        assert all(len(text) <= 58 for text in picture.headings)
    say(explorer, "picture", name=first)
    assert explorer.settle(120) is not None and explorer.widget.shown["picture"] == first


def test_methods_that_train_have_a_loss_curve_below_their_picture():
    for cls in METHODS:
        assert ("loss" in pictures_of(cls)[0].headings[1]) == (cls().needs == "training")


def test_only_methods_with_a_temperature_have_a_picture_of_it():
    for cls in METHODS:
        if issubclass(cls, Distillation):
            shown = "temperature" in [picture.name for picture in pictures_of(cls)]
            assert shown == ("temperature" in knobs(cls)), cls.__name__
