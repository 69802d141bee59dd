"""Files are written whole or not at all."""

import pytest

from compedu.writing import write_whole


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
