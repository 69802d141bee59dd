"""Rows of text set in columns, as reports and maps of files print them."""

from collections.abc import Collection, Sequence


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
