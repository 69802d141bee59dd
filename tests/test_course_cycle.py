"""nbgrader's whole cycle on the exercises of a chapter: release, autograde, feedback, without a network or widgets."""

import csv
import io
import re

import nbformat
import pytest
from exercise_notebook import HIDDEN_TEST, SOLUTION, exercise_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from processes import ROOT, closed_network, network_uses, run

from compedu.execution import fast_profile
from compedu.release import STUB, chapters, release, without_solutions

CHAPTER = ROOT / "notebooks" / "00_start_here.ipynb"
CONFIGURATION = (ROOT / "docs" / "nbgrader_config.py").read_text()


def author_version():
    """The first chapter in its fast profile; the small chapter of the tests where there is none."""
    if not CHAPTER.exists():
        return exercise_notebook()
    return parameterize_notebook(load_notebook_node(str(CHAPTER)), fast_profile(CHAPTER))


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


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder after the whole cycle, with one learner who solved everything and one who did nothing."""
    folder = tmp_path_factory.mktemp("course")
    environment = closed_network(folder) | {"COMPEDU_SYNC": "1"}
    (folder / "nbgrader_config.py").write_text(CONFIGURATION)
    author = author_version()

    def nbgrader(*arguments):
        return run(["nbgrader", *arguments], folder, environment)

    def put(notebook, place):
        (folder / place).mkdir(parents=True)
        nbformat.write(notebook, folder / place / "chapter.ipynb")

    put(author, "source/start")
    nbgrader("generate_assignment", "start")
    put(author, "submitted/solved/start")
    put(nbformat.read(folder / "release" / "start" / "chapter.ipynb", 4), "submitted/untouched/start")
    nbgrader("autograde", "start")
    nbgrader("generate_feedback", "start")
    nbgrader("export", "--to", "grades.csv")
    assert network_uses(folder) == []
    return folder


def grades(course):
    rows = csv.DictReader(io.StringIO((course / "grades.csv").read_text()))
    return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in rows}


@pytest.mark.slow
def test_the_solved_chapter_has_full_marks_and_the_untouched_one_less(course):
    marks = grades(course)
    score, most = marks["solved"]
    assert score == most > 0
    assert marks["untouched"][0] < most and marks["untouched"][1] == most


@pytest.mark.slow
def test_feedback_is_a_page_for_each_learner(course):
    for learner in ("solved", "untouched"):
        page = (course / "feedback" / learner / "start" / "chapter.html").read_text(encoding="utf-8")
        assert "Score" in page


@pytest.mark.slow
def test_grading_stores_no_widgets(course):
    for learner in ("solved", "untouched"):
        graded = nbformat.read(course / "autograded" / learner / "start" / "chapter.ipynb", 4)
        assert "widgets" not in graded.metadata


@pytest.mark.slow
def test_our_release_is_the_one_that_nbgrader_makes(course):
    theirs = nbformat.read(course / "release" / "start" / "chapter.ipynb", 4)
    ours = without_solutions(author_version(), "chapter")
    assert [cell.source for cell in ours.cells] == [cell.source for cell in theirs.cells]
    checksums = [[cell.metadata.get("nbgrader", {}).get("checksum") for cell in book.cells] for book in (ours, theirs)]
    assert checksums[0] == checksums[1] and any(checksums[0])


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
    "###\u00a0BEGIN HIDDEN TESTS",
])  # fmt: skip
def test_a_line_that_looks_like_a_mark_and_is_none_is_refused(mark):
    author = exercise_notebook()
    author.cells[8].source = f"x = 1\n{mark}\nassert packed_bytes(9, 1) == 2\n### END HIDDEN TESTS"
    with pytest.raises(ValueError, match="chapter seven.*cell 8, line 2: .* is no mark; the marks are ### BEGIN SOL"):
        without_solutions(author, "chapter seven")


@pytest.mark.parametrize("kind, line", [
    ("markdown", "### Two networks, the same images"), ("markdown", "The hidden tests begin behind the solution."),
    ("code", "# the end of a solution found"), ("code", "start_tests = tests[0]"), ("code", "end_solution = 1  # the end"),
    ("code", "## a heading"), ("code", "# hidden layers begin here"),
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
