"""Every chapter runs from top to bottom: papermill in the fast profile, then nbval over what it checks.

Each is executed once for all tests (`executed_chapters`), as a page shows it: explorers compute before a cell ends.
Live explorers, with a worker beside the cells, run in the chapters that learners hand in (tests/grading).
"""

import re
import subprocess
import sys
from types import SimpleNamespace

import executed_chapters
import nbformat
import pytest
from executed_chapters import CHAPTERS, NOTEBOOKS
from nbformat import v4

from compedu import execution
from compedu.execution import MADE_WITH, CellsShown, execute, fast_profile, is_executed


@pytest.fixture(scope="module", params=CHAPTERS, ids=str)
def executed(request):
    """The path of one chapter, executed in its fast profile."""
    return executed_chapters.executed(request.param)


def test_every_code_cell_ran(executed):
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    assert cells and all(cell.execution_count for cell in cells if cell.source.strip())


def test_every_settle_returned_a_report(executed):
    settled = [cell for cell in nbformat.read(executed, as_version=4).cells if ".settle(" in cell.source]
    assert settled
    for cell in settled:
        printed = "".join(output.get("text", "") for output in cell.outputs)
        assert re.search(r"accuracy\s+\d+\.\d+%, 95 % interval", printed), f"no report after {cell.source!r}"


def test_the_fast_profile_changes_sizes_only(executed):
    ends = [name for name in CHAPTERS if executed.parts[-len(name.parts) :] == name.parts]
    source = NOTEBOOKS / max(ends, key=lambda name: len(name.parts))  # a chapter and its gallery have one name
    assert fast_profile(source) and all(type(value) is int for value in fast_profile(source).values())
    ran = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    written = [cell for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "code"]
    assert len(ran) == len(written) + 1  # papermill's own cell of settings


def test_an_executed_chapter_holds_no_widget_state(executed):
    assert "widgets" not in nbformat.read(executed, as_version=4).metadata
    assert executed.stat().st_size < 3_000_000


def test_a_copy_counts_as_executed_only_for_the_chapter_as_it_is_in_its_profile_and_to_its_end(tmp_path):
    name = CHAPTERS[0]
    copy = executed_chapters.executed(name)
    assert is_executed(copy, NOTEBOOKS / name, fast=True)
    assert not is_executed(copy, NOTEBOOKS / name, fast=False)
    assert not is_executed(tmp_path / "nothing.ipynb", NOTEBOOKS / name, fast=True)
    changed = nbformat.read(NOTEBOOKS / name, as_version=4)
    changed.cells[0].source += " More."
    nbformat.write(changed, tmp_path / "changed.ipynb")
    assert not is_executed(copy, tmp_path / "changed.ipynb", fast=True)
    older = nbformat.read(copy, as_version=4)
    older.metadata[MADE_WITH] = "another package"
    nbformat.write(older, tmp_path / "older.ipynb")
    assert not is_executed(tmp_path / "older.ipynb", NOTEBOOKS / name, fast=True)
    stopped = nbformat.read(copy, as_version=4)
    [cell for cell in stopped.cells if cell.cell_type == "code"][-1].execution_count = None
    nbformat.write(stopped, tmp_path / "stopped.ipynb")
    assert not is_executed(tmp_path / "stopped.ipynb", NOTEBOOKS / name, fast=True)


def test_a_log_names_the_cells_that_took_long_and_no_others(monkeypatch, capsys):
    now = iter([0.0, 0.0, 0.0, 1.0, 1.0, 9.0, 9.0, 9.5])
    monkeypatch.setattr(execution, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with CellsShown("chapter", 3, redrawn=True) as shown:  # no terminal: a log
        for number, source in enumerate(("# quick", "wait(8)\nmore", "quick()")):
            shown.begins(v4.new_code_cell(source), number)
    assert capsys.readouterr().out == "chapter: cell 2 of 3 took 8 s  wait(8) more\n"


def test_an_unknown_way_to_show_progress_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="progress='bar': allowed are '', 'line', 'log'"):
        execute(NOTEBOOKS / CHAPTERS[0], tmp_path / "copy.ipynb", progress="bar")


def what_is_checked(notebook) -> list:
    """The cells up to the first imports, and those whose output nbval compares: no other cell changes that."""
    first = next(i for i, cell in enumerate(notebook.cells) if "import compedu as ce" in cell.source)
    marked = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert marked and not any(cell in notebook.cells[: first + 1] for cell in marked)
    return notebook.cells[: first + 1] + marked


def test_nbval_finds_the_checked_outputs_again(executed, tmp_path):
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = what_is_checked(notebook)
    checked = tmp_path / "checked.ipynb"
    nbformat.write(notebook, checked)
    command = [
        sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300", "-q", "-p", "no:cacheprovider",
    ]  # fmt: skip
    done = subprocess.run([*command, str(checked), "--rootdir", str(checked.parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d+ passed", done.stdout)
