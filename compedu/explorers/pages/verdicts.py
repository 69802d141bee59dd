"""The verdict on a claim as a figure: every effect with its interval, and the margin that decides."""

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
KEY = (
    "◆ decides   □ control   ○ finding   ━ interval, in the color of its verdict   ┃ margin   ┊ no effect<br>"
    f"{RULE_IN_WORDS}"
)
WIDTH = 680  # pixels, the width of a page's column
WORDS = 112  # pixels at the right, for the verdicts
NAME_WIDTH = 30  # characters in a line
VERDICT_WIDTH = 16
BREAK = "<br>"
TIMES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # ticks of a logarithmic axis


def forest(judgment: Judgment, unit: str | None = None) -> go.Figure:
    """Return the forest plot of a judgment: a row for each part, with its margin as a bar and its verdict at the right.

    Open marks are controls and findings, which decide nothing by themselves; the dotted line marks no effect. Ratios
    have a logarithmic axis. A key is above. Parts of different units share no axis: `unit` says which are drawn. Raises
    `ValueError` if it is none of theirs, and if they have several and it is not given.
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
    rows = [one for one in reversed(judgment.parts) if one.part.rule.unit == unit]
    names = [_lines(one.part.name, NAME_WIDTH) for one in rows]
    for row, one in enumerate(rows):
        figure.add_scatter(**_effect(row, one))
    figure.add_scatter(
        x=[one.part.rule.margin for one in rows], y=list(range(len(rows))), mode="markers", cliponaxis=False,
        marker={"symbol": "line-ns", "size": 24, "line": {"width": 2, "color": TEXT}},
        hovertemplate="margin %{x:.3g}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=rule.nothing, line={"color": TEXT, "dash": "dot", "width": 1})
    figure.update_layout(
        showlegend=False, annotations=[_key(), *(_verdict(row, one) for row, one in enumerate(rows))],
        xaxis={"title": f"{unit}: further right is more as the claim says", "zeroline": False} | scale,
        yaxis={"tickvals": list(range(len(rows))), "ticktext": names, "automargin": True,
               "range": [-0.7, len(rows) - 0.3], "showgrid": False, "zeroline": False},
    )  # fmt: skip
    row_height = LINE * max(len(name.split(BREAK)) for name in names) + BETWEEN
    return styled(figure, width=WIDTH, height=112 + row_height * len(rows), l=10, r=WORDS, t=52)


def _key() -> dict:
    """Return the lines above the plot: the meaning of the marks, and the rule of the verdict."""
    return {
        "text": KEY, "xref": "paper", "yref": "paper", "x": 1, "y": 1, "xanchor": "right", "yanchor": "bottom",
        "xshift": WORDS - 8, "yshift": 6, "showarrow": False, "align": "right",
    }  # fmt: skip


def _verdict(row: int, one: Judged) -> dict:
    """Return the verdict of a part, at the right of its row, outside the plot."""
    return {
        "text": _lines(one.came_out, VERDICT_WIDTH), "align": "left", "showarrow": False,
        "xref": "paper", "x": 1, "y": row, "xanchor": "left", "xshift": 8,
    }  # fmt: skip


def _lines(text: str, width: int) -> str:
    """Return `text` broken into lines of at most `width` characters."""
    return BREAK.join(textwrap.wrap(text, width))


def _effect(row: int, one: Judged) -> dict:
    effect = one.effect
    color = COLORS[one.verdict]
    symbol = SYMBOLS[one.part.role]
    return {
        "x": [effect.mean], "y": [row], "mode": "markers", "text": [one.came_out], "cliponaxis": False,
        "marker": {"size": 11, "color": color, "symbol": symbol, "line": {"width": 2, "color": color}},
        "error_x": {"type": "data", "symmetric": False, "array": [effect.high - effect.mean],
                    "arrayminus": [effect.mean - effect.low], "color": color, "thickness": 2},
        "hovertemplate": f"{one.part.name}: {effect.mean:.3g} ({effect.low:.3g} to {effect.high:.3g})<extra></extra>",
    }  # fmt: skip
