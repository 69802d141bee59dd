"""A user's own images and labels: read as they are meant, and refused by name where that cannot be known."""

import os
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from compedu.cli import main
from compedu.datasets import folder as folders
from compedu.datasets import load, own
from compedu.errors import CompressionError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def images(tmp_path):
    """A folder of 5 gray images for each of the classes a and b, and 2 to test on."""
    for split, count in (("train", 5), ("test", 2)):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(pixels(4, 6, seed=index)).save(tmp_path / split / label / f"{index}.png")
    return tmp_path


def refused(path):
    """The message with which the data at `path` are refused."""
    with pytest.raises(CompressionError) as caught:
        load(str(path))
    return str(caught.value)


# Arrays


def write_arrays(path, x, y, **more):
    np.savez(path, **({"x_train": x, "y_train": y, "x_test": x, "y_test": y} | more))
    return path


@pytest.mark.parametrize(
    "shape, channels",
    [
        ((16, 16, 4), 4),
        ((2, 8, 9), 9),
        ((8, 9, 2), 2),
        ((3, 8, 3), 3),
        ((1, 8, 1), 1),
        ((3, 8, 1), 1),
        ((5, 5, 5), 5),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked_for(tmp_path, shape, channels):
    x, y = pixels(10, *shape), np.arange(10) % 2
    message = refused(write_arrays(tmp_path / "my.npz", x, y))
    assert f"my.npz: x_train of shape {x.shape} can be read in two ways: say which axis the channels are" in message
    assert "np.savez(..., layout='NHWC') or layout='NCHW'" in message
    last, first = (load(str(write_arrays(tmp_path / "my.npz", x, y, layout=name))) for name in ("NHWC", "NCHW"))
    assert last.shape == (channels, *shape[:2]) and first.shape == shape
    gray = torch.from_numpy(x).float() / 255
    torch.testing.assert_close(first.x_test * first.std + first.mean, gray)
    torch.testing.assert_close(last.x_test * last.std + last.mean, gray.permute(0, 3, 1, 2))


@pytest.mark.parametrize("layout", ["CHWN", "NHW", 3, ["NHWC", "NCHW"], b"\0"])
def test_a_layout_that_is_none_is_refused(tmp_path, layout):
    path = write_arrays(tmp_path / "my.npz", pixels(4, 8, 9, 2), np.arange(4) % 2, layout=layout)
    assert "can be read in two ways" in refused(path)
    assert "in two ways" in refused(write_arrays(path, pixels(4, 8, 9), np.arange(4) % 2, layout="NHWC"))


@pytest.mark.parametrize("labels, words", [
    (np.arange(6) % 3 + 1, "y_train has 3 different labels from 1 to 3, and none is 0; labels count from 0"),
    (np.array([0, 2_000_000] * 3), "has 2 different labels from 0 to 2000000, and none is 1"),
    (np.array(["cat", "dog"] * 3), "y_train must hold whole numbers from 0, got <U3; convert names by"),
    (np.array([0, 1] * 3, dtype=bool), "must hold whole numbers from 0, got bool"),
    (np.array([0.0, 1.0] * 3), "must hold whole numbers from 0, got float64"),
    (np.array([-1, 0] * 3), "must hold whole numbers from 0, got -1 to 0"),
    (np.array([0, 2**63] * 3, dtype=np.uint64), "must hold whole numbers from 0, got 0 to 9223372036854775808"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")  # fmt: skip
def test_labels_that_are_no_numbers_from_0_without_gaps_are_refused(tmp_path, labels, words):
    assert words in refused(write_arrays(tmp_path / "my.npz", pixels(6, 4, 4), labels))


def test_a_label_that_no_training_image_has_is_refused(tmp_path):
    path = write_arrays(tmp_path / "my.npz", pixels(6, 4, 4), np.arange(6) % 2, y_test=np.array([0, 1, 2] * 2))
    assert "y_test has the label 2, which no training image has; the labels of y_train are 0 to 1" in refused(path)


@pytest.mark.parametrize("shape", [(4, 0, 5), (4, 5, 0), (4, 0, 5, 3), (4, 1, 5, 0)])
def test_images_without_a_pixel_are_refused(tmp_path, shape):
    path = write_arrays(tmp_path / "my.npz", np.zeros(shape, np.uint8), np.arange(4) % 2)
    assert f"each size at least 1, got uint8 {shape}" in refused(path)


def renamed(path):
    np.save(path.with_suffix(".npy"), pixels(4, 8, 8))
    path.with_suffix(".npy").rename(path)


def damaged(path):
    np.savez_compressed(path, x_train=pixels(50, 8, 8))
    content = bytearray(path.read_bytes())
    content[200:240] = bytes(40)
    path.write_bytes(content)


def encrypted(path):
    write_arrays(path, pixels(4, 8, 8), np.arange(4) % 2)
    content = bytearray(path.read_bytes())
    for entry in re.finditer(rb"PK\x01\x02", content):
        content[entry.start() + 8] |= 1  # its flag in the directory of the file
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [renamed, damaged, encrypted], ids=lambda spoil: spoil.__name__)
def test_a_file_that_is_no_npz_file_is_refused_by_the_command_line_in_one_line(tmp_path, spoil, capsys):
    path = tmp_path / "my.npz"
    spoil(path)
    assert main(["data", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    assert printed.err.startswith(f"compedu data: {path} is not an .npz file of plain arrays: ")


def test_entries_that_are_no_arrays_are_refused(tmp_path):
    import zipfile

    path = write_arrays(tmp_path / "my.npz", pixels(4, 8, 8), np.arange(4) % 2)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_validation", b"notes")
        archive.writestr("y_validation", b"notes")
    assert "x_validation and y_validation must be arrays" in refused(path)


def test_data_that_would_fill_the_memory_are_refused_before_they_are_read(tmp_path, images, monkeypatch):
    path = write_arrays(tmp_path / "my.npz", pixels(4, 8, 8), np.arange(4) % 2)
    monkeypatch.setattr(own, "MOST_BYTES", 200)
    monkeypatch.setattr(np, "load", lambda *given, **options: pytest.fail("the file was read"))
    for place in (path, images):
        assert re.search("GiB of pixels, which stay in memory; at most .* take fewer or smaller", refused(place))


# Folders of images


@pytest.mark.parametrize("mode, expected", [("L", 1), ("1", 1), ("RGB", 3), ("P", 3), ("RGBA", 3), ("LA", 1)])
def test_images_of_eight_bits_are_read_as_they_are(images, mode, expected):
    for path in images.rglob("*.png"):
        with Image.open(path) as image:
            image.convert(mode).save(path)
    data = load(str(images))
    assert data.shape == (expected, 4, 6) and data.classes == ("a", "b")
    with Image.open(images / "test" / "a" / "1.png") as image:
        wanted = np.asarray(image.convert("L" if expected == 1 else "RGB"), dtype=np.float32) / 255
    found = (data.x_test[1] * data.std + data.mean).movedim(0, -1).squeeze(-1)
    torch.testing.assert_close(found, torch.from_numpy(wanted))


def test_images_that_a_camera_turned_are_turned_upright(images):
    straight = load(str(images))
    for path in images.rglob("*.png"):
        with Image.open(path) as image:
            exif = Image.Exif()
            exif[0x0112] = 6  # turned: the first row is the right-hand side
            image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    turned = load(str(images))
    assert turned.shape == (1, 4, 6) and torch.equal(turned.x_train, straight.x_train)


def test_hidden_files_and_folders_are_no_data(images):
    straight = load(str(images)).digest
    for hidden in (images / "train" / ".ipynb_checkpoints", images / "test" / ".git"):
        hidden.mkdir()
        (hidden / "0.png").write_bytes(b"whatever")
    (images / "train" / "a" / "._0.png").write_bytes(b"\0\5\x16\7 what another system leaves")
    assert load(str(images)).digest == straight and load(str(images)).classes == ("a", "b")


@pytest.mark.parametrize("change, words", [
    (lambda root: (root / "train" / "c").mkdir(), "train/c holds no image: fill this class, or remove its folder"),
    (lambda root: (root / "test" / "c").mkdir(), "test/c is a class without training images"),
    (lambda root: (root / "train" / "a" / "x.png").mkdir(), "train/a/x.png is a folder"),
    (lambda root: (root / "train" / "a" / "more").mkdir(), "train/a/more is a folder"),
    (lambda root: (root / "train" / "a" / "x.tif").touch(), "train/a/x.tif is not an image by its name"),
    (lambda root: (root / "train" / "a" / "x.png").symlink_to("nowhere"), "train/a/x.png cannot be read as an image"),
], ids=["empty", "untrained", "x.png", "more", "tif", "link"])  # fmt: skip
def test_a_folder_that_is_no_class_and_a_file_that_is_no_image_are_refused_by_name(images, change, words):
    change(images)
    assert words in refused(images)


def sixteen_bits(path):
    Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6) * 2000).save(path)


def transparent(path):
    Image.fromarray(pixels(4, 6, 4)).save(path)


def animated(path):
    frames = [Image.fromarray(pixels(4, 6, seed=seed)) for seed in (0, 1)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def four_inks(path):
    Image.fromarray(pixels(4, 6, 3)).convert("CMYK").save(path, format="JPEG")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[45:60] = bytes(15)
    path.write_bytes(content)


def png(*head, data=b"\0" * 100):
    """A PNG file of this head, put together by hand: width, height, bits per channel, kind of color."""
    head = struct.pack(">IIBBBBB", *head, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def enormous(path):
    """20,000 x 20,000 pixels by its head, which is all there is of them."""
    path.write_bytes(png(20_000, 20_000, 8, 0))


def sixteen_bits_of_color(path, kind=2):
    """Red, green and blue (2), with opacity (6), or gray with opacity (4), of which Pillow would read 8 bits each."""
    row = b"\0" + b"\xff" * 6 * 2 * {2: 3, 4: 2, 6: 4}[kind]
    path.write_bytes(png(6, 4, 16, kind, data=row * 4))


def floats(path):
    Image.fromarray(pixels(4, 6).astype(np.float32)).save(path, format="TIFF")


def large(path):
    Image.new("L", (4097, 4096)).save(path)


def turned_nonsense(path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\xff" + bytes(20)
    with Image.open(path) as image:
        image.convert("L").save(path, format="JPEG", exif=exif)


@pytest.mark.parametrize("spoil, words", [
    (sixteen_bits, "it has 16 bits per channel, and 8 are read: convert it to 8 bits"),
    (sixteen_bits_of_color, "it has 16 bits per channel, and 8 are read: convert it to 8 bits"),
    (lambda path: sixteen_bits_of_color(path, 6), "it has 16 bits per channel"),
    (lambda path: sixteen_bits_of_color(path, 4), "it has 16 bits per channel"),
    (floats, "its mode is F, and not gray or red, green, blue with 8 bits each: convert it"),
    (transparent, "parts of it are transparent: put it on a background"),
    (animated, "it has 2 frames: save one of them"),
    (four_inks, "its mode is CMYK"),
    (truncated, "truncated"),
    (corrupt, ""),
    (enormous, ""),
    (large, "it has 4097 x 4096 pixels, and at most 16,777,216 are read"),
    (lambda path: path.write_bytes(b""), "cannot identify"),
    (lambda path: path.write_bytes(b"my notes"), "cannot identify"),
    (turned_nonsense, "EXIF"),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
@pytest.mark.parametrize("place", ["train/a/0.png", "test/b/1.png"])
def test_an_image_that_cannot_be_taken_as_it_is_is_refused_by_name(images, spoil, words, place):
    spoil(images / place)
    message = refused(images)
    assert message.startswith(f"{images / place} cannot be read as an image: ") and words in message
    assert "\n" not in message


def test_damaged_images_are_refused_by_name_whatever_the_damage(images):
    path, draw, refusals = images / "train" / "a" / "0.png", np.random.default_rng(0), 0
    intact = path.read_bytes()
    for ending in ("PNG", "JPEG", "BMP", "GIF", "WEBP"):
        with Image.open(path) as image:
            image.save(images / "one", format=ending)
        content = (images / "one").read_bytes()
        for _ in range(40):
            spoilt = bytearray(content[: draw.integers(1, len(content))] if draw.random() < 0.3 else content)
            for place in draw.integers(0, len(spoilt), draw.integers(1, 9)):
                spoilt[place] = draw.integers(256)
            path.write_bytes(spoilt)
            try:
                folders._pixels(path)
            except CompressionError as error:
                assert str(error).startswith(f"{path} cannot be read as an image: ")
                refusals += 1
        path.write_bytes(intact)
    assert refusals > 100


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="whoever may read everything is refused nothing")
def test_an_image_that_may_not_be_read_is_refused_by_name(images):
    (images / "train" / "a" / "0.png").chmod(0)
    assert "0.png cannot be read as an image: [Errno 13] Permission denied" in refused(images)
