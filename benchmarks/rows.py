"""Tables whose finished rows are kept: each is measured once for one state of the code, however often one starts."""

import argparse
import ast
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from table import circumstances, grid

from compedu.writing import write_whole


def bare(code: str) -> str:
    """Return `code` without comments and docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def digest(*parts: Any) -> str:
    """Return a short identity of what rows depend on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def kept_rows(path: Path, columns: Sequence[str], fingerprint: str) -> dict[str, tuple[str, ...]]:
    """Return the rows of an earlier run that still hold, by their first cell."""
    text = path.read_text() if path.exists() else ""
    if f"<!-- {fingerprint} -->" not in text:
        return {}
    rows = [
        tuple(cell.strip() for cell in line[1:-1].split(" | ")) for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    return {row[0]: row for row in rows if len(row) == len(columns) and row[0] != columns[0] and "---" not in row[0]}


def write_rows(path: Path, head: str, columns: Sequence[str], rows: Sequence[Sequence[str]], fingerprint: str) -> None:
    """Write a table, whole or not at all."""
    text = f"{head}\n{grid(columns, rows)}\n\n{circumstances()}\n\n<!-- {fingerprint} -->\n"
    write_whole(path, text.encode())


def rows_options(about: str, results: Path, given: Sequence[str] | None) -> argparse.Namespace:
    """Return what a command line asks for: `quick`, `fresh`, and `out`, the file with the table."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="a few small networks: it runs, no more")
    parser.add_argument("--fresh", action="store_true", help="measure all networks again")
    parser.add_argument("--out", type=Path, default=results, help="the file with the table")
    asked = parser.parse_args(given)
    if asked.quick and asked.out == results:
        parser.error("--quick measures nothing worth keeping: name another file with --out")
    return asked
