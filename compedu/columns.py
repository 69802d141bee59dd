"""Rows of text set in columns, as reports, maps of files and replications print them."""

import html
from collections.abc import Collection, Iterator, Sequence


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
        lines = "".join(f"<tr>{''.join(self._cells(row, 'td'))}</tr>" for row in body)
        names = f"<tr>{''.join(self._cells(head, 'th'))}</tr>"
        # Focusable, so that keys can scroll it on a page that is too narrow.
        return f"<table tabindex='0'><thead>{names}</thead><tbody>{lines}</tbody></table>"

    def _cells(self, row: Sequence[str], kind: str) -> Iterator[str]:
        for column, cell in enumerate(row):
            side = "left" if column in self.left else "right"
            # An indented name belongs to the row above; HTML would drop the spaces.
            name = html.escape(cell).replace("  ", "&emsp;")
            yield f"<{kind} style='text-align: {side}'>{name}</{kind}>"
