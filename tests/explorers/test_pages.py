"""Explorers on pages without a kernel: the JSON of the site's form, and what a notebook keeps."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from page_of_explorer import merged, over_the_wire, say

import compedu as ce
from compedu.explorers import explore
from compedu.explorers.explorer import Explorer
from compedu.explorers.figures.figure import moving
from compedu.explorers.pages.page import page_form
from compedu.explorers.pages.still import still_form
from compedu.explorers.panel.changes import as_json
from compedu.explorers.view import State
from compedu.sweeps import method_of

PNG = "data:image/png;base64,iVBORw0KGgo="


class Page(HTMLParser):
    """A page: what it would fetch, its content as JSON, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses, self.text, self.content, self._in_script = [], "", None, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self._in_script = tag == "script"

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.content = json.loads(data, parse_constant=pytest.fail)
        else:
            self.text += data


def page_of(explorer: Explorer) -> Page:
    """The page of an explorer, made as it is shown in synchronous mode."""
    explorer._session.measure_grid()
    session = explorer._session
    return Page(page_form(explorer.view, session.answers().values(), explorer._screen.question, session.questions))


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed: a list of forms by kind."""
    forms = []
    monkeypatch.setattr("compedu.explorers.explorer.display", lambda form, **options: forms.append(form))
    return forms


def test_on_a_page_of_results_the_form_without_a_kernel_is_shown(made, monkeypatch, displayed):
    monkeypatch.setenv("COMPEDU_SYNC", "1")
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    explorer._ipython_display_()
    (form,) = displayed
    page = Page(form["text/html"])
    assert page.addresses == [] and not re.search(r"https?://(?!www\.w3\.org|plot\.ly)", form["text/html"])
    (knob,) = page.content["parts"]["knobs"]
    assert len(knob["places"]) == len(page.content["places"]) >= 9
    assert knob["places"][page.content["start"]] == "0.5" and repr(explorer.method) in page.text
    texts = [place["shown"]["gauges"]["accuracy"][0] for place in page.content["places"]]
    assert len(set(texts)) > 3 and not any("≈" in text for text in texts), "each place shows its own point"


def test_in_a_notebook_the_picture_that_it_keeps_and_the_live_explorer_are_shown(made, displayed):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    explorer.settle(60)
    explorer._ipython_display_()
    still, live = displayed
    assert live is explorer.widget and set(still) == {"text/html", "text/plain"}


@pytest.mark.parametrize("given", [ce.LinearQuantization, ce.TruncatedSVD(rank=0.3), ce.SoftTargetDistillation],
                         ids=str)  # fmt: skip
def test_the_figures_of_each_place_are_those_of_its_point(given):
    explorer = explore(given, *ce.load("lenet5", "digits"))
    try:
        explorer.settle(120)
        content = page_of(explorer).content
        view, known = explorer.view, explorer._session.answers()
        assert len(content["places"]) == len(content["parts"]["knobs"][0]["places"]) > 4
        for index, place in enumerate(content["places"]):
            code = place["shown"]["code"]
            own = code == repr(explorer.method) and view.state == State.FINAL
            seen = replace(
                view, method=method_of(code), report=view.report if own else known[code], kept={},
                state=State.FINAL if own else State.PREVIEW,
            )  # fmt: skip
            drawn = {
                name: merged(figure, place["changes"].get(name, {"data": {}, "layout": {}}))
                for name, figure in content["figures"].items()
            }
            assert drawn == over_the_wire(as_json(moving(seen))), code
            assert place["shown"]["knobs"][content["parts"]["main"]]["place"] == index
            assert code in place["shown"]["said"]
        assert content["places"][content["start"]]["changes"] == {}
        assert content["places"][content["start"]]["shown"]["code"] == repr(explorer.method)
    finally:
        explorer.close()


def test_a_stored_page_holds_the_sweep_that_is_shipped():
    explorer = explore(ce.LinearQuantization, *ce.load("lenet5", "digits"))
    try:
        explorer.settle(120)
        assert len(explorer.view.points) == 8 and len(explorer.view.controls) >= 5
        content = page_of(explorer).content
        assert content["parts"]["knobs"][0]["places"] == list("12345678") and len(content["places"]) == 8
        assert content["parts"]["name"] == "LinearQuantization" and content["parts"]["still"]
    finally:
        explorer.close()


def test_a_setting_beside_the_stored_curve_has_a_curve_of_its_own_and_its_place_on_it():
    explorer = explore(ce.MagnitudePruning(sparsity=0.9, budget="lamp"), *ce.load("lenet5", "digits"))
    try:
        explorer.settle(120)
        assert len(explorer.view.points) > 20
        content = page_of(explorer).content
        codes = [place["shown"]["code"] for place in content["places"]]
        assert len(codes) >= 9 and all(method_of(code).budget == "lamp" for code in codes)
        assert codes[content["start"]] == repr(explorer.method)
        places = content["parts"]["knobs"][0]["places"]
        assert [float(place) for place in places] == [method_of(code).sparsity for code in codes]
    finally:
        explorer.close()


@pytest.mark.parametrize(("cls", "knob"), [
    (ce.MagnitudePruning, True), (ce.LinearQuantization, "coverage"), (ce.SoftTargetDistillation, True),
], ids=["stored", "another knob", "training"])  # fmt: skip
def test_every_setting_of_a_question_is_answered_by_its_own_point(cls, knob):
    model, data = ce.load("lenet5", "digits")
    explorer = explore(cls, model, data if knob is True else data.shortened(train=96, validation=60), predict=knob)
    try:
        explorer.settle(300)
        content = page_of(explorer).content
        question, answers = content["question"], content["answers"]
        known = explorer._session.answers()
        asked = [known[repr(one)] for one in explorer._session.questions]
        assert len(question["values"]) == len(question["places"]) == len(answers) > 2
        assert [accuracy for _, accuracy in answers] == [100 * report.accuracy for report in asked]
        assert len(set(question["values"])) == len(answers), "no value is asked about twice"
        if knob is True:
            assert [f"{at:g}" for at, _ in answers] == [f"{float(value):g}" for value in question["values"]]
        else:
            assert [at for at, _ in answers] == [report.file_bytes for report in asked]
    finally:
        explorer.close()


def test_where_nothing_is_asked_the_page_holds_no_answers(made, measured):
    explorer = made(ce.LinearQuantization(bits=4))
    measured(explorer)
    content = page_of(explorer).content
    assert content["question"] is None and content["answers"] == []


def test_a_script_in_a_text_does_not_end_the_script_of_the_page(looked_at):
    view = looked_at(ce.LinearQuantization(bits=4)).view
    data = replace(view.data, name="</script><b>")
    text = page_form(replace(view, data=data, baseline=replace(view.baseline, method="</script><b>")), [], None)
    assert "</script><b>" not in text and Page(text).content["start"] == 0


def test_a_method_of_which_nothing_is_known_says_so(looked_at):
    view = replace(looked_at(ce.LinearQuantization(bits=4)).view, report=None)
    assert page_form(view, [], None) == "<p>LinearQuantization(bits=4): nothing is measured yet.</p>"


# What a notebook keeps


def test_a_still_picture_shows_figures_in_words_and_the_images_of_the_page(looked_at):
    explorer = looked_at(ce.LinearQuantization(bits=4))
    image = {"name": "tradeoff", "url": PNG, "width": 318, "height": 208}
    form = still_form(explorer.view, [image, {**image, "url": "https://example.org/a.png"}], hidden=False)
    accuracy = f"{100 * explorer.report.accuracy:.1f} %"
    assert accuracy in form["text/plain"] and accuracy in Page(form["text/html"]).text
    assert Page(form["text/html"]).addresses == [PNG], "an image of elsewhere is not kept"


def test_a_still_picture_hides_the_answers_while_they_are_hidden(looked_at):
    view = looked_at(ce.LinearQuantization(bits=4)).view
    form = still_form(view, [{"name": "tradeoff", "url": PNG, "width": 1, "height": 1}], hidden=True)
    for text in form.values():
        assert "hidden until a prediction is committed" in text and "<img" not in text
        assert f"{100 * view.report.accuracy:.1f}" not in text and str(view.report.correct) not in text


def test_a_still_picture_escapes_what_a_page_says(looked_at):
    view = looked_at(ce.LinearQuantization(bits=4)).view
    attack = "'><script>alert(1)</script>"
    image = {"name": attack, "url": PNG + attack, "width": "3", "height": 4}
    text = still_form(view, [image], hidden=False)["text/html"]
    assert "<script" not in text and html.escape(attack, quote=True) in text
    with pytest.raises(ValueError, match="invalid literal"):
        still_form(view, [{**image, "width": "1' onload='alert(1)"}], hidden=False)


def test_the_still_picture_of_an_output_follows_the_page(made, monkeypatch):
    kept = []

    class Output:
        def update(self, form, raw):
            kept.append(form)

    monkeypatch.setattr("compedu.explorers.explorer.display", lambda form, **options: Output())
    explorer = made(ce.MagnitudePruning, predict=True)
    explorer._ipython_display_()
    explorer.settle(120)
    image = {"name": "tradeoff", "url": PNG, "width": 318, "height": 208}
    say(explorer, "still", images=[image], code="MagnitudePruning(sparsity=0.123)")
    assert not kept, "the words of now do not belong to a picture of another setting"
    say(explorer, "still", images=[image], code=repr(explorer.method))
    assert "<img" not in kept[0]["text/html"] and "hidden" in kept[0]["text/html"]
    explorer.commit([0.5] * len(explorer._session.questions)).settle(120)
    say(explorer, "still", images=[image], code=repr(explorer.method))
    assert PNG in kept[1]["text/html"] and f"{100 * explorer.report.accuracy:.1f} %" in kept[1]["text/plain"]
