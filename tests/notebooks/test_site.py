"""The site of the chapters: built without a network, read without one, its sliders moving without a kernel."""

import importlib.util
import itertools
import re
import shutil
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from accessibility import grave_faults
from executed_chapters import CHAPTERS, FOLDER, NOTEBOOKS, executed
from exercise_notebook import HIDDEN_TEST, SOLUTION, exercise_notebook, graded
from nbformat import v4
from processes import ROOT, closed_network, network_uses, of_this_project, run

pytestmark = pytest.mark.slow
FIXTURE = "99_fixture"


def building():
    """The module docs/build.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = building()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of all chapters in their fast profile, and of a small one with everything that a page can hold.

    The chapters were executed before, once for all tests; the small one is executed by the building itself.
    """
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(NOTEBOOKS, folder / "notebooks")
    nbformat.write(exercise_notebook(), folder / "notebooks" / f"{FIXTURE}.ipynb")
    for name in CHAPTERS:
        executed(name)
    command = [sys.executable, ROOT / "docs" / "build.py", "site", "--notebooks", "notebooks", "--fast"]
    said = run([*command, "--executed", FOLDER], folder, of_this_project(closed_network(folder)))
    assert network_uses(folder) == []
    told = {name: how for how, name in re.findall(r"^(reusing the executed|executing) (\S+)", said, re.MULTILINE)}
    assert told == dict.fromkeys(map(str, CHAPTERS), "reusing the executed") | {f"{FIXTURE}.ipynb": "executing"}
    return folder / "site"


def pages(site):
    return sorted(site.rglob("*.html"))


class Loaded(HTMLParser):
    """Collects the addresses that a browser fetches by itself while it shows a page, and the text of the page."""

    KINDS = frozenset({"stylesheet", "icon", "preload", "prefetch", "preconnect", "modulepreload", "manifest"})

    def __init__(self, page):
        super().__init__()
        self.addresses, self.text = [], ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "link" and self.KINDS & set(given.get("rel", "").split()):
            self.addresses.append(given.get("href", ""))
        self.addresses += [given[name] or "" for name in ("src", "srcset", "data", "poster") if name in given]
        self.addresses += re.findall(r"url\(([^)]*)\)", given.get("style") or "")

    def handle_data(self, data):
        self.text += data


def leads_outside(address):
    return re.match(r"""\s*['"]?(https?:)?//""", address) is not None


def test_every_chapter_has_a_page(site):
    wanted = {name.with_suffix(".html").as_posix() for name in CHAPTERS} | {f"{FIXTURE}.html"}
    assert wanted <= {page.relative_to(site / "chapters").as_posix() for page in pages(site / "chapters")}
    contents = Loaded(site / "index.html").text
    assert "A small chapter" in contents


def test_no_page_loads_anything_from_another_machine(site):
    for page in pages(site):
        assert [address for address in Loaded(page).addresses if leads_outside(address)] == [], page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        addresses = re.findall(r"url\(([^)]*)\)", text) + re.findall(r"@import\s+([^;]*)", text)
        assert [address for address in addresses if leads_outside(address)] == [], sheet


def test_no_page_and_no_other_file_of_the_site_holds_a_solution(site):
    text = Loaded(site / "chapters" / f"{FIXTURE}.html").text
    assert "def packed_bytes" in text and "YOUR ANSWER HERE" in text
    for file in site.rglob("*"):
        if file.suffix in (".html", ".ipynb", ".txt") or file.name == "searchindex.js":
            text = Loaded(file).text if file.suffix == ".html" else file.read_text(encoding="utf-8")
            # The page for instructors tells how solutions are marked, and holds none.
            marks = () if "instructors" in file.name else ("BEGIN SOLUTION", "BEGIN HIDDEN TESTS")
            for secret in (SOLUTION, HIDDEN_TEST, *marks):
                assert secret not in text, file


def test_the_fast_profile_ran_and_its_cell_is_not_shown(site):
    text = Loaded(site / "chapters" / f"{FIXTURE}.html").text
    assert "images: 100" in text
    assert "# Parameters" not in text and "IMAGES = 2000" in text


def test_a_page_without_a_plot_does_not_load_plotly(site):
    assert "plotly.min.js" not in (site / "index.html").read_text(encoding="utf-8")
    assert "plotly.min.js" in (site / "chapters" / f"{FIXTURE}.html").read_text(encoding="utf-8")


def test_a_page_shows_the_prediction_that_its_sentences_tell_and_no_answer_of_an_exercise(tmp_path):
    blank = "guess = ...  # your prediction in percent\n"
    predicted = "### BEGIN SOLUTION\nguess = 60\n### END SOLUTION\nleft = predict('left', 'How much?', guess, '%')"
    answered = "answer = ...\n### BEGIN SOLUTION\nanswer = 42\n### END SOLUTION"
    cells = [graded(v4.new_code_cell(text), name, solution=True) for name, text in (
        ("predicted", blank + predicted), ("answered", answered),
    )]  # fmt: skip
    told, table = (
        v4.new_output("stream", text=text)
        for text in ("You predicted 60 %; measured: 30 %.", "layer  bytes\nfc1       12\n")
    )
    cells += [v4.new_code_cell("left.reveal(30)", outputs=[told]), v4.new_code_cell("print(report)", outputs=[table])]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "executed.ipynb")
    build.write_page(tmp_path / "executed.ipynb", tmp_path / "page.ipynb")
    shown, exercise, sentence, columns = nbformat.read(tmp_path / "page.ipynb", as_version=4).cells
    assert shown.source.startswith("guess = 60  # ") and "..." not in shown.source
    assert "SOLUTION" not in shown.source and shown.source.endswith("guess, '%')")
    assert exercise.source == "answer = ..."
    assert sentence.outputs[0].text == told.text
    assert sentence.metadata.tags == ["sentences"] and "tags" not in columns.metadata


def open_page(page, path):
    """Show a page of the site from its file; returns the addresses that it asked of other machines, all refused."""
    asked, errors = [], []
    page.context.set_offline(True)
    page.on("request", lambda request: asked.append(request.url) if request.url.startswith(("http", "ws")) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_function("window.MathJax === undefined || window.MathJax.startup?.promise !== undefined")
    page.evaluate("async () => { await window.MathJax?.startup?.promise }")
    assert errors == []
    return asked


@pytest.mark.browser
def test_every_slider_moves_its_figures_by_keys_and_mouse_without_a_kernel_or_a_network(site, page):
    for path in pages(site / "chapters"):
        assert open_page(page, path) == [], path
        explorers, text = page.locator(".compedu").all(), Loaded(path).text
        waiting = text.count("nothing is measured yet")  # those that train, and of which no sweep is shipped
        races = text.count("race=True")  # a page shows their stored seeds
        assert len(explorers) + waiting == len(re.findall(r"\bexplore\(", text)) and waiting <= UNTRAINED + races, path
        for explorer in explorers:
            predict(explorer)
            slider = explorer.locator(SLIDER)
            assert slider.count() == 1, f"{path}: an explorer without a slider: is its sweep shipped?"
            moved(page, explorer, lambda slider=slider: slider.press("Home" if slider.input_value() != "0" else "End"))
            moved(page, explorer, lambda slider=slider: click(page, slider))


UNTRAINED = 1  # explorers of a page that show nothing before their Run is pressed
SLIDER = ".compedu-main input[type=range]"
NOW = """root => {
    const plot = root.querySelector('.compedu-tradeoff .compedu-plot');
    return JSON.stringify([plot._fullData?.find(trace => trace.meta === 'now')?.x,
        root.querySelector('.compedu-gauge').textContent, root.querySelector('.compedu-code').value]);
}"""


def predict(explorer):
    """Answer what an explorer asks first, if it asks."""
    for field in explorer.locator(".compedu-asked input").all():
        field.fill("50")
    if explorer.get_by_role("button", name="Commit").count():
        assert not explorer.locator(SLIDER).is_visible()
        explorer.get_by_role("button", name="Commit").click()
        explorer.get_by_text("Largest surprise").wait_for()


def moved(page, explorer, move):
    """Move a slider, and wait until curve, gauges and code are those of another setting."""
    explorer.scroll_into_view_if_needed()
    page.wait_for_function(f"root => !({NOW})(root).startsWith('[null')", arg=explorer.element_handle())
    before = explorer.evaluate(NOW)
    move()
    page.wait_for_function(f"([root, before]) => ({NOW})(root) !== before", arg=[explorer.element_handle(), before])


def click(page, slider):
    box = slider.bounding_box()
    share = 0.75 if slider.input_value() == "0" else 0.1
    page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)


@pytest.mark.browser
def test_a_setting_stands_in_the_address_and_comes_back_with_it(site, page):
    path = site / "chapters" / f"{FIXTURE}.html"
    open_page(page, path)
    page.locator(SLIDER).press("End")
    code = page.locator(".compedu-code").input_value()
    assert "#MagnitudePruning.sparsity=" in page.url and code != "MagnitudePruning(sparsity=0.5)"
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.locator(".compedu-code").wait_for()
    assert page.locator(".compedu-code").input_value() == code


@pytest.mark.browser
def test_sliders_lie_on_the_screen_of_a_telephone(site, page):
    page.set_viewport_size({"width": 390, "height": 844})
    for path in pages(site / "chapters"):
        open_page(page, path)
        for box in (slider.bounding_box() for slider in page.locator(SLIDER).all()):
            assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 390), path


@pytest.mark.browser
def test_no_page_is_wider_than_the_screen_of_a_telephone(site, page):
    page.set_viewport_size({"width": 390, "height": 844})
    for path in pages(site):
        open_page(page, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_each_page_of_the_contents_leads_to_its_neighbors_by_their_titles(site):
    chapters = ["00_start_here", "01_tour", "02_pruning", "03_quantization", "07_low_rank", "09_distillation"]
    for before, after in itertools.pairwise(chapters):
        title = re.search(r"<h1>(.*?)<a", (site / "chapters" / f"{after}.html").read_text(encoding="utf-8"))[1]
        foot = (site / "chapters" / f"{before}.html").read_text(encoding="utf-8").split("prev-next-footer")[-1]
        assert f'href="{after}.html"' in foot and title in foot
        back = (site / "chapters" / f"{after}.html").read_text(encoding="utf-8").split("prev-next-footer")[-1]
        assert f'href="{before}.html"' in back


@pytest.mark.browser
def test_no_page_has_a_serious_fault_of_accessibility(site, page):
    for path in pages(site):
        if "_static" in path.parts:  # pieces of the theme, which are no pages
            continue
        open_page(page, path)
        assert grave_faults(page) == [], path
        for explorer in page.locator(".compedu").all():
            predict(explorer)
        assert grave_faults(page) == [], path


@pytest.mark.browser
def test_a_plain_figure_is_drawn_as_well(site, page):
    open_page(page, site / "chapters" / f"{FIXTURE}.html")
    page.wait_for_function("document.querySelector('.plotly-graph-div .cartesianlayer .trace')")
    assert page.locator(".plotly-graph-div .cartesianlayer .trace").count() == 1


@pytest.mark.browser
def test_formulas_are_drawn_from_the_vendored_file(site, page):
    assert open_page(page, site / "chapters" / f"{FIXTURE}.html") == []
    page.wait_for_selector("mjx-container svg")
    assert page.locator("mjx-container svg").count() == 2
    for path in pages(site):
        assert open_page(page, path) == [], path
        assert page.locator("mjx-merror, [data-mml-node='merror']").count() == 0, path
