"""The widgets of an explorer and their content: knobs left, the figure right, words and tables below."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence

import ipywidgets as widgets

from compedu.explorers.figures.figure import LiveFigure
from compedu.explorers.figures.pictures import Picture
from compedu.explorers.figures.pictures.picture import layer_names
from compedu.explorers.figures.places import KNOBS
from compedu.explorers.view import News, State, View
from compedu.explorers.widgets.badge import about_html, badge_html
from compedu.explorers.widgets.browser import Browser
from compedu.explorers.widgets.controls import Control
from compedu.explorers.widgets.predict import Questions
from compedu.explorers.widgets.strip import strip
from compedu.explorers.widgets.style import STYLE
from compedu.explorers.widgets.tables import criteria_table, html_table, layers_table, points_table
from compedu.explorers.words import sentence
from compedu.methods import Method

SHOWN_KNOBS = 3
CHARACTER = 8  # pixels of a character in the code line
DATA_KNOB = "calibration_images"  # it matters only where a method, with its other knobs, uses images
TABS = {
    "Newly wrong": "images that the dense network gets right and this network wrong: dense→now",
    "Newly right": "images that the dense network gets wrong and this network right: dense→now",
    "What runs": "what each layer became, what it costs, and the kernel that actually runs it",
    "Criteria": "the survey's criteria of this network: compression rates, space saving, speed-up",
    "Points": "the points of the trade-off curve as a table",
    "Picture": "the picture's figures for every layer as a table",
    "In words": "gauges and picture in sentences",
}
BUTTONS = {
    "Run": "train and measure the network with these knobs",
    "Cancel": "stop the training; the network is untouched",
    "Reset": "back to the initial knobs, without pins",
    "Pin": "keep the measured point in plot and table for comparison; a fourth pin replaces the first",
}


class Screen:
    """All widgets of an explorer; `show` updates them to a view, sending only what changed.

    `actions` are called by the buttons of the same names, `on_code` with the text of the code line; `csv` returns name
    and content of the file; `on_picture` is called when another layer or another of the `pictures` is chosen.
    """

    def __init__(
        self, view: View, *, pictures: Sequence[Picture], controls: Mapping[str, Control],
        actions: Mapping[str, Callable[[], object]], on_code: Callable[[str], None], csv: Callable[[], tuple[str, str]],
        on_picture: Callable[[], None],
    ):  # fmt: skip
        wide = widgets.Layout(width="calc(100% - 4px)")  # without its margins
        self.choice = widgets.Dropdown(options=[(picture.name, picture) for picture in pictures], layout=wide)
        self.layer = widgets.Dropdown(options=layer_names(view), value=self.picture.start(view.before), layout=wide)
        self.figure = LiveFigure(view, self.picture, self.layer.value)
        self.right = widgets.VBox([self.figure.widget], layout=widgets.Layout(flex="0 0 auto"))
        self.layer.observe(lambda change: on_picture(), "value")
        self.choice.observe(lambda change: self._replace_figure(view, change["old"]), "value")
        self.choice.observe(lambda change: on_picture(), "value")
        self.browser = Browser(lambda: self.figure.refresh(), csv, TABS)
        self.code = widgets.Text(
            continuous_update=False,
            layout=widgets.Layout(width="auto"),
            tooltip="the method as code: change it, or copy it",
        )
        self._on_code = on_code
        self._quiet = False
        self._wide = 280
        self.code.observe(self._on_text, "value")
        self.state = widgets.HTML(layout=widgets.Layout(flex="0 0 auto"))
        self.message = widgets.HTML()
        self.about = widgets.HTML()
        self.buttons = {name: _button(name, tip, actions[name]) for name, tip in BUTTONS.items()}
        self.progress = widgets.IntProgress(layout=widgets.Layout(width="100%", margin="2px 0"))
        self.panes = {name: widgets.HTML() for name in TABS}
        self.tabs = widgets.Tab(list(self.panes.values()), titles=tuple(TABS))
        self.tabs.observe(self._on_tab, "selected_index")
        self.questions = widgets.VBox()
        self.remark = ""
        self._shown = ""
        self.left = self._left(controls, view.method)
        self.widgets = self._assembled()

    def _left(self, controls: Mapping[str, Control], method: Method) -> widgets.Widget:
        self._knobs = {name: control.widget for name, control in controls.items()}
        self._front = widgets.VBox()
        self._rest = rest = widgets.VBox(layout=widgets.Layout(display="none"))
        self._place_knobs(method)
        more = widgets.ToggleButton(
            description="More", layout=widgets.Layout(width="auto"), tooltip="show the other knobs of this method"
        )
        more.observe(lambda change: setattr(rest.layout, "display", None if change["new"] else "none"), "value")
        which = [_labeled("layer in the picture", self.layer)]
        if len(self.choice.options) > 1:
            which.insert(0, _labeled("picture", self.choice))
        self._training = widgets.VBox([widgets.HBox([self.buttons["Run"], self.buttons["Cancel"]]), self.progress])
        row = widgets.HBox([self.buttons["Reset"], self.buttons["Pin"], *([more] if rest.children else [])])
        children = [self._front, self._training, row, rest, *which, self.about]
        left = widgets.VBox(children, layout=widgets.Layout(width=f"{KNOBS}px", flex=f"0 0 {KNOBS}px"))
        left.add_class("compedu-left")
        return left

    def _place_knobs(self, method: Method) -> None:
        """Show the first knobs, and the others below More, including those without effect at these values."""
        idle = {DATA_KNOB} if method.needs == "weights" else set()
        front = [name for name in list(self._knobs)[:SHOWN_KNOBS] if name not in idle]
        shown = tuple(self._knobs[name] for name in front)
        if shown != self._front.children:
            self._rest.children = [widget for name, widget in self._knobs.items() if name not in front]
            self._front.children = shown

    def _assembled(self) -> list[widgets.Widget]:
        top = widgets.HBox([self.code, self.browser, self.state], layout=widgets.Layout(flex_flow="row wrap"))
        top.add_class("compedu-top")
        body = widgets.HBox(
            [self.left, self.right], layout=widgets.Layout(align_items="flex-start", flex_flow="row wrap")
        )
        return [
            widgets.HTML(STYLE, layout=widgets.Layout(display="none")), top, self.message, self.questions, body,
            self.tabs,
        ]  # fmt: skip

    @property
    def picture(self) -> Picture:
        """The shown picture."""
        return self.choice.value

    def _replace_figure(self, view: View, before: Picture) -> None:
        """Draw the chosen picture in a new figure: pictures differ in traces and axes."""
        untouched = self.layer.value == before.start(view.before)  # no other layer was chosen
        layer = self.picture.start(view.before) if untouched else self.layer.value
        old = self.figure
        self.figure = LiveFigure(view, self.picture, layer)
        self.right.children = [self.figure.widget]
        self.layer.value = layer  # only now, as this draws the layer in the new figure at once
        old.widget.close()
        self.fill(view)

    def _widen(self, code: str) -> None:
        """Give the code line room for `code`; it never narrows, so that a moving slider does not move the line."""
        self._wide = max(self._wide, CHARACTER * len(code) + 24)
        self.code.layout.flex = f"1 1 {self._wide}px"

    def _on_text(self, change: dict) -> None:
        if not self._quiet:
            self._on_code(change["new"])

    def _on_tab(self, change: dict) -> None:
        """Give a table its full height; the row of images keeps the explorer small."""
        (self.tabs.add_class if change["new"] else self.tabs.remove_class)("compedu-tall")

    def ask(self, questions: Questions) -> None:
        """Hide all figures, and the knobs, behind questions."""
        self.questions.children = [questions.widget]
        for widget in (self.right, self.left, self.tabs, self.state, self.message):
            widget.layout.display = "none"

    def answer(self) -> None:
        """Show what `ask` hid."""
        self.questions.children = []
        for widget in (self.right, self.left, self.tabs, self.state, self.message):
            widget.layout.display = None

    def note(self, text: str) -> None:
        """Show a remark above the figure."""
        self.remark = text

    def close(self) -> None:
        """Close all widgets, so that nothing keeps the networks alive."""
        for widget in self._all(self.widgets):
            widget.close()

    def _all(self, found: Iterable[widgets.Widget]) -> list[widgets.Widget]:
        return [one for widget in found for one in (*self._all(getattr(widget, "children", ())), widget)]

    def show(self, view: View, looks: int, steps: tuple[int, int], news: News) -> None:
        """Update the screen to the view, of which `news` says what has changed."""
        self._state(view, looks)
        if news == News.TRAINING:
            self.progress.max = steps[1]
            self.progress.value = steps[0]
            self.progress.description = f"{steps[0]}/{steps[1]}"
        lively = news in (News.NETWORK, News.TRAINING) or (self.picture.lively and news == News.KNOBS)
        self.figure.show(view, self.layer.value if lively else None)
        if view.state in (State.FINAL, State.ERROR):
            self.fill(view)

    def _state(self, view: View, looks: int) -> None:
        """Update code line, badge, message and buttons to the view."""
        self._quiet = True
        self.browser.code = code = repr(view.method)
        if view.state != State.ERROR:  # a typing error can be corrected in place
            self.code.value = code
        self._widen(code)
        self._quiet = False
        for widget in (self.right, self.tabs):  # figures that are not current are pale
            widget.remove_class(f"compedu-{self._shown}")
            widget.add_class(f"compedu-{view.state}")
        self._shown = view.state
        self.state.value = badge_html(view)
        self.message.value = message_html(view, self.remark)
        self.about.value = about_html(view, looks)
        self._place_knobs(view.method)
        self._training.layout.display = None if view.method.needs == "training" else "none"
        running = view.state == State.RUNNING
        self.buttons["Run"].disabled = running
        self.buttons["Cancel"].disabled = not running
        self.buttons["Pin"].disabled = view.state != State.FINAL
        self.progress.layout.visibility = "visible" if running else "hidden"

    def fill(self, view: View) -> None:
        """Update tables and words to the view, once a measurement is complete or has failed."""
        report = view.report if view.state == State.FINAL else None
        layer = self.layer.value
        panes = self.panes
        wrong, right = (None, None) if report is None else (report.newly_wrong, report.newly_right)
        panes["Newly wrong"].value = strip(wrong, view.data, view.split, "newly wrong")
        panes["Newly right"].value = strip(right, view.data, view.split, "newly right")
        panes["What runs"].value = layers_table(report)
        panes["Criteria"].value = criteria_table(report)
        panes["Points"].value = points_table(_groups(view))
        panes["Picture"].value = html_table(*self.picture.table(view), f"The picture as a table: {view.method!r}")
        said = in_words(view)
        seen = f"{self.picture.say(view, layer)}."
        panes["In words"].value = f"<p>{html.escape(said)}</p><p>Picture: {html.escape(seen)}</p>"
        self.browser.said = f"{said} Picture: {seen}"
        counts = [f" ({len(flips)})" if flips is not None else "" for flips in (wrong, right)]
        first, second, *others = TABS
        self.tabs.titles = (first + counts[0], second + counts[1], *others)


def _labeled(text: str, field: widgets.Widget) -> widgets.Widget:
    made = widgets.VBox([widgets.HTML(f"<label>{text}</label>"), field])
    made.add_class("compedu-knob")
    return made


def _button(name: str, tip: str, action: Callable[[], object]) -> widgets.Button:
    made = widgets.Button(description=name, tooltip=tip, layout=widgets.Layout(width="auto"))
    made.on_click(lambda button: action())
    return made


def in_words(view: View) -> str:
    """Return the figures of the gauges in a sentence, with the method they belong to."""
    if view.report is None:
        return f"{view.method!r}: nothing is measured yet."
    kind = "" if view.measured else ", a stored point"
    return f"{view.report.method}{kind}. {sentence(view.report, view.baseline, view.measured)}"


def message_html(view: View, remark: str = "") -> str:
    """Return the message of an error with a collapsed traceback, or a remark, or nothing."""
    if not view.message:
        return f"<div class='compedu-note'>{html.escape(remark)}</div>" if remark else ""
    fold = (
        f"<details><summary>full traceback</summary><pre>{html.escape(view.details)}</pre></details>"
        if view.details
        else ""
    )
    return f"<div class='compedu-error' role='alert'>{html.escape(view.message)}{fold}</div>"


def _groups(view: View) -> list[tuple[str, tuple]]:
    """Return the points of the trade-off curve by kind."""
    return [
        ("dense network", (view.baseline,)), ("now", () if view.report is None else (view.report,)),
        *((f"pin {letter}", (pin,)) for letter, pin in zip("ABC", view.pins, strict=False)),
        ("as measured", view.asked), ("stored points", view.points), ("small dense net", view.controls),
        ("at random", view.random_baseline),
    ]  # fmt: skip
