"""Release of chapters: what nbgrader and we cut out, what is refused; nbgrader's cycle stands in test_grading.py."""

import re

import nbformat
import pytest
from exercise_notebook import HIDDEN_TEST, SOLUTION, exercise_notebook
from processes import ROOT

from compedu.release import STUB, chapters, release, without_solutions


def regions(notebook, name):
    """The lines inside all `### BEGIN name` regions."""
    pattern = rf"^[^\n]*### BEGIN {name}[^\n]*\n(.*?)^[^\n]*### END {name}"
    found = [match for cell in notebook.cells for match in re.findall(pattern, cell.source, re.DOTALL | re.MULTILINE)]
    return [line.strip() for region in found for line in region.splitlines() if line.strip()]


def outside_regions(notebook):
    """The lines of a notebook that every learner may see."""
    pattern = r"### BEGIN (SOLUTION|HIDDEN TESTS).*?### END \1"
    sources = [re.sub(pattern, "", cell.source, flags=re.DOTALL) for cell in notebook.cells]
    return {line.strip() for source in sources for line in source.splitlines()}


def test_no_released_chapter_holds_a_solution_or_a_hidden_test(tmp_path):
    source, destination = tmp_path / "source", tmp_path / "released"
    source.mkdir()
    nbformat.write(exercise_notebook(), source / "fixture.ipynb")
    for folder in (source, ROOT / "notebooks"):
        for name in release(folder, destination):
            author, released = nbformat.read(folder / name, 4), nbformat.read(destination / name, 4)
            shown = {line.strip() for cell in released.cells for line in cell.source.splitlines()}
            secret = {*regions(author, "SOLUTION"), *regions(author, "HIDDEN TESTS")} - outside_regions(author)
            assert shown & secret == set(), name
            assert "### BEGIN" not in (destination / name).read_text(encoding="utf-8")
            assert all(not cell.get("outputs") for cell in released.cells), name


def test_the_fixture_has_something_to_hide():
    author = exercise_notebook()
    assert regions(author, "SOLUTION") == [SOLUTION] and regions(author, "HIDDEN TESTS") == [HIDDEN_TEST]


def test_test_cells_are_locked_and_solution_cells_are_not():
    cells = without_solutions(exercise_notebook(), "fixture").cells
    kinds = {cell.metadata.nbgrader.grade_id: cell.metadata for cell in cells if "nbgrader" in cell.metadata}
    assert kinds["whole-bytes"]["editable"] is False and kinds["whole-bytes"]["deletable"] is False
    assert kinds["packed-bytes"].get("editable", True) is True


def test_a_released_cell_has_one_place_to_fill():
    author = exercise_notebook()
    author.cells[6].source = (
        "guess = ...  # in percent\n### BEGIN SOLUTION\nguess = 60\n### END SOLUTION\nprint(guess)\n"
        "def twice(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    )
    released = without_solutions(author, "fixture").cells[6].source
    assert released == f"guess = ...  # in percent\nprint(guess)\ndef twice(x):\n    {STUB}"


@pytest.mark.parametrize(
    ("cell", "source", "message"),
    [
        (6, "### BEGIN SOLUTION\nx = 1", "cell 6, line 2: 'x = 1'.*'### END SOLUTION' is missing"),
        (6, "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "cell 6, line 2:.*SOLUTION is still open"),
        (6, "x = 1\n### END SOLUTION", "cell 6, line 2: '### END SOLUTION': nothing is open"),
        (8, "### BEGIN HIDDEN TESTS\nassert x\n### END SOLUTION", "cell 8, line 3:.*HIDDEN TESTS is still open"),
        (8, "### BEGIN HIDDEN TESTS\nassert x", "cell 8, line 2:.*'### END HIDDEN TESTS' is missing"),
        (8, "### BEGIN MARK SCHEME\nassert x", "'### END MARK SCHEME' is missing"),
    ],
)
def test_a_region_that_is_not_closed_is_refused_with_the_chapters_name(cell, source, message):
    author = exercise_notebook()
    author.cells[cell].source = source
    with pytest.raises(ValueError, match=f"chapter seven.*{message}"):
        without_solutions(author, "chapter seven")


@pytest.mark.parametrize("mark", [
    "### START HIDDEN TEST", "### START HIDDEN TESTS", "### BEGIN HIDDEN TEST", "### begin hidden tests",
    "### Begin Hidden Tests", "## BEGIN HIDDEN TESTS", "#BEGIN HIDDEN TESTS", "###BEGIN HIDDEN TESTS",
    "BEGIN HIDDEN TESTS", "###  BEGIN HIDDEN TESTS", "### BEGIN  HIDDEN TESTS", "### BEGIN HIDDEN_TESTS",
    "### BEGIN HIDEN TESTS", "### BEGINN HIDDEN TESTS", "### HIDDEN TESTS", "### BEGIN TESTS", "### BEGIN SOLUTIONS",
    "### BEGIN SOLUTON", "### SOLUTION", "# begin solution", "x = 1  ### BEGIN HIDDEN TESTS", "# END HIDDEN TESTS ###",
    "### BEGIN: HIDDEN TESTS", "### BEGIN MARKING SCHEME", "# --- start of hidden tests", "# End of the solution",
    "###\u00a0BEGIN HIDDEN TESTS", "# HIDDEN TEST BEGIN", "# SOLUTION BEGIN", "# TESTS HIDDEN BEGIN",
    "# solution starts here", "# BEGIN ANSWER", "# The answer ends here", "# hidden_tests: end", "# Solutions begin",
    "# mark scheme starts",
])  # fmt: skip
def test_a_line_that_looks_like_a_mark_and_is_none_is_refused(mark):
    author = exercise_notebook()
    author.cells[8].source = f"x = 1\n{mark}\nassert packed_bytes(9, 1) == 2\n### END HIDDEN TESTS"
    with pytest.raises(
        ValueError, match="chapter seven.*cell 8, line 2: .* is not a marker; the markers are ### BEGIN SOL"
    ):
        without_solutions(author, "chapter seven")


@pytest.mark.parametrize("kind, line", [
    ("markdown", "### Two networks, the same images"), ("markdown", "The hidden tests begin behind the solution."),
    ("code", "# the end of a solution found"),
    ("code", "start_tests = tests[0]"), ("code", "end_solution = 1  # the end"),
    ("code", "## a heading"), ("code", "# hidden layers begin here"), ("code", "# the solution is at the end"),
    ("code", "# answers are endless"), ("code", "# a test starts here"),
])  # fmt: skip
def test_a_line_that_only_uses_such_words_is_none(kind, line):
    author = exercise_notebook()
    author.cells[1 if kind == "code" else 0].source = line
    assert without_solutions(author, "chapter seven").cells[1 if kind == "code" else 0].source == line


def test_a_solution_in_a_cell_that_is_not_marked_is_refused():
    author = exercise_notebook()
    del author.cells[6].metadata["nbgrader"]
    with pytest.raises(ValueError, match="chapter seven.*non-solution cell"):
        without_solutions(author, "chapter seven")


def test_a_release_never_touches_the_authors_notebooks(tmp_path):
    source = tmp_path / "notebooks"
    source.mkdir()
    nbformat.write(exercise_notebook(), source / "fixture.ipynb")
    before = (source / "fixture.ipynb").read_bytes()
    for destination in (source, tmp_path, source / "released"):
        with pytest.raises(ValueError, match="overlap"):
            release(source, destination)
    assert (source / "fixture.ipynb").read_bytes() == before


def test_a_release_removes_the_chapters_of_an_earlier_one(tmp_path):
    source, destination = tmp_path / "notebooks", tmp_path / "released"
    source.mkdir()
    nbformat.write(exercise_notebook(), source / "old.ipynb")
    release(source, destination)
    (source / "old.ipynb").rename(source / "new.ipynb")
    (destination / "notes.txt").write_text("mine")
    assert [path.name for path in release(source, destination)] == ["new.ipynb"]
    assert [path.name for path in chapters(destination)] == ["new.ipynb"] and (destination / "notes.txt").exists()
