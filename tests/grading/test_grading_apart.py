"""A submission runs confined and is judged elsewhere: what it may not do, what it cannot forge, how it may end."""

import os
import shutil
import subprocess
import sys

import nbformat.v4 as v4
import pytest
from submissions import AT_ONCE, DESTRUCTIVE, FORGED, LOUD

from compedu.errors import CompressionError
from compedu.grading import Confinement, ExecuteApart, ProcessLimits
from compedu.grading.execute import exercise

ROOT_ONLY = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None, reason="confining needs root"
)
CHECKED = 'from compedu.course import check\n\nprint(check("dense_bytes", dense_bytes))'
SOLVED = "def dense_bytes(parameters):\n    return 4 * parameters"


@pytest.fixture
def course(tmp_path):
    """A course with one submission's folder; returns its root."""
    (tmp_path / "autograded" / "mary" / "one").mkdir(parents=True)
    (tmp_path / "autograded" / "mary" / "one" / "mine.txt").write_text("a file of the submission")
    (tmp_path / "solutions.txt").write_text("SOLUTION")
    return tmp_path


def graded(*sources, course, **settings):
    """The outputs of cells; those that check an exercise are marked as locked tests."""
    cells = [v4.new_code_cell(source) for source in sources]
    for number, cell in enumerate(cells):
        if "check(" in cell.source and "def check" not in cell.source:
            cell.metadata["nbgrader"] = {"grade": True, "grade_id": f"test-{number}", "points": 1, "solution": False}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    resources = {"metadata": {"path": str(course / "autograded" / "mary" / "one")}}
    done, _ = ExecuteApart(**settings).preprocess(notebook, resources)
    return [[output.get("text") or f"{output.get('ename')}: {output.get('evalue')}" for output in cell.outputs]
            for cell in done.cells]  # fmt: skip


def confined(program, course, **limits):
    folder = course / "autograded" / "mary" / "one"
    with Confinement(folder, [course], ProcessLimits(**limits)) as confinement:
        command = confinement.command([sys.executable, "-c", program])
        return subprocess.run(command, env=confinement.environment(), capture_output=True, text=True)


@ROOT_ONLY
def test_a_submission_that_attacks_its_grading_gets_nothing_and_harms_nothing(course):
    attacks = [FORGED, DESTRUCTIVE.format(places=[str(course)]), LOUD, AT_ONCE, "bytearray(64 * 2**30)"]
    *shown, forged, _honest, _, right = graded(*attacks, CHECKED, "dense_bytes = 1", SOLVED, CHECKED, course=course)
    assert shown[1] == ["found []\n"] and "MemoryError" in shown[4][0]
    assert sum(len(text) for texts in shown for text in texts) < 100_000
    assert forged[0].startswith("NotYet: ") and (course / "solutions.txt").read_text() == "SOLUTION"
    assert right[0].startswith("NotYet: ")  # what answers for it is still forged


@ROOT_ONLY
def test_a_right_answer_passes_and_after_the_end_of_its_process_nothing_does(course, monkeypatch):
    monkeypatch.setenv("COMPEDU_SECRET_SEED", "1")
    seen = "open('mine.txt').read(), 'COMPEDU_SECRET_SEED' in os.environ, os.environ['HOME'] == os.getcwd()"
    look = f"import os\nprint({seen})"
    shown = graded(SOLVED, CHECKED, look, "os._exit(0)", SOLVED, CHECKED, course=course)
    assert shown[1] == ["right: the file is the parameters and a short header\n"]
    assert shown[2] == ["a file of the submission False True\n"]
    assert all(texts[0].startswith("DeadKernelError: the submission ended") for texts in shown[3:])


@ROOT_ONLY
def test_a_confined_process_has_no_rights_no_network_and_no_view_of_the_course(course):
    program = (
        "import os, socket\n"
        "def may(action):\n"
        "    try: return bool(action())\n"
        "    except OSError: return False\n"
        f"print(os.getuid() == 0, may(lambda: open({str(course / 'solutions.txt')!r})),\n"
        "      may(lambda: socket.create_connection(('192.0.2.1', 80), 1)), may(lambda: open('/etc/mine', 'w')),\n"
        "      may(lambda: os.setuid(0) is None), may(lambda: os.kill(os.getppid() or 2, 0) is None),\n"
        "      may(lambda: open('mine.txt')))"
    )
    done = confined(program, course)
    assert done.stdout.split() == ["False"] * 6 + ["True"], done.stderr


@ROOT_ONLY
@pytest.mark.parametrize("program, limits", [
    ("while True: pass", {"seconds": 1}),
    ("x = bytearray(2**30)", {"memory": 2**29}),
    ("open('big', 'wb').write(bytes(2**20))", {"file": 2**16}),
    ("fs = [open('mine.txt') for _ in range(100)]", {"files": 30}),
    ("import os\nfor _ in range(40): os.fork() or os._exit(not __import__('time').sleep(1))", {"processes": 10}),
])  # fmt: skip
def test_what_a_process_uses_is_limited(program, limits, course):
    assert confined(program, course, **limits).returncode != 0
    assert confined("pass", course).returncode == 0


@ROOT_ONLY
def test_nothing_of_a_submission_is_left_running(course):
    program = "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(300)\nprint(os.getuid())"
    user = int(confined(program, course).stdout)
    owners = {os.stat(f"/proc/{name}").st_uid for name in os.listdir("/proc") if name.isdigit()
              and os.path.exists(f"/proc/{name}")}  # fmt: skip
    assert user not in owners


@pytest.mark.parametrize("source, asked", [
    (CHECKED, ("dense_bytes", "dense_bytes")),
    ('check("thin", mine)', ("thin", "mine")),
    ('assert thin(1)\nprint(check("thin", thin))', None),  # more than a check: the submission's process runs it
    ('print(check("thin", lambda tensors, gone: thin(tensors, gone)))', None),
    ("assert thin({}, []) == {}", None), ("print(", None), ("", None),
])  # fmt: skip
def test_a_locked_cell_that_is_a_check_and_nothing_else_is_judged_apart(source, asked):
    cell = v4.new_code_cell(source, metadata={"nbgrader": {"grade": True}})
    assert exercise(cell) == asked and exercise(v4.new_code_cell(source)) is None


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_submission_that_cannot_be_copied_leaves_no_copy_behind(course, monkeypatch, error):
    temporary = course / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def half_copied(source, target, **options):
        target.mkdir()
        assert list(temporary.iterdir()) == [target.parent]
        raise error

    monkeypatch.setattr("compedu.grading.confinement.shutil.copytree", half_copied)
    with pytest.raises(type(error)):
        Confinement(course / "autograded" / "mary" / "one")
    assert list(temporary.iterdir()) == []


def test_where_nothing_can_be_confined_nothing_is_started(course, monkeypatch):
    monkeypatch.setattr("compedu.grading.confinement.shutil.which", lambda program: None)
    with pytest.raises(CompressionError, match="unshare, .*is missing.*docs/instructors.md.*confine = False"):
        graded(SOLVED, CHECKED, course=course)


def test_without_confinement_answers_are_judged_apart_all_the_same(course):
    forged = "import compedu.course\ncheck = compedu.course.check = lambda *given: 'right: forged'"
    shown = graded(forged, "dense_bytes = lambda p: p", CHECKED, SOLVED, CHECKED, course=course, confine=False)
    assert shown[2][0].startswith("NotYet: a network of") and shown[4][0].startswith("right: ")
