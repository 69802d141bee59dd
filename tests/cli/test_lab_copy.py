"""The learner's copy of the chapters: what the learner changed is never lost, and nothing is written elsewhere."""

import copy
import json
import os
import re
import socket
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from processes import ROOT, closed_network, network_uses, of_this_project, running_lab

from compedu.lab import copy_chapters, lab_options, summary, tell_when_it_answers
from compedu.release import chapters


@pytest.fixture
def released(tmp_path):
    folder = tmp_path / "released"
    (folder / "gallery").mkdir(parents=True)
    (folder / "00_start.ipynb").write_text("first")
    (folder / "gallery" / "02_more.ipynb").write_text("more")
    return folder


def states(copies):
    return {copy.name.as_posix(): copy.state for copy in copies}


def files(folder):
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith(".compedu")}


def test_an_empty_folder_gets_every_chapter(released, tmp_path):
    copies = copy_chapters(released, tmp_path / "mine")
    assert states(copies) == {"00_start.ipynb": "new", "gallery/02_more.ipynb": "new"}
    assert (tmp_path / "mine" / "gallery" / "02_more.ipynb").read_text() == "more"
    assert "2 written" in summary(tmp_path / "mine", copies)


def test_a_second_start_changes_nothing(released, tmp_path):
    copy_chapters(released, tmp_path / "mine")
    before = (tmp_path / "mine" / "00_start.ipynb").stat().st_mtime_ns
    assert set(states(copy_chapters(released, tmp_path / "mine")).values()) == {"same"}
    assert (tmp_path / "mine" / "00_start.ipynb").stat().st_mtime_ns == before


def test_an_unchanged_file_is_brought_up_to_date(released, tmp_path):
    copy_chapters(released, tmp_path / "mine")
    (released / "00_start.ipynb").write_text("second")
    assert states(copy_chapters(released, tmp_path / "mine"))["00_start.ipynb"] == "updated"
    assert (tmp_path / "mine" / "00_start.ipynb").read_text() == "second"


def saved(notebook, path):
    """Write the notebook as JupyterLab saves it: with all that it knows of the kernel."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.language_info = {"name": "python", "version": "3.12.1", "mimetype": "text/x-python"}
    nbformat.write(notebook, path)


def test_a_file_that_was_only_opened_and_saved_is_brought_up_to_date(released, tmp_path):
    mine = tmp_path / "mine" / "00_start.ipynb"
    first, second = (new_notebook(cells=[new_code_cell(text, id="a")]) for text in ("first", "second"))
    nbformat.write(first, released / "00_start.ipynb")
    copy_chapters(released, tmp_path / "mine")
    saved(first, mine)
    assert states(copy_chapters(released, tmp_path / "mine"))["00_start.ipynb"] == "same"
    nbformat.write(second, released / "00_start.ipynb")
    assert states(copy_chapters(released, tmp_path / "mine"))["00_start.ipynb"] == "updated"

    ran = copy.deepcopy(second)
    ran.cells[0].outputs = [new_output("stream", text="what it printed")]
    for changed in (ran, new_notebook(cells=[new_code_cell("mine")])):
        saved(changed, mine)
        before = mine.read_text()
        assert states(copy_chapters(released, tmp_path / "mine"))["00_start.ipynb"] == "kept"
        assert mine.read_text() == before


def test_a_changed_file_is_kept_and_the_new_version_lies_beside_it(released, tmp_path):
    mine = tmp_path / "mine"
    copy_chapters(released, mine)
    (mine / "00_start.ipynb").write_text("my work")
    assert states(copy_chapters(released, mine))["00_start.ipynb"] == "kept"
    assert files(mine) == {"00_start.ipynb", "gallery/02_more.ipynb"}, "nothing new to offer, so nothing beside it"
    assert "beside" not in summary(mine, copy_chapters(released, mine))

    (released / "00_start.ipynb").write_text("second")
    copies = copy_chapters(released, mine)
    assert (mine / "00_start.ipynb").read_text() == "my work"
    assert (mine / "00_start.new.ipynb").read_text() == "second"
    said = (
        "  00_start.ipynb: you changed it, so it is kept\n"
        "    an older copy may not run with this version; the new one is beside it: 00_start.new.ipynb"
    )
    assert said in summary(mine, copies)
    assert said in summary(mine, copy_chapters(released, mine)), "said at every start, not only after the update"


def test_the_version_beside_a_changed_file_is_itself_never_overwritten(released, tmp_path):
    mine = tmp_path / "mine"
    copy_chapters(released, mine)
    (mine / "00_start.ipynb").write_text("my work")
    (released / "00_start.ipynb").write_text("second")
    copy_chapters(released, mine)
    (mine / "00_start.new.ipynb").write_text("my second work")
    (released / "00_start.ipynb").write_text("third")
    for _ in range(2):
        assert "new one is beside it: 00_start.new.new.ipynb" in summary(mine, copy_chapters(released, mine))
    assert (mine / "00_start.ipynb").read_text() == "my work"
    assert (mine / "00_start.new.ipynb").read_text() == "my second work"
    assert (mine / "00_start.new.new.ipynb").read_text() == "third"


def test_a_version_that_was_offered_and_removed_is_not_offered_again(released, tmp_path):
    mine = tmp_path / "mine"
    copy_chapters(released, mine)
    (mine / "00_start.ipynb").write_text("my work")
    (released / "00_start.ipynb").write_text("second")
    copy_chapters(released, mine)
    (mine / "00_start.new.ipynb").unlink()
    copy_chapters(released, mine)
    assert not (mine / "00_start.new.ipynb").exists()


def test_a_file_of_the_learners_own_with_a_chapters_name_is_kept(released, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "00_start.ipynb").write_text("something of mine")
    assert states(copy_chapters(released, mine))["00_start.ipynb"] == "kept"
    assert (mine / "00_start.ipynb").read_text() == "something of mine"


@pytest.mark.parametrize("record", ["", "[1, 2]", "{", "\0"])
def test_a_damaged_record_loses_no_file(released, tmp_path, record):
    mine = tmp_path / "mine"
    copy_chapters(released, mine)
    (mine / "00_start.ipynb").write_text("my work")
    (mine / ".compedu" / "written.json").write_text(record)
    (released / "00_start.ipynb").write_text("second")
    copy_chapters(released, mine)
    assert (mine / "00_start.ipynb").read_text() == "my work"
    assert (mine / "00_start.new.ipynb").read_text() == "second"


def test_a_deleted_chapter_comes_back(released, tmp_path):
    mine = tmp_path / "mine"
    copy_chapters(released, mine)
    (mine / "00_start.ipynb").unlink()
    assert states(copy_chapters(released, mine))["00_start.ipynb"] == "new"


def test_a_link_that_leads_out_of_the_folder_is_refused(released, tmp_path):
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    mine.mkdir()
    elsewhere.mkdir()
    (mine / "gallery").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="leads out of"):
        copy_chapters(released, mine)
    assert list(elsewhere.iterdir()) == []


def test_a_linked_chapter_is_the_learners_own(released, tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other.ipynb"
    mine.mkdir()
    other.write_text("elsewhere")
    (mine / "00_start.ipynb").symlink_to(other)
    copy_chapters(released, mine)
    assert other.read_text() == "elsewhere"


def test_a_file_is_no_folder_and_the_authors_folder_is_not_the_learners(released, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        copy_chapters(released, tmp_path / "file")
    with pytest.raises(ValueError, match="author's notebooks"):
        copy_chapters(released, ROOT / "notebooks")


def test_jupyterlab_starts_on_the_first_chapter_where_there_is_one(released, tmp_path):
    copies = copy_chapters(released, tmp_path / "mine")
    assert lab_options(tmp_path / "mine", copies)[-1] == "--LabApp.default_url=/lab/tree/00_start.ipynb"
    assert len(lab_options(tmp_path / "mine", [])) == 1


def until(words, log):
    """The text of a log, as soon as it holds these words."""
    for _ in range(600):
        if words in (said := log.read_text()):
            return said
        time.sleep(0.2)
    raise AssertionError(f"two minutes without {words!r}: {said}")


def test_while_the_server_does_not_answer_the_command_says_that_it_is_starting(tmp_path, capsys):
    place = tmp_path / f"jpserver-{os.getpid()}.json"
    for text in (None, "{", json.dumps({"hostname": "127.0.0.1", "port": closed_port()})):
        if text is not None:
            place.write_text(text)
        tell_when_it_answers(tmp_path, "/lab", every_s=0.0, patience_s=0.5)
        said = capsys.readouterr().out
        assert "Still starting JupyterLab" in said and "answers" not in said


def closed_port():
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.slow
def test_jupyterlab_opens_on_the_copy_and_keeps_to_this_folder_and_this_machine(tmp_path):
    command = [sys.executable, "-c", "import sys, compedu.lab; compedu.lab.open_lab('mine', sys.argv[1:])"]
    environment = of_this_project(closed_network(tmp_path))
    with running_lab(command, tmp_path, environment, "mine") as get:
        listed = {entry["name"] for entry in get("api/contents/")["content"]}
        kernels = get("lab/api/settings/@jupyterlab/apputils-extension:kernels-settings")
        news = get("lab/api/settings/@jupyterlab/apputils-extension:notification")
        said = until("JupyterLab answers after", tmp_path / "lab.log")
    assert said.index("Preparing your copy") < said.index("Starting JupyterLab") < said.index("JupyterLab answers")
    assert re.search(r"Open: http://[\w.:]+/lab/tree/00_start_here.ipynb\?token=secret\n", said)
    assert listed == {name.parts[0] for name in chapters(ROOT / "notebooks")}
    assert kernels["schema"]["properties"]["commsOverSubshells"]["default"] == "disabled"
    assert news["schema"]["properties"]["fetchNews"]["default"] == "false"
    assert network_uses(tmp_path) == []
    assert list((tmp_path / "home").rglob("*")) == [], "JupyterLab wrote outside the learner's folder"
