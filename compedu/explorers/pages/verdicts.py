"""The verdict on a claim as a figure: every effect with its interval, and the margin that decides."""

import itertools
import textwrap

import plotly.graph_objects as go

from compedu.claims.judgment import Judged, Judgment
from compedu.claims.verdict import RULE_IN_WORDS, Verdict
from compedu.explorers.figures.colors import BLUE, GRAY, ORANGE, PURPLE, TEXT
from compedu.explorers.pages.standalone import StandaloneFigure, styled

COLORS = {Verdict.CONFIRMED: BLUE, Verdict.REFUTED: ORANGE, Verdict.UNDECIDED: GRAY, Verdict.PROXY: PURPLE}
SYMBOLS = {"verdict": "diamond", "control": "square-open", "finding": "circle-open"}
LINE = 15  # pixels, of a name that takes several
BETWEEN = 14  # pixels, of two rows
BREAK = "<br>"
KEY = (
    "◆ decides   □ control   ○ finding   ━ interval, in the color of its verdict   ┃ margin   ┊ no effect"
    f"{BREAK}{RULE_IN_WORDS}"
)
HEAD = 70  # pixels above the plot, for three lines of words
FOOT = 46  # pixels below it, for the axis
WIDTH = 680  # pixels, the width of a page's column
WORDS = 146  # pixels at the right, for the verdicts and the figures
NAME_WIDTH = 30  # characters in a line
VERDICT_WIDTH = 16
TIMES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # ticks of a logarithmic axis


def forest(judgment: Judgment, unit: str | None = None) -> go.Figure:
    """Return the forest plot of a judgment: a row for each part, its margin a bar, its verdict and mean at the right.

    Open marks are controls and findings, which decide nothing by themselves; the dotted line marks no effect. Ratios
    have a logarithmic axis. The verdict on the whole claim and a key are above. Parts of different units share no axis:
    `unit` says which are drawn. Raises `ValueError` if it is none of theirs, and if they have several and it is not
    given.
    """
    rules = {one.part.rule.unit: one.part.rule for one in judgment.parts}
    if (unit is None and len(rules) > 1) or (unit is not None and unit not in rules):
        raise ValueError(
            f"a forest plot has one axis, the parts have the units {', '.join(sorted(rules))}, and `unit` is {unit!r}: "
            "name one of them"
        )
    unit, rule = next((name, rule) for name, rule in rules.items() if unit in (None, name))
    scale = {"type": "log", "tickvals": TIMES} if rule.ratio else {}
    figure = StandaloneFigure()
    rows = [_Row(one) for one in reversed(judgment.parts) if one.part.rule.unit == unit]
    ends = list(itertools.accumulate(row.height for row in rows))
    middles = [end - row.height / 2 for end, row in zip(ends, rows, strict=True)]
    for y, row in zip(middles, rows, strict=True):
        figure.add_scatter(**_effect(y, row.one))
    figure.add_scatter(
        x=[row.one.part.rule.margin for row in rows], y=middles, mode="markers", cliponaxis=False,
        marker={"symbol": "line-ns", "size": 24, "line": {"width": 2, "color": TEXT}},
        hovertemplate="margin %{x:.3g}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=rule.nothing, line={"color": TEXT, "dash": "dot", "width": 1})
    figure.update_layout(
        showlegend=False,
        annotations=[_key(judgment.verdict), *(_verdict(y, row) for y, row in zip(middles, rows, strict=True))],
        xaxis={"title": f"{unit}: further right is more as the claim says", "zeroline": False} | scale,
        yaxis={"tickvals": middles, "ticktext": [row.name for row in rows], "automargin": True,
               "range": [0, ends[-1]], "showgrid": False, "zeroline": False},
    )  # fmt: skip
    return styled(figure, width=WIDTH, height=HEAD + FOOT + ends[-1], l=10, r=WORDS, t=HEAD, b=FOOT)


class _Row:
    """A row of the plot: the lines of its name and of how it came out, and its height in pixels."""

    def __init__(self, one: Judged):
        self.one = one
        self.name = _lines(one.part.name, NAME_WIDTH)
        effect = one.effect
        found = f"{effect.mean:.2f} ({effect.low:.2f} to {effect.high:.2f})"
        self.words = f"{_lines(one.came_out, VERDICT_WIDTH)}{BREAK}{found}"
        most = max(len(text.split(BREAK)) for text in (self.name, self.words))
        self.height = LINE * most + BETWEEN


def _key(verdict: Verdict) -> dict:
    """Return the lines above the plot: the verdict on the claim, the meaning of the marks, the rule of a verdict."""
    return {
        "text": f"<b>The claim: {verdict}</b>{BREAK}{KEY}", "xref": "paper", "yref": "paper", "x": 1, "y": 1,
        "xanchor": "right", "yanchor": "bottom", "xshift": WORDS - 8, "yshift": 6,
        "showarrow": False, "align": "right",
    }  # fmt: skip


def _verdict(y: float, row: _Row) -> dict:
    """Return how a part came out, at the right of its row, outside the plot."""
    return {
        "text": row.words, "align": "left", "showarrow": False,
        "xref": "paper", "x": 1, "y": y, "xanchor": "left", "xshift": 8,
    }  # fmt: skip


def _lines(text: str, width: int) -> str:
    """Return `text` broken into lines of at most `width` characters."""
    return BREAK.join(textwrap.wrap(text, width))


def _effect(y: float, one: Judged) -> dict:
    effect = one.effect
    color = COLORS[one.verdict]
    symbol = SYMBOLS[one.part.role]
    return {
        "x": [effect.mean], "y": [y], "mode": "markers", "text": [one.came_out], "cliponaxis": False,
        "marker": {"size": 11, "color": color, "symbol": symbol, "line": {"width": 2, "color": color}},
        "error_x": {"type": "data", "symmetric": False, "array": [effect.high - effect.mean],
                    "arrayminus": [effect.mean - effect.low], "color": color, "thickness": 2},
        "hovertemplate": f"{one.part.name}: {effect.mean:.3g} ({effect.low:.3g} to {effect.high:.3g})<extra></extra>",
    }  # fmt: skip
