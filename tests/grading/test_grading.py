"""nbgrader's whole cycle on every chapter: release, autograde, feedback; wrong and forged answers have no points."""

import re

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import ClearOutput, IncludeHeaderFooter, LockCells
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from processes import ROOT, closed_network, network_uses, of_this_project, run
from submissions import WRONG, answered, attacking, graded, untouched
from traitlets.config import Config

import compedu
from compedu.errors import CompressionError
from compedu.execution import fast_profile
from compedu.grading import Confinement
from compedu.release import chapters, without_solutions

CONFIGURATION = (ROOT / "docs" / "nbgrader_config.py").read_text()
FIRST = "00_start_here"
LEARNERS = ("solved", "wrong", "untouched", "attacking")


def author_versions():
    """All chapters in their fast profiles, by the name of their notebook in the course."""
    paths = [ROOT / "notebooks" / name for name in chapters(ROOT / "notebooks")]
    return {
        "_".join(path.relative_to(ROOT / "notebooks").with_suffix("").parts): parameterize_notebook(
            load_notebook_node(str(path)), fast_profile(path)
        )
        for path in paths
    }


def can_confine(folder) -> bool:
    try:
        with Confinement(folder) as confinement:
            confinement.check()
    except CompressionError:
        return False
    return True


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder after the whole cycle, with four learners, and their notebooks' scores."""
    folder = tmp_path_factory.mktemp("course")
    compedu.load_data("glyphs")  # as docs/instructors.md says: no submission has to draw these images for itself
    environment = of_this_project(closed_network(folder))
    confined = can_confine(folder)
    (folder / "nbgrader_config.py").write_text(CONFIGURATION + ("" if confined else "c.ExecuteApart.confine = False\n"))

    def nbgrader(*arguments):
        return run(["nbgrader", *arguments], folder, environment)

    def put(notebook, learner, name):
        place = folder / "submitted" / learner / "chapters"
        place.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place / f"{name}.ipynb")

    places = [folder, ROOT / "notebooks"] if confined else []
    (folder / "source" / "chapters").mkdir(parents=True)
    for name, author in author_versions().items():
        nbformat.write(author, folder / "source" / "chapters" / f"{name}.ipynb")
    nbgrader("generate_assignment", "chapters")
    for name, author in author_versions().items():
        released = nbformat.read(folder / "release" / "chapters" / f"{name}.ipynb", 4)
        put(answered(author), "solved", name)
        put(answered(author, WRONG), "wrong", name)
        put(untouched(released), "untouched", name)
    put(attacking(nbformat.read(folder / "release" / "chapters" / f"{FIRST}.ipynb", 4), places), "attacking", FIRST)
    nbgrader("autograde", "chapters")
    nbgrader("generate_feedback", "chapters")
    assert network_uses(folder) == []
    return folder


@pytest.fixture(scope="module")
def scores(course):
    """The score and the most of each learner and chapter."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        return {
            (learner, name): (found.score, found.max_score)
            for learner in LEARNERS
            for name in author_versions()
            for found in [book.find_submission_notebook(name, "chapters", learner)]
        }


def configured() -> Config:
    """What nbgrader reads from the settings of docs."""
    config = Config()
    exec(CONFIGURATION, {"get_config": lambda: config})
    return config


def names(steps) -> list[str]:
    return [step.__name__ for step in steps]


def test_the_settings_put_their_steps_beside_those_they_belong_to(monkeypatch):
    given = GenerateAssignment.preprocessors.default()
    wanted = ["only_whole_marks", *names(given)]
    wanted.insert(wanted.index("ClearSolutions") + 1, "one_place_to_fill")
    assert names(configured().GenerateAssignment.preprocessors) == wanted
    made = GenerateAssignment(config=configured())
    assert names(made.preprocessors) == wanted
    monkeypatch.setattr(GenerateAssignment.preprocessors, "default", lambda obj=None: [IncludeHeaderFooter, *given])
    wanted.insert(1, "IncludeHeaderFooter")
    assert names(configured().GenerateAssignment.preprocessors) == wanted


def test_the_settings_say_which_step_is_missing(monkeypatch):
    monkeypatch.setattr(GenerateAssignment.preprocessors, "default", lambda obj=None: [LockCells, ClearOutput])
    with pytest.raises(ValueError, match="no step ClearSolutions here, after which one_place_to_fill belongs, but only "
                                         "LockCells, ClearOutput; install a version"):  # fmt: skip
        configured()


@pytest.mark.slow
@pytest.mark.parametrize("name", author_versions())
def test_only_right_answers_have_points(name, scores):
    points = sum(cell.metadata.nbgrader.points for cell in author_versions()[name].cells if graded(cell))
    assert {learner: scores[learner, name] for learner in LEARNERS} == {
        "solved": (points, points), "wrong": (0, points), "untouched": (0, points), "attacking": (0, points),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", author_versions())
def test_an_untouched_chapter_tells_nothing_that_was_to_be_predicted(name, course):
    graded_notebook = nbformat.read(course / "autograded" / "untouched" / "chapters" / f"{name}.ipynb", 4)
    telling = [cell for cell in graded_notebook.cells if re.search(r"\w\.(reveal|show)\(", cell.source)]
    assert telling or name == "gallery_02_pruning"
    for cell in telling:
        shown = "".join(output.get("text", "") or str(output) for output in cell.outputs)
        assert shown.startswith("Hidden: commit a prediction first") and shown.count("\n") == 1, cell.source


@pytest.mark.slow
@pytest.mark.parametrize("name", author_versions())
def test_every_settle_returned_a_live_report_or_asked_for_the_prediction_first(name, course):
    """Live: nothing is computed before a cell ends, as it is where pages are made; nobody predicted anything here."""
    graded_notebook = nbformat.read(course / "autograded" / "untouched" / "chapters" / f"{name}.ipynb", 4)
    settled = [cell for cell in graded_notebook.cells if re.search(r"^print\(\w+\.settle|= \w+\.settle", cell.source)]
    assert settled or name == "gallery_02_pruning"
    for cell in settled:
        printed = "".join(output.get("text", "") for output in cell.outputs)
        live = re.search(r"accuracy\s+\d+\.\d+%, 95 % interval", printed) is not None
        explorer = re.search(r"(\w+)\.settle", cell.source)[1]
        opened = [one.source for one in graded_notebook.cells if f"{explorer} = ce.explore(" in one.source]
        asked = "predict=" in opened[0]
        assert live != asked, f"{'' if asked else 'no '}report after {cell.source!r}"
        assert live or "commit your prediction first" in printed


@pytest.mark.slow
def test_a_submission_that_shows_a_lot_and_deletes_what_it_finds_leaves_course_and_notebook_as_they_were(course):
    graded_file = course / "autograded" / "attacking" / "chapters" / f"{FIRST}.ipynb"
    assert graded_file.stat().st_size < 200_000
    assert len(list((course / "source" / "chapters").glob("*.ipynb"))) == len(author_versions())
    found = [line for cell in nbformat.read(graded_file, 4).cells if "rmtree" in cell.source for line in cell.outputs]
    assert [output.get("text") for output in found] == ["found []\n"]


@pytest.mark.slow
def test_feedback_is_a_page_for_each_learner_and_chapter_without_widgets(course):
    for name in author_versions():
        page = (course / "feedback" / "solved" / "chapters" / f"{name}.html").read_text(encoding="utf-8")
        assert "Score" in page or "gallery" in name
        graded_notebook = nbformat.read(course / "autograded" / "untouched" / "chapters" / f"{name}.ipynb", 4)
        assert "widgets" not in graded_notebook.metadata


@pytest.mark.slow
@pytest.mark.parametrize("name", author_versions())
def test_our_release_is_the_one_that_nbgrader_makes(name, course):
    theirs = nbformat.read(course / "release" / "chapters" / f"{name}.ipynb", 4)
    ours = without_solutions(author_versions()[name], "chapter")
    assert [cell.source for cell in ours.cells] == [cell.source for cell in theirs.cells]
    checksums = [[cell.metadata.get("nbgrader", {}).get("checksum") for cell in book.cells] for book in (ours, theirs)]
    assert checksums[0] == checksums[1] and (any(checksums[0]) or "gallery" in name)
