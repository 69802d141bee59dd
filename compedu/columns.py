"""Rows of text set in columns, as reports, maps of files and replications print them."""

import html
from collections.abc import Collection, Iterable, Sequence


def in_columns(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Return `rows` as lines, the columns numbered in `left` aligned left, the others, numbers, right.

    >>> in_columns([("layer", "bytes"), ("fc1", "12")], left={0})
    ['layer  bytes', 'fc1       12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cells(row, widths, left)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], left: Collection[int]) -> list[str]:
    return [
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def html_table(
    head: Iterable[str],
    rows: Iterable[Iterable[object]],
    caption: str = "",
    left: Collection[int] | None = None,
    **attributes: str,
) -> str:
    """Return an HTML table with column heads, and with a caption if one is given; `attributes` are those of the table.

    The columns numbered in `left` are aligned left and the others right; without it, the page decides.
    """
    given = "".join(f" {name.rstrip('_')}='{html.escape(value)}'" for name, value in attributes.items())
    said = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    top = _html_row("th scope='col'", head, left)
    body = "".join(_html_row("td", row, left) for row in rows)
    return f"<table{given}>{said}<thead>{top}</thead><tbody>{body}</tbody></table>"


def _html_row(kind: str, row: Iterable[object], left: Collection[int] | None) -> str:
    """Return a row of a table; a figure and its unit stay on one line, and a name stays indented."""
    cells = []
    for column, value in enumerate(row):
        text = html.escape(str(value)).replace(" %", "&nbsp;%").replace("  ", "&emsp;")
        side = "" if left is None else f" style='text-align: {'left' if column in left else 'right'}'"
        cells.append(f"<{kind}{side}>{text}</{kind[:2]}>")
    return f"<tr>{''.join(cells)}</tr>"


class Columns:
    """Rows of text, the first one a head: lines in columns where they are printed, and a table in a notebook.

    The columns numbered in `left` are aligned left, the others, numbers, right.
    """

    def __init__(self, rows: Sequence[Sequence[str]], left: Collection[int]):
        self.rows = rows
        self.left = left

    def __repr__(self) -> str:
        """Return the lines."""
        return "\n".join(in_columns(self.rows, self.left))

    def _repr_html_(self) -> str:
        head, *body = self.rows
        return html_table(head, body, left=self.left, tabindex="0")  # so that keys can scroll it on a narrow page
