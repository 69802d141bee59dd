"""Whatever reads what a user names refuses a named pipe or a device by name, and does not wait for its end."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compedu as ce
from compedu import files
from compedu.cli import main
from compedu.course import LabBook
from compedu.datasets import load
from compedu.errors import CompressionError
from compedu.networks.checkpoints import read_checkpoint
from compedu.sweeps import read_sweep
from compedu.training.saved_state import saved_training

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")


@pytest.fixture(autouse=True)
def _impatient():
    """Ends whatever waits for a pipe: nobody ever writes into it."""

    def waits(number, frame):
        raise TimeoutError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, waits)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path):
    """A named pipe whose name ends as that of any file may."""

    def made(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        return path

    return made


@pytest.mark.parametrize("name", ["pipe", "own.npz"])
@pytest.mark.parametrize("read", [load, ce.load_data, lambda path: ce.load("lenet5", path)])
def test_a_data_set_is_a_file_or_a_folder(pipe, name, read):
    path = pipe(name)
    with pytest.raises(
        CompressionError, match=f"{name} is not an ordinary file: name an .npz file, or a folder of images"
    ):
        read(str(path))
    with pytest.raises(CompressionError, match="^/dev/zero is not an ordinary file"):
        read("/dev/zero")


@pytest.mark.parametrize("command", [("data",), ("run", "MagnitudePruning", "--data"), ("train", "lenet5", "--data")])
def test_the_command_line_refuses_data_that_may_have_no_end(pipe, command, capsys):
    path = pipe("own.npz")
    assert main([*command, str(path)]) == 2
    assert f"{path} is not an ordinary file: name an .npz file, or a folder of images" in capsys.readouterr().err


def test_an_image_is_a_file(pipe, tmp_path):
    for place in ("train/a", "test/a"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / place / "0.png")
    path = pipe("train/a/1.png")
    with pytest.raises(CompressionError, match=f"{path} is not an ordinary file: .* image files; move it away"):
        load(str(tmp_path))


def test_the_binary_version_of_cifar10_is_files(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPEDU_DATA", str(tmp_path))
    pipe("cifar-10-batches-bin/data_batch_1.bin")
    with pytest.raises(CompressionError, match=r"data_batch_1.bin is not an ordinary file: .* download it again"):
        load("cifar10")


@pytest.mark.parametrize("read", [files.load, files.inspect, files.describe, ce.load_model])
def test_a_model_file_is_a_file(pipe, read):
    with pytest.raises(CompressionError, match="pipe.ce is not a file, so it holds no model"):
        read(pipe("pipe.ce"))


def test_kept_weights_and_their_record_are_files(pipe, tmp_path):
    with pytest.raises(CompressionError, match="a.safetensors is not an ordinary file: move it away"):
        read_checkpoint(pipe("a.safetensors"))
    (tmp_path / "b.safetensors").write_bytes(b"")
    pipe("b.json")
    with pytest.raises(CompressionError, match="b.json is not an ordinary file: move it away"):
        read_checkpoint(tmp_path / "b.safetensors")


@pytest.mark.parametrize("read", [
    read_sweep, lambda path: saved_training(path, {}), lambda path: LabBook(path).entries,
])  # fmt: skip
def test_records_are_files(pipe, read):
    for path in (pipe("pipe"), Path("/dev/zero")):
        with pytest.raises(CompressionError, match=f"^{path} is not an ordinary file: "):
            read(path)
