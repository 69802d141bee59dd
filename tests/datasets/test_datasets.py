"""Data sets by name, file and folder: right splits, clear errors, nothing downloaded silently."""

import io
import struct
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image

from compedu.datasets import load
from compedu.datasets.dataset import Dataset, cache_folder, data_folders, fixed_order
from compedu.errors import CompressionError, MissingData


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPEDU_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COMPEDU_CACHE", str(tmp_path / "cache"))
    return tmp_path


def pixels(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_digits_are_the_embedded_default_and_always_the_same():
    data = load("digits")
    assert (len(data.y_train), len(data.y_validation), len(data.y_test)) == (1000, 397, 400)
    assert data.shape == (1, 28, 28) and data.digest == load("digits").digest
    assert load("digits(size=16)").shape == (1, 16, 16)
    assert set(data.y_test.tolist()) == set(range(10))


def test_glyphs_are_drawn_once_and_then_read(no_data):
    first = load("glyphs(seed=3, sizes={'train': 40, 'validation': 20, 'test': 20})")
    files = sorted((no_data / "cache" / "glyphs").glob("*.npz"))
    stamps = [path.stat().st_mtime_ns for path in files]
    second = load("glyphs(seed=3, sizes={'train': 40, 'validation': 20, 'test': 20})")
    assert first.digest == second.digest and len(files) == 3
    assert stamps == [path.stat().st_mtime_ns for path in files]


def rewritten(path, **changes):
    with np.load(path) as kept:
        arrays = dict(kept) | changes
    content = io.BytesIO()
    np.savez_compressed(content, **{name: array for name, array in arrays.items() if array is not None})
    return content.getvalue()


DAMAGED = {
    "no archive": lambda path: b"broken",
    "cut short": lambda path: path.read_bytes()[:-100],
    "a flipped bit in each byte of the deflated images": lambda path: bytes(
        byte ^ 4 if 60 < place < 2000 else byte for place, byte in enumerate(path.read_bytes())
    ),
    "too few images": lambda path: rewritten(path, images=np.zeros((3, 1, 32, 32), np.uint8)),
    "images of another type": lambda path: rewritten(path, images=np.zeros((8, 1, 32, 32))),
    "a thousand images of zeros": lambda path: rewritten(path, images=np.zeros((1000, 1, 32, 32), np.uint8)),
    "labels without a class": lambda path: rewritten(path, labels=np.full(8, 7000)),
    "classes that are no names": lambda path: rewritten(path, classes=np.arange(36)),
    "an array missing": lambda path: rewritten(path, classes=None),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_cache_is_drawn_again_and_mended(damage, no_data):
    spec = "glyphs(seed=3, sizes={'train': 8, 'validation': 8, 'test': 8})"
    first = load(spec)
    for path in (no_data / "cache" / "glyphs").glob("*.npz"):
        whole = path.read_bytes()
        path.write_bytes(DAMAGED[damage](path))
        assert path.read_bytes() != whole and load(spec).digest == first.digest
        assert rewritten(path) == whole  # mended: the archive holds the arrays again


def test_the_cache_is_where_the_system_keeps_such_files_unless_a_variable_names_a_folder(no_data, monkeypatch):
    assert cache_folder() == no_data / "cache"
    monkeypatch.delenv("COMPEDU_CACHE")
    assert cache_folder() == Path(platformdirs.user_cache_dir("compedu", appauthor=False))
    assert data_folders() == [no_data / "data", cache_folder() / "data"]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_missing_set_says_how_to_get_it(no_data, name):
    with pytest.raises(MissingData, match=f"compedu data {name} --download") as error:
        load(name)
    assert "COMPEDU_DATA" in str(error.value) and str(no_data / "data") in str(error.value)


def test_an_unknown_name_lists_the_names_there_are():
    with pytest.raises(ValueError, match="digits, glyphs, mnist"):
        load("minst")
    with pytest.raises(ValueError, match="colors"):
        load("glyphs(colors=3)")


def test_mnist_is_read_from_its_published_files(no_data):
    raw = no_data / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 50), ("t10k", 20)):
        images, labels = pixels(count, 28, 28), np.arange(count, dtype=np.uint8) % 10
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    data = load("mnist")
    assert (len(data.x_train), len(data.x_validation), len(data.x_test)) == (40, 10, 20)
    gray = data.x_test[3, 0] * data.std + data.mean
    torch.testing.assert_close(gray, torch.from_numpy(pixels(20, 28, 28)[3]).float() / 255)


def test_cifar10_is_read_from_its_binary_version(no_data):
    folder = no_data / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        rows = np.concatenate([np.full((6, 1), number, np.uint8), pixels(6, 3072, seed=number)], axis=1)
        (folder / f"data_batch_{number}.bin").write_bytes(rows.tobytes())
    (folder / "test_batch.bin").write_bytes(
        np.concatenate([np.full((4, 1), 9, np.uint8), pixels(4, 3072)], 1).tobytes()
    )
    data = load("cifar10")
    assert data.shape == (3, 32, 32) and len(data.x_train) + len(data.x_validation) == 30
    assert data.y_test.tolist() == [9] * 4 and data.classes[9] == "truck"
    expected = torch.from_numpy(pixels(4, 3072)[0].reshape(3, 32, 32)).float() / 255
    torch.testing.assert_close(data.x_test[0] * data.std + data.mean, expected)


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 3), (3, 12, 12), (12, 12, 1)])
def test_an_npz_file_of_any_usual_layout(tmp_path, shape):
    path = tmp_path / "own.npz"
    x = pixels(30, *shape)
    np.savez(path, x_train=x, y_train=np.arange(30) % 3, x_test=x[:6], y_test=np.arange(6) % 3)
    data = load(str(path))
    assert data.shape == (3 if 3 in shape else 1, 12, 12) and len(data.classes) == 3
    assert len(data.x_train) + len(data.x_validation) == 30


def test_a_bad_npz_file_is_refused_by_name(tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(CompressionError, match="own.npz is not an .npz file"):
        load(str(path))
    np.savez(path, x_train=pixels(3, 4, 4))
    with pytest.raises(CompressionError, match="lacks y_train, x_test, y_test"):
        load(str(path))
    np.savez(path, x_train=np.array([{}], dtype=object), y_train=[0], x_test=[0], y_test=[0])
    with pytest.raises(CompressionError, match="plain arrays"):
        load(str(path))
    np.savez(path, x_train=np.zeros((3, 4, 4)), y_train=[0, 1, 2], x_test=pixels(2, 4, 4), y_test=[0, 1])
    with pytest.raises(CompressionError, match="x_train must hold uint8"):
        load(str(path))
    np.savez(path, x_train=pixels(0, 4, 4), y_train=[], x_test=pixels(2, 4, 4), y_test=[0, 1])
    with pytest.raises(CompressionError, match="at least 1"):
        load(str(path))


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"y_train": np.eye(5, dtype=int)}, r"x_train has 5 images, but y_train of shape \(5, 5\) has 25 labels"),
        ({"y_train": np.arange(3)}, "has 3 labels; there must be one whole number for each image"),
        ({"y_test": np.arange(0)}, "x_test has 5 images, but y_test of shape .* has 0 labels"),
        ({"x_validation": pixels(5, 4, 4)}, "only one of x_validation and y_validation"),
        (
            {"x_test": pixels(5, 3, 4)},
            r"'test' has images \(1, 3, 4\), the training images are \(1, 4, 4\): all must have one size",
        ),
    ],
)
def test_an_npz_file_in_which_images_and_labels_do_not_match_loses_none_of_them_silently(tmp_path, changed, reason):
    path, x, y = tmp_path / "own.npz", pixels(5, 4, 4), np.arange(5)
    np.savez(path, **({"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changed))
    with pytest.raises(CompressionError, match=reason):
        load(str(path))


def test_a_folder_of_images(tmp_path):
    for split, count in (("train", 10), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(pixels(1, 9, 8, 3, seed=index)[0]).save(tmp_path / split / name / f"{index}.png")
    data = load(str(tmp_path))
    assert data.classes == ("cat", "dog") and data.shape == (3, 9, 8) and len(data.x_test) == 6
    Image.fromarray(pixels(1, 5, 5)[0]).save(tmp_path / "train" / "dog" / "x.png")
    with pytest.raises(CompressionError, match="x.png is"):
        load(str(tmp_path))


def test_empty_and_inconsistent_sets_are_refused():
    data = load("digits")
    with pytest.raises(CompressionError, match="split 'validation' is empty"):
        data.shortened(validation=0)
    with pytest.raises(CompressionError, match="labels outside 0..2"):
        Dataset("bad", *(data.split("train") * 3), classes=("a", "b", "c"))
    x, y = data.split("train")
    for images, labels, reason in (
        (x, y.int(), r"labels \(1000,\) of torch.int32; they must be int64"),
        (x.byte(), y, "images of torch.uint8"),
        (x, y[:, None], r"labels \(1000, 1\)"),
    ):
        with pytest.raises(CompressionError, match=reason):
            Dataset("bad", *((images, labels) * 3), classes=data.classes)
    with pytest.raises(CompressionError, match="no split 'exam'"):
        data.split("exam")


def test_the_fixed_order_is_a_permutation_that_the_seed_decides():
    assert sorted(fixed_order(100, 1).tolist()) == list(range(100))
    assert fixed_order(100, 1).tolist() != fixed_order(100, 2).tolist()
    assert fixed_order(8, 0).tolist() == [7, 0, 6, 1, 2, 4, 5, 3]  # computed once; no library update may change it


def test_a_set_of_which_nothing_is_cut_is_the_same_set():
    data = load("digits")
    assert data.shortened(train=1000, validation=5000) is data
    assert data.shortened(validation=100).name == "digits[1000/100/400]"
    with pytest.raises(CompressionError, match="whole numbers from 0"):
        data.shortened(train=-3)
