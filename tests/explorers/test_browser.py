"""Explorers in a real Chromium against a real JupyterLab: one server, one page and one kernel for all tests here.

Those of methods that train stand in a file of their own: two workers share the time.
"""

import json
import re

import pytest
from accessibility import grave_faults
from explorer_page import (
    AGAIN,
    BROKEN,
    CODE,
    NAMES,
    PLOT,
    PREDICTED,
    STORED,
    assert_all_is_drawn,
    assert_figures_follow_the_code,
    assert_pictures_can_be_chosen,
    assert_shown_is_computed,
    assert_texts_are_apart,
    explorer,
    figures,
    named,
    settled,
)  # fmt: skip

from compedu.explorers.panel.screen import TABS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_after_a_reload_the_page_shows_the_figures_of_now(lab):
    name = "TruncatedSVD"
    explorer(lab, name)
    lab.python(f"opened[{name!r}].set(rank=0.2).settle(300)")
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.open()
    shown = lab.cell(NAMES.index(name) + 1).locator(".compedu")
    shown.scroll_into_view_if_needed()
    shown.locator(".main-svg").first.wait_for(state="attached")
    shown.locator(".compedu-badge.FINAL").wait_for()
    assert_shown_is_computed(lab, shown, shown.locator(CODE).input_value())
    assert_all_is_drawn(lab, shown, name)


@pytest.mark.parametrize("name", named(trains=False))
def test_figures_on_the_page_are_those_computed_for_the_code_on_the_page(lab, name):
    assert_figures_follow_the_code(lab, name)


@pytest.mark.parametrize("name", named(trains=False, pictures=2))
def test_every_picture_can_be_chosen_on_the_page(lab, name):
    assert_pictures_can_be_chosen(lab, name)


def test_an_exception_inside_a_method_is_shown_in_the_widget(lab):
    lab.run_cell(BROKEN)
    shown = lab.cell(BROKEN).locator(".compedu")
    shown.locator(".compedu-badge.ERROR").wait_for()
    alert = shown.get_by_role("alert").first
    assert "ZeroDivisionError: broken on purpose" in alert.text_content()
    alert.locator("summary").click()
    assert alert.locator("pre").is_visible() and "Traceback" in alert.locator("pre").text_content()


def test_two_hundred_random_moves_leave_no_error_no_queue_and_no_growing_memory(lab):
    shown = explorer(lab, "MagnitudePruning")
    lab.python(
        "import random, gc, resource\n"
        "e, chosen = opened['MagnitudePruning'], random.Random(5)\n"
        "def moves(count):\n"
        "    most = 0\n"
        "    for _ in range(count):\n"
        "        e._on_message({'kind': 'knob', 'name': 'sparsity', 'place': chosen.randrange(90)})\n"
        "        most = max(most, e._session.runner.pending)\n"
        "    e.settle(300); gc.collect()\n"
        "    return most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, e.state\n"
        "first = moves(100)"
    )
    most, first, second, state = json.loads(
        lab.python("most, later, state = moves(100)\nimport json; print(json.dumps([most, first[1], later, state]))")
    )
    assert most <= 2 and state == "FINAL" and second - first < 100, (first, second)
    assert_shown_is_computed(lab, shown, shown.locator(CODE).input_value())


def test_controls_and_figure_have_names_for_screen_readers(lab):
    shown = explorer(lab, "MagnitudePruning")
    slider = shown.get_by_role("slider", name="sparsity")
    assert slider.get_attribute("aria-valuetext") == shown.get_by_role("textbox", name="sparsity").input_value()
    said = shown.locator(PLOT).get_attribute("aria-label")
    assert re.search(r"MagnitudePruning\(.*Accuracy: .* %.*Size: .*B;.*Picture: fc1: .* weights left", said)
    assert shown.locator(".compedu-picture .compedu-plot").get_attribute("aria-label").startswith("fc1: ")
    assert shown.locator(".compedu-plot:not([role=img], [aria-hidden=true])").count() == 0


def test_no_explorer_has_a_serious_fault_of_accessibility(lab):
    explorer(lab, "MagnitudePruning").locator(".compedu-more > summary").click()
    lab.run_cell(PREDICTED)
    lab.cell(PREDICTED).locator(".compedu").wait_for()
    assert grave_faults(lab.page, ".compedu") == []


@pytest.mark.parametrize("width", [1440, 1100])
def test_nothing_in_the_top_line_covers_anything_else(lab, width):
    shown = explorer(lab, "RandomPruning")  # its long code makes its top line wide for good
    lab.page.set_viewport_size({"width": width, "height": 1000})
    try:
        lab.python(
            "from dataclasses import replace\n"
            "e = opened['RandomPruning']; e.settle(300); view = e.view\n"
            "view.state, view.report = 'MEASURING', replace(view.report, total=40_000)\n"
            "view.method = ce.RandomPruning(sparsity=0.62, budget='sensitivity', calibration_images=1024)\n"
            "e._show('knobs')"
        )
        shown.get_by_text("MEASURING 200 of 40000").wait_for()
        boxes = shown.evaluate(
            """root => [root, ...root.querySelectorAll('.compedu-top > *')]
                .map(element => element.getBoundingClientRect().toJSON())"""
        )
    finally:
        lab.page.set_viewport_size({"width": 1400, "height": 1000})
        lab.python("e.set(sparsity=0.8, budget='uniform', calibration_images=16).settle(300)")
    whole, *parts = boxes
    assert len(parts) == 4 and parts[0]["width"] > 280
    for i, one in enumerate(parts):
        assert one["left"] >= whole["left"] and one["right"] <= whole["right"]
        for other in parts[i + 1 :]:
            beside = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert beside or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]


def test_tabs_say_what_is_in_them(lab):
    tabs = explorer(lab, "MagnitudePruning").get_by_role("tab")
    assert tabs.count() == len(TABS)
    assert [tab.get_attribute("title") for tab in tabs.all()] == list(TABS.values())


@pytest.mark.parametrize("width", [1400, 1280])
def test_an_explorer_fits_900_by_520_pixels_without_scrolling(lab, width):
    lab.page.set_viewport_size({"width": width, "height": 1000})
    try:
        for name in ("MagnitudePruning", "FilterPruning", "SoftTargetDistillation"):
            box = explorer(lab, name).bounding_box()
            assert box["width"] <= 900 and box["height"] <= 520, (name, box)
    finally:
        lab.page.set_viewport_size({"width": 1400, "height": 1000})


def test_texts_are_apart_where_all_layers_are_full_and_all_kinds_of_points_are_known(lab):
    lab.run_cell(STORED)
    shown = lab.cell(STORED).locator(".compedu")
    shown.locator(".compedu-badge.FINAL").wait_for()
    legend = shown.locator(".compedu-legend").text_content()
    assert all(name in legend for name in ("dense", "now", "small dense net", "stored points", "at random"))
    assert_texts_are_apart(shown)


def test_an_explorer_shown_a_second_time_shows_the_same_figures(lab):
    first = explorer(lab, "FilterPruning")
    code = settled(lab, first, "FilterPruning")
    lab.run_cell(AGAIN)
    second = lab.cell(AGAIN).locator(".compedu")
    second.scroll_into_view_if_needed()
    second.locator(".main-svg").first.wait_for(state="attached")
    assert_shown_is_computed(lab, second, code)
    assert figures(first) == figures(second)


PREDICTED_AND_MEASURED = """plot => {
    const lines = (plot.data ?? []).filter(trace => ['predicted', 'asked'].includes(trace.meta));
    return lines.length === 2 && lines.every(line => line.y.length) && lines.map(line => line.y.length);
}"""


def test_the_answers_stay_hidden_until_a_curve_is_drawn_dragged_moved_by_keys_and_typed(lab):
    lab.run_cell(PREDICTED)
    shown = lab.cell(PREDICTED).locator(".compedu")
    handles, fields = shown.get_by_role("slider", name="accuracy at"), shown.locator(".compedu-asked input")
    handles.first.wait_for()
    count = handles.count()
    assert count == fields.count() > 4 and not shown.locator(PLOT).is_visible()
    shown.get_by_role("button", name="Commit").click()
    assert "drag the point" in shown.get_by_role("alert").text_content() and not shown.locator(PLOT).is_visible()
    box = shown.locator(".compedu-drawn").bounding_box()
    start = handles.first.bounding_box()
    lab.page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    lab.page.mouse.down()
    lab.page.mouse.move(start["x"], box["y"] + box["height"] / 2, steps=5)
    lab.page.mouse.up()
    dragged = float(fields.first.input_value())
    assert 30 < dragged < 75 and handles.first.get_attribute("aria-valuenow") == str(round(dragged))
    handles.nth(1).press("PageDown")
    assert float(fields.nth(1).input_value()) == float(handles.nth(1).get_attribute("aria-valuenow")) < 91
    for index in range(2, count):
        fields.nth(index).fill("50")
    shown.get_by_role("button", name="Commit").click()
    shown.get_by_text("Largest surprise").wait_for()
    shown.scroll_into_view_if_needed()
    plot = shown.locator(PLOT).element_handle()
    drawn = lab.page.wait_for_function(PREDICTED_AND_MEASURED, arg=plot).json_value()
    assert drawn == [count, count]
    assert json.loads(lab.python("import json; print(json.dumps(predicted.view.predicted[2:]))")) == [0.5] * (count - 2)


def test_enter_goes_from_one_prediction_to_the_next_and_then_to_the_button_without_pressing_it(lab):
    lab.run_cell(PREDICTED)
    shown = lab.cell(PREDICTED).locator(".compedu")
    fields = shown.locator(".compedu-asked input")
    fields.first.click()
    for _ in range(fields.count()):
        lab.page.keyboard.type("40")
        lab.page.keyboard.press("Enter")
    lab.page.wait_for_timeout(300)  # in which a press would be heard
    commit = shown.get_by_role("button", name="Commit")
    assert commit.evaluate("button => document.activeElement === button")
    assert lab.python("print(predicted.view.predicted)") == "()"
    lab.page.keyboard.press("Enter")
    shown.get_by_text("Largest surprise").wait_for()
    assert lab.python("print(set(predicted.view.predicted))") == "{0.4}"


HEARD = """heard, e = [], opened[{name!r}]
def hear(content, on=e._on_message):
    heard.append(content.get('text')) if content['kind'] in ('knob', 'code') else None
    on(content)
e.widget._heard = hear"""
SAID = "print(heard); heard.clear()"


def test_an_edit_is_heard_once_on_enter_and_until_then_its_figures_look_out_of_date(lab):
    name = "TruncatedSVD"
    shown = explorer(lab, name)
    lab.python(f"opened[{name!r}].set(rank=0.3).settle(300)")
    shown.locator(".compedu-badge.FINAL").wait_for()
    lab.python(HEARD.format(name=name))
    rank, code, faded = (
        shown.locator(".compedu-main input[type=text]"),
        shown.locator(CODE),
        "getComputedStyle(one).opacity",
    )
    plots = shown.locator(".compedu-plots")
    shown.locator(".compedu-more > summary").click()
    for field in (rank, code, shown.get_by_role("textbox", name="layers", exact=True)):
        field.press("Enter")
        field.press("x")
        assert float(plots.evaluate(f"one => {faded}")) < 0.5
        field.press("Escape")
        assert float(plots.evaluate(f"one => {faded}")) == 1
        field.press("Tab")
    assert lab.python(SAID) == "[]", "nothing was edited"
    for field, text in ((rank, "0.2"), (code, "TruncatedSVD(rank=0.1)"), (rank, "0.15"), (rank, "0.1")):
        field.fill(text)
        field.press("Enter")
        shown.locator(".compedu-unapplied").wait_for(state="detached")
        field.press("Tab")
        assert lab.python(SAID) == f"[{text!r}]"
        assert lab.python("e.settle(300); print(e.method.rank)") in text
    lab.python("e.set(rank=25)")
    shown.locator(".compedu-nowhere").wait_for()
    rank.fill("0.25")
    rank.press("Tab")
    shown.locator(".compedu-unapplied").wait_for(state="detached")
    assert lab.python(SAID) == "['0.25']" and shown.locator(".compedu-nowhere").count() == 0


def test_an_explorer_that_is_closed_goes_without_an_error(lab):
    name = "TruncatedSVD"
    shown = explorer(lab, name)
    lab.python(f"opened.pop({name!r}).close()")
    shown.wait_for(state="detached")
    lab.page.wait_for_timeout(500)  # the page hears of each widget on its own
    assert lab.problems == []


def test_a_notebook_reopened_without_its_kernel_shows_a_still_picture_and_how_to_wake_it(lab):
    name = "MagnitudePruning"
    live = explorer(lab, name)
    lab.python(f"opened[{name!r}].set(sparsity=0.5).settle(300)")
    still = lab.cell(NAMES.index(name) + 1).locator(".compedu-still")
    still.locator("img[alt*='sparsity=0.5, ']").nth(1).wait_for(state="attached")
    assert live.is_visible() and not still.is_visible()
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    lab.open()
    still.wait_for(state="visible")
    assert "Run this cell" in still.text_content() and f"{name}(sparsity=0.5, " in still.text_content()
    lab.page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output.jupyter-widgets').length > 0")
    assert not lab.page.get_by_text("model not found").first.is_visible()
    lab.problems.clear()  # the page also reports each model that is gone
    lab.run_cell(0)


def test_both_themes_keep_text_legible(lab):
    shown = explorer(lab, "LinearQuantization")
    contrasts = []
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        lab.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        dark = "true" if theme == "JupyterLab Light" else "false"
        lab.page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=dark)
        # JupyterLab takes its splash away 200 ms later, and twice, with an error, where the next change comes before.
        lab.page.wait_for_function("!document.getElementById('jupyterlab-splash')")
        contrasts.append(shown.evaluate(CONTRAST))
    assert min(contrasts) >= 4.5, contrasts


CONTRAST = """root => {
    const light = color => {
        const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = light(getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor);
    const texts = [...root.querySelectorAll('.xtick text, .compedu-lines div, label, .compedu-legend')];
    return Math.min(...texts.map(text => {
        const ink = light(getComputedStyle(text)[text.ownerSVGElement ? 'fill' : 'color']);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    }));
}"""
