"""Files are written whole or not at all, and changed by one process at a time."""

import io
import os
import subprocess
import sys
import threading
import time

import pytest

from compedu.writing import ABANDONED_S, alone, append_lines, safe_name, write_whole


def test_a_file_is_replaced_at_once_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "one"
    for content in (b"first", b"", b"second"):
        write_whole(path, content)
        assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "one"
    write_whole(path, b"kept")
    monkeypatch.setattr("os.replace", lambda *places: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"lost")
    assert path.read_bytes() == b"kept" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "one", b"")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    old, fresh, foreign = (tmp_path / name for name in (".one.1-7.part", ".one.2-7.part", ".one.note.part"))
    for path in (old, fresh, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (time.time() - 2 * ABANDONED_S,) * 2)
    write_whole(tmp_path / "one", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".one.2-7.part", ".one.note.part", "one"]


def test_a_full_disk_is_told_by_the_name_that_was_given(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / "one", b"")
    assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "one"))


ADDING = """
import sys
from pathlib import Path
from compedu.writing import alone, append_lines
path = Path(sys.argv[1])
for number in range(60):
    with alone(path):
        seen = path.read_bytes().count(b"\\n") if path.exists() else 0
        append_lines(path, f"{seen}\\n".encode())
"""


def test_processes_that_change_one_file_wait_for_each_other(tmp_path):
    path = tmp_path / "numbers"
    command = [sys.executable, "-c", ADDING, str(path)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    at_once = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(120) for process in at_once] == [0, 0, 0]
    assert path.read_text().splitlines() == [str(number) for number in range(180)]
    assert list(tmp_path.iterdir()) == [path]


def test_threads_of_one_process_wait_for_each_other_too(tmp_path):
    path, inside, most = tmp_path / "one", [], []

    def work():
        with alone(path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_lines_that_do_not_fit_leave_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    assert append_lines(path, b"first\n") == 6

    class Full(io.FileIO):
        def write(self, content):
            return super().write(content[:2])

    with monkeypatch.context() as full, pytest.raises(OSError, match="No space left"):
        full.setattr("pathlib.Path.open", lambda self, mode, buffering: Full(self, mode))
        append_lines(path, b"second\n")
    assert path.read_bytes() == b"first\n"


@pytest.mark.parametrize(
    "text, name",
    [
        ("my data (1).v2", "my-data-1-.v2"),
        ("../../etc", "etc"),
        ("a" * 99, "a" * 40),
        ("\N{GREEK SMALL LETTER PI}", ""),
        ("con:aux?*<>|", "con-aux"),
    ],
)
def test_a_safe_name_is_one_word_of_ordinary_letters(text, name):
    assert safe_name(text) == name
