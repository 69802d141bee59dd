"""A notebook with one explorer for each method, and what tests do with them: show, move, compare with the library."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_page import PATIENCE_MS, LabPage, lab_server, notebook

from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.panel.controls import controls_of
from compedu.methods import METHODS, Method

START = """import compedu as ce, torch
from compedu.knobs import knob, method, knobs
from compedu.methods import METHODS, LayerMethod
from compedu.sweeps import method_of
from compedu.testing.trying import QUICK, quick
from compedu.explorers.words import bytes_text
torch.set_num_threads(1)
model, data = ce.load("lenet5", "digits")
data = data.shortened(train=96, validation=200, test=10)
opened = {}
def pair_of(name):
    if name != "BatchNormReestimation":
        return model, data
    normalized, images = ce.load("vgg", "glyphs")
    return normalized, images.shortened(train=32, validation=40, test=10)
def show(cls, **options):
    opened[cls.__name__] = ce.explore(quick(cls), *pair_of(cls.__name__), **options)
    return opened[cls.__name__]"""
BREAKING = """@method
class Breaking(LayerMethod):
    family = "pruning"
    share: float = knob(default=0.5, help="some share", low=0, high=1, slider_range=(0, 1))
    def compress_layer(self, name, layer):
        raise ZeroDivisionError("broken on purpose")
show(Breaking)"""
SHOWN = [f"show(ce.{cls.__name__})" for cls in METHODS]
FULL = """full = ce.explore(ce.MagnitudePruning(sparsity=0.02), *ce.load("lenet5", "digits"))
full"""
RACE = """raced = ce.explore(
    ce.SoftTargetDistillation(student="lenet5(width=0.25)", epochs=2000), model, data, race=True, predict=True)
raced"""
CODE = ".compedu-code"
SLIDER = ".compedu-main input[type=range]"
PLOT = ".compedu-tradeoff .compedu-plot"
NOW = "plot.data?.find(trace => trace.meta === 'now')?.x[0]"
VIEWPORT = {"width": 1400, "height": 1000}
CELLS = [
    START,
    *SHOWN,
    BREAKING,
    "predicted = ce.explore(ce.MagnitudePruning, model, data, predict=True)\npredicted",
    "opened['FilterPruning']",
    FULL,
    RACE,
]
BROKEN, PREDICTED, AGAIN, STORED, RACED = (len(SHOWN) + i for i in (1, 2, 3, 4, 5))
NAMES = [cls.__name__ for cls in METHODS]
COMPUTED = """dense, images = pair_of({code!r}.split("(")[0])
r = ce.measure(method_of({code!r})(dense, images), images, baseline=dense, speed=False)
import json
print(json.dumps([
    f"{{100 * r.accuracy:.1f}} %", f"{{r.correct}} of {{r.total}};", bytes_text(r.file_bytes), r.file_bytes,
]))"""


def kind_of(cls: type[Method]) -> tuple:
    """What the page of a method shares with others of its kind: how it starts, the control in front, the pictures."""
    front = next(control for control in controls_of(cls()).values() if control.places)
    return cls().needs, front.parts["kind"], tuple(picture.name for picture in pictures_of(cls))


def named(trains: bool, pictures: int = 1) -> list:
    """The methods that train, or all others, with so many pictures at least; but for the first of a kind, exhaustive.

    What a page draws is sent to it as plain data, which tests without a browser compare with the library for each
    method.
    """
    first = {}
    for cls in METHODS:
        first.setdefault(kind_of(cls), cls)
    chosen = [cls for cls in METHODS if (cls().needs == "training") == trains and len(pictures_of(cls)) >= pictures]
    return [
        pytest.param(cls.__name__, marks=() if first[kind_of(cls)] is cls else pytest.mark.exhaustive, id=cls.__name__)
        for cls in chosen
    ]


@contextlib.contextmanager
def explorers_lab(browser, folder: Path) -> Iterator[LabPage]:
    """Open the notebook in a JupyterLab of its own, its first cell run."""
    (folder / "explorers.ipynb").write_text(json.dumps(notebook(CELLS)))
    context = browser.new_context(viewport=VIEWPORT)
    with lab_server(folder) as address:
        lab = LabPage(context.new_page(), address, "explorers.ipynb")
        lab.run_cell(0)
        yield lab
        context.close()


@contextlib.contextmanager
def one_test(lab: LabPage, session: pytest.Session) -> Iterator[LabPage]:
    """Lend the page to one test: errors of the page are its own; where it failed, the next one gets a fresh page."""
    failed = session.testsfailed
    lab.problems.clear()
    yield lab
    problems = list(lab.problems)
    if problems or session.testsfailed > failed:
        lab.start_over()
        lab.run_cell(0)
    assert problems == [], problems


def explorer(lab, name: str):
    """Return the explorer of a method on the page, shown if it is not yet."""
    index = NAMES.index(name) + 1
    if lab.python(f"print({name!r} in opened)") == "False":
        lab.run_cell(index)
    shown = lab.cell(index).locator(".compedu")
    shown.scroll_into_view_if_needed()  # figures are drawn where they can be seen
    shown.locator(".main-svg").first.wait_for(state="attached")
    return shown


def settled(lab, shown, name: str) -> str:
    """Wait until all is measured, training where it has to be; return the code that the explorer shows."""
    if lab.python(f"print(opened[{name!r}].method.needs)") == "training":
        shown.get_by_role("button", name="Run", exact=True).click()
    shown.locator(".compedu-badge.FINAL").wait_for()
    return shown.locator(CODE).input_value()


def figures(shown) -> tuple[str, float]:
    """Return the words of the gauges and the bytes of the live point as the page draws them."""
    said = " ".join(shown.locator(".compedu-gauge").all_text_contents())
    return said, shown.locator(PLOT).evaluate(f"plot => {NOW}")


def assert_shown_is_computed(lab, shown, code: str) -> None:
    *words, size = json.loads(lab.python(COMPUTED.format(code=code)))
    lab.page.wait_for_function(
        f"([plot, size]) => {NOW} === size",
        arg=[shown.locator(PLOT).element_handle(), size], timeout=PATIENCE_MS,
    )  # fmt: skip
    said, drawn = figures(shown)
    assert drawn == size
    for word in words:
        assert word in said, f"{code}: {word!r} is not in {said!r}"


TEXTS = """root => {
    const edge = root.getBoundingClientRect().right + 1, found = [];
    const drawn = [...root.querySelectorAll('.compedu-plot')].flatMap(plot => {
        const parts = ['.infolayer', '.xtick', '.ytick', '.compedu-marks'].map(part => `${part} text`);
        const texts = [...plot.querySelectorAll(['.bartext', ...parts].join())];
        return texts.filter(text => text.textContent.trim() && text.style.opacity !== '0').map(text => [plot, text]);
    });
    const said = [...root.querySelectorAll('.compedu-lines div, .compedu-gauge > div:first-child, .compedu-caption, '
        + '.compedu-heading, .compedu-legend span, .compedu label, .compedu-about span')].map(text => [null, text]);
    const boxes = [...drawn, ...said].filter(([, text]) => text.checkVisibility())
        .map(([plot, text]) => [text.textContent, text.getBoundingClientRect(), plot]);
    for (const [i, [one, a, plot]] of boxes.entries()) {
        if (a.right > edge) found.push(`${one} (leaves the explorer by ${a.right - edge})`);
        for (const [other, b, where] of boxes.slice(i + 1))
            if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
                found.push(`${one} | ${other}`);
    }
    return found;
}"""


def assert_texts_are_apart(shown) -> None:
    """Assert that no text of the explorer, ticks and headings of its figures included, runs into another one."""
    overlaps = shown.evaluate(TEXTS)
    assert overlaps == [], f"texts run into each other: {overlaps}"


def moved(lab, shown, before: str) -> None:
    """Wait until the code line shows another method."""
    field = shown.locator(CODE).element_handle()
    lab.page.wait_for_function("([field, before]) => field.value !== before", arg=[field, before])


def assert_figures_follow_the_code(lab, name: str) -> None:
    """Assert that the page shows the figures of its code line at the start, after a key and after a click."""
    shown = explorer(lab, name)
    before = settled(lab, shown, name)
    assert_shown_is_computed(lab, shown, before)
    assert_texts_are_apart(shown)

    slider = shown.locator(SLIDER)
    slider.press("ArrowRight" if slider.input_value() == "0" else "ArrowLeft")
    moved(lab, shown, before)
    by_key = settled(lab, shown, name)
    assert by_key != before
    assert_shown_is_computed(lab, shown, by_key)

    track = slider.bounding_box()
    share = 0.3 if name != "CReLU" else 0.1  # few epochs
    lab.page.mouse.click(track["x"] + share * track["width"], track["y"] + track["height"] / 2)
    moved(lab, shown, by_key)
    lab.python(f"opened[{name!r}].set(**{{k: v for k, v in QUICK.items() if k in knobs(opened[{name!r}].method)}})")
    by_mouse = settled(lab, shown, name)
    assert_shown_is_computed(lab, shown, by_mouse)


DRAWN = """root => [...root.querySelectorAll('.compedu-plot')]
    .map(plot => Number(plot.dataset.marks) || (plot.querySelector('.main-svg') ? plot._fullData.length : 0))"""


def assert_all_is_drawn(lab, shown, name: str) -> None:
    """Assert that each figure of an explorer is on the page with as many traces as the kernel has for it."""
    order = "('accuracy', 'size', 'speed', 'picture', 'tradeoff')"
    made = f"figures = opened[{name!r}].widget.drawn['figures']; print([len(figures[n]['data']) for n in {order}])"
    wanted, drawn = None, []
    end = time.monotonic() + PATIENCE_MS / 1000
    while drawn != wanted and time.monotonic() < end:  # both are asked again: a choice travels there, a figure back
        wanted = sorted(json.loads(lab.python(made)))
        drawn = sorted(shown.evaluate(DRAWN))
        lab.page.wait_for_timeout(50)
    assert drawn == wanted, f"{name}: traces drawn {drawn}, in the kernel {wanted}"


def assert_pictures_can_be_chosen(lab, name: str) -> None:
    """Assert that each picture of the method, once chosen, is drawn and says what it shows."""
    shown = explorer(lab, name)
    chooser = shown.get_by_label("picture", exact=True)
    for picture in pictures_of(METHODS[NAMES.index(name)]):
        chooser.select_option(label=picture.name)
        lab.python(f"opened[{name!r}].settle(300)")
        drawn, said = None, ""
        for _ in range(PATIENCE_MS // 1000):  # both are asked again: the choice travels to the kernel, the figure back
            said = lab.python(
                f"e = opened[{name!r}]; "
                "print(e._screen.picture.name, e._screen.picture.caption(e.view, e._screen.layer), sep=': ')"
            )
            drawn = shown.locator(".compedu-caption").text_content()
            if said == f"{picture.name}: {drawn}":
                break
            lab.page.wait_for_timeout(1000)
        assert said == f"{picture.name}: {drawn}"
        assert_all_is_drawn(lab, shown, name)
        assert_texts_are_apart(shown)
    chooser.select_option(index=0)
