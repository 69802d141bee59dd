"""Explorers in a real Chromium against a real JupyterLab: one server, one page and one kernel for all methods."""

import json
import re

import pytest
from lab_page import PATIENCE_MS, LabPage, lab_server, notebook

from compedu.explorers.pictures import pictures_of
from compedu.explorers.screen import TABS
from compedu.methods import METHODS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

START = """import compedu as ce, torch
from compedu.knobs import knob, method, knobs
from compedu.methods import METHODS, LayerMethod
from compedu.sweeps import method_of
from compedu.explorers.words import bytes_text
torch.set_num_threads(1)
model, data = ce.load("lenet5", "digits")
data = data.shortened(train=96, validation=200, test=10)
QUICK = {"epochs": 1, "calibration_images": 16}
opened = {}
def pair_of(name):
    if name != "BatchNormReestimation":
        return model, data
    normalised, images = ce.load("vgg", "glyphs")
    return normalised, images.shortened(train=32, validation=40, test=10)
def show(cls, **options):
    start = cls(**{name: value for name, value in QUICK.items() if name in knobs(cls)})
    opened[cls.__name__] = ce.explore(start, *pair_of(cls.__name__), **options)
    return opened[cls.__name__]"""
BREAKING = """@method
class Breaking(LayerMethod):
    topic = "pruning"
    share: float = knob(0.5, "some share", low=0, high=1, tour=(0, 1))
    def compress_layer(self, name, layer):
        raise ZeroDivisionError("broken on purpose")
show(Breaking)"""
SHOWN = [f"show(ce.{cls.__name__})" for cls in METHODS]
CELLS = [START, *SHOWN, BREAKING, "show(ce.MagnitudePruning, predict=True)", "opened['FilterPruning']"]
BROKEN, PREDICTED, AGAIN = (len(SHOWN) + i for i in (1, 2, 3))
NAMES = [cls.__name__ for cls in METHODS]
COMPUTED = """dense, images = pair_of({code!r}.split("(")[0])
r = ce.measure(method_of({code!r})(dense, images), images, baseline=dense, speed=False)
import json
print(json.dumps([
    f"{{100 * r.accuracy:.1f}} %", f"{{r.correct}} of {{r.total}};", bytes_text(r.file_bytes), r.file_bytes,
]))"""


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """A notebook with one explorer for each method, its first cell run."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "explorers.ipynb").write_text(json.dumps(notebook(CELLS)))
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    with lab_server(folder) as address:
        lab = LabPage(context.new_page(), address, "explorers.ipynb")
        lab.problems = []
        lab.page.on("pageerror", lambda error: lab.problems.append(str(error)))
        lab.run_cell(0)
        yield lab
        context.close()


def explorer(lab, name: str):
    """Return the explorer of a method on the page, shown if it is not yet."""
    index = NAMES.index(name) + 1
    if lab.python(f"print({name!r} in opened)") == "False":
        lab.run_cell(index)
    shown = lab.cell(index).locator(".compedu")
    shown.locator(".js-plotly-plot .main-svg").first.wait_for(state="attached")
    shown.scroll_into_view_if_needed()
    return shown


def settled(lab, shown, name: str) -> str:
    """Wait until all is measured, training where it has to be; return the code that the explorer shows."""
    if lab.python(f"print(opened[{name!r}].method.needs)") == "training":
        shown.get_by_role("button", name="Run", exact=True).click()
    shown.locator(".compedu-badge.FINAL").wait_for()
    return shown.locator(".compedu-top input").input_value()


def figures(shown) -> tuple[str, float]:
    """Return the words of the gauges and the bytes of the live point as the page draws them."""
    return tuple(shown.locator(".js-plotly-plot").first.evaluate(
        "plot => [[...plot.querySelectorAll('.x6y6 text')].map(t => t.textContent).join(' '), "
        "plot.data.find(t => t.name === 'now').x[0]]"
    ))  # fmt: skip


def assert_shown_is_computed(lab, shown, code: str) -> None:
    *words, size = json.loads(lab.python(COMPUTED.format(code=code)))
    lab.page.wait_for_function(
        "([plot, size]) => plot.data.find(t => t.name === 'now').x[0] === size",
        arg=[shown.locator(".js-plotly-plot").first.element_handle(), size], timeout=PATIENCE_MS,
    )  # fmt: skip
    said, drawn = figures(shown)
    assert drawn == size
    for word in words:
        assert word in said, f"{code}: {word!r} is not in {said!r}"


def assert_texts_are_apart(shown) -> None:
    """Assert that no caption or heading of the figure runs into another one or out of the figure."""
    overlaps = shown.locator(".js-plotly-plot").first.evaluate(
        """plot => {
            const texts = [
                ...plot.querySelectorAll('.x6y6 text, .x9y9 text, .x10y10 text, .infolayer .annotation text'),
            ].filter(t => t.textContent.trim());
            const boxes = texts
                .flatMap(t => (t.querySelector('.line') ? [...t.querySelectorAll('.line')] : [t]))
                .map(t => [t.textContent, t.getBoundingClientRect()]);
            const edge = plot.getBoundingClientRect().right + 1, found = [];
            for (const [i, [one, a]] of boxes.entries()) {
                if (a.right > edge) found.push(`${one} (leaves the figure by ${a.right - edge})`);
                for (const [other, b] of boxes.slice(i + 1))
                    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
                        found.push(`${one} | ${other}`);
            }
            return found;
        }"""
    )
    assert overlaps == []


def moved(lab, shown, before: str) -> None:
    """Wait until the code line shows another method."""
    field = shown.locator(".compedu-top input").element_handle()
    lab.page.wait_for_function("([field, before]) => field.value !== before", arg=[field, before])


@pytest.mark.parametrize("name", NAMES)
def test_figures_on_the_page_are_those_computed_for_the_code_on_the_page(lab, name):
    shown = explorer(lab, name)
    before = settled(lab, shown, name)
    assert_shown_is_computed(lab, shown, before)
    assert_texts_are_apart(shown)

    handle = shown.locator(".compedu-knob .noUi-handle").first
    handle.focus()
    place = handle.get_attribute("aria-valuenow")
    handle.press("ArrowRight" if float(place) == 0 else "ArrowLeft")
    moved(lab, shown, before)
    by_key = settled(lab, shown, name)
    assert by_key != before
    assert_shown_is_computed(lab, shown, by_key)

    track = shown.locator(".compedu-knob .noUi-base").first.bounding_box()
    share = 0.3 if name != "CReLU" else 0.1  # few epochs
    lab.page.mouse.click(track["x"] + share * track["width"], track["y"] + track["height"] / 2)
    moved(lab, shown, by_key)
    lab.python(f"opened[{name!r}].set(**{{k: v for k, v in QUICK.items() if k in knobs(opened[{name!r}].method)}})")
    by_mouse = settled(lab, shown, name)
    assert_shown_is_computed(lab, shown, by_mouse)
    assert lab.problems == []


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
        "        e._controls['sparsity'].slider.value = chosen.randrange(90)\n"
        "        most = max(most, e._session.runner.pending)\n"
        "    e.settle(300); gc.collect()\n"
        "    return most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, e.state\n"
        "first = moves(100)"
    )
    most, first, second, state = json.loads(
        lab.python("most, later, state = moves(100)\nimport json; print(json.dumps([most, first[1], later, state]))")
    )
    assert most <= 2 and state == "FINAL" and second - first < 100, (first, second)
    assert_shown_is_computed(lab, shown, shown.locator(".compedu-top input").input_value())
    assert lab.problems == []


def test_controls_and_figure_have_names_for_screen_readers(lab):
    shown = explorer(lab, "MagnitudePruning")
    handle = shown.locator(".compedu-knob .noUi-handle").first
    assert handle.get_attribute("aria-label") == "sparsity" and handle.get_attribute("role") == "slider"
    assert shown.locator(".compedu-knob input").first.get_attribute("aria-label") == "sparsity"
    assert handle.get_attribute("aria-valuetext") == shown.locator(".compedu-knob input").first.input_value()
    figure = shown.locator(".js-plotly-plot").first
    assert figure.get_attribute("role") == "img"
    said = figure.get_attribute("aria-label")
    assert re.search(r"MagnitudePruning\(.*Accuracy: .* %.*Size: .*B;.*Picture: fc1: .* weights left", said)


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
            """root => [root, ...root.querySelectorAll('.compedu-top :is(input, button, .compedu-badge)')]
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


@pytest.mark.parametrize("name", [cls.__name__ for cls in METHODS if len(pictures_of(cls)) > 1])
def test_every_picture_can_be_chosen_on_the_page(lab, name):
    shown = explorer(lab, name)
    chooser = shown.get_by_label("picture", exact=True)
    for picture in pictures_of(cls_of(name)):
        chooser.select_option(label=picture.name)
        lab.python(f"opened[{name!r}].settle(300)")
        drawn, said = None, ""
        for _ in range(PATIENCE_MS // 1000):  # both are asked again: the choice travels to the kernel, the figure back
            said = lab.python(
                f"e = opened[{name!r}]; "
                "print(e._screen.picture.name, e._screen.picture.say(e.view, e._screen.layer.value), sep=': ')"
            )
            drawn = shown.evaluate("root => root.querySelector('.js-plotly-plot .x9y9 text')?.textContent")
            if said == f"{picture.name}: {drawn}":
                break
            lab.page.wait_for_timeout(1000)
        assert said == f"{picture.name}: {drawn}"
        assert_texts_are_apart(shown)
    chooser.select_option(index=0)
    assert lab.problems == []


def cls_of(name: str):
    return next(cls for cls in METHODS if cls.__name__ == name)


def test_an_explorer_shown_a_second_time_shows_the_same_figures(lab):
    first = explorer(lab, "FilterPruning")
    code = settled(lab, first, "FilterPruning")
    lab.run_cell(AGAIN)
    second = lab.cell(AGAIN).locator(".compedu")
    second.locator(".js-plotly-plot .main-svg").first.wait_for(state="attached")
    assert_shown_is_computed(lab, second, code)
    assert figures(first) == figures(second)


def test_the_answers_stay_hidden_until_a_prediction_is_committed(lab):
    lab.run_cell(PREDICTED)
    shown = lab.cell(PREDICTED).locator(".compedu")
    fields = shown.get_by_placeholder("0 to 100")
    fields.first.wait_for()
    assert fields.count() == 5 and not shown.locator(".js-plotly-plot").first.is_visible()
    for field in fields.all():
        field.fill("50")
    shown.get_by_role("button", name="Commit").click()
    shown.locator(".js-plotly-plot").first.wait_for(state="visible")
    shown.get_by_text("Largest surprise").wait_for()
    names = "plot => plot.data.filter(t => ['your prediction', 'as measured'].includes(t.name)).map(t => t.x.length)"
    assert shown.locator(".js-plotly-plot").first.evaluate(names) == [5, 5]


def test_both_themes_keep_text_legible(lab):
    shown = explorer(lab, "LinearQuantization")
    contrasts = []
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        lab.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        dark = "true" if theme == "JupyterLab Light" else "false"
        lab.page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=dark)
        contrasts.append(shown.evaluate(CONTRAST))
    assert min(contrasts) >= 4.5, contrasts


CONTRAST = """root => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = light(getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor);
    return Math.min(...[...root.querySelectorAll('.js-plotly-plot .xtick text, .x6y6 text')].map(text => {
        const ink = light(getComputedStyle(text).fill);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    }));
}"""


def test_after_a_reload_the_page_shows_the_figures_of_now(lab):
    name = "TruncatedSVD"
    explorer(lab, name)
    lab.python(f"opened[{name!r}].set(rank=0.2).settle(300)")
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.open()
    lab.run_cell(NAMES.index(name) + 1) if lab.cell(NAMES.index(name) + 1).locator(".compedu").count() == 0 else None
    shown = lab.cell(NAMES.index(name) + 1).locator(".compedu")
    shown.locator(".js-plotly-plot .main-svg").first.wait_for(state="attached")
    shown.locator(".compedu-badge.FINAL").wait_for()
    assert_shown_is_computed(lab, shown, shown.locator(".compedu-top input").input_value())
