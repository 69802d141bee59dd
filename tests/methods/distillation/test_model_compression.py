"""MUNGE against SciPy, its distributions and patches; a student that learns without labels, and one by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.spatial import cKDTree

import compedu as ce
from compedu.datasets.dataset import SPLITS, normalized
from compedu.datasets.digits import digits
from compedu.datasets.drawn import MEAN, STD, glyphs
from compedu.datasets.glyphs import draw_glyphs
from compedu.errors import CompressionError
from compedu.hashing import model_digest
from compedu.methods.distillation.shared import munge as module
from compedu.methods.distillation.shared.munge import munge, nearest_neighbors
from compedu.networks import build
from compedu.reproducible import seed_apart
from compedu.training import Recipe, fit, listening

DATA = digits(size=16).shortened(train=66, validation=60, test=20)
FAST = ce.ModelCompression(student="lenet300(width=0.1)", epochs=2, batch=32)


def images(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(x, copies=1, exchange=1.0, divisor=1.0, patch=1, seed=0):
    return munge(x, copies, exchange, divisor, patch, seed)


# Nearest neighbors


@pytest.mark.parametrize("held", [1, 150, 2**23])
def test_nearest_neighbors_are_those_of_a_tree_however_many_distances_are_held(held, monkeypatch):
    monkeypatch.setattr(module, "HELD", held)
    x = images(0, 61, 2, 3, 3) + 1000  # far from the origin: squares of the values would lose the differences
    _, expected = cKDTree(x.flatten(1).double().numpy()).query(x.flatten(1).double().numpy(), k=2)
    assert nearest_neighbors(x).tolist() == expected[:, 1].tolist()


def test_the_neighbor_of_an_image_that_is_there_twice_is_its_twin():
    x = images(0, 5, 1, 4, 4)
    twice = torch.cat([x, x])
    assert nearest_neighbors(twice).tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_a_single_image_has_no_neighbor():
    with pytest.raises(CompressionError, match="a nearest neighbor needs two images or more, got 1"):
        nearest_neighbors(images(0, 1, 1, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_has_the_neighbors_and_synthetic_images_of_the_same_numbers_in_float32(dtype):
    x = (40 * images(0, 200, 1, 8, 8) + 300).to(dtype)  # squares leave the range of float16, differences lose digits
    assert torch.equal(nearest_neighbors(x), nearest_neighbors(x.float()))
    drawn = made(x, 2, exchange=0.5, divisor=30.0)
    assert drawn.dtype == dtype
    torch.testing.assert_close(drawn, made(x.float(), 2, exchange=0.5, divisor=30.0).to(dtype), atol=0, rtol=0)


# Synthetic images


def test_a_pixel_is_drawn_around_the_neighbors_with_their_difference_over_the_divisor():
    copies = 4000
    x = torch.tensor([[3.0, -1.0, 0.5], [1.0, -1.5, 0.5]]).view(2, 1, 1, 3)
    drawn = made(x, copies, exchange=1.0, divisor=4.0).view(copies, 2, 3)
    for place, pixel in np.ndindex(2, 2):
        own, other = x[place, 0, 0, pixel].item(), x[1 - place, 0, 0, pixel].item()
        normal = stats.norm(other, abs(own - other) / 4)
        assert stats.kstest(drawn[:, place, pixel].numpy(), normal.cdf).pvalue > 1e-4
    assert bool((drawn[:, :, 2] == 0.5).all())  # both images agree there
    correlations = np.corrcoef(drawn[:, :, :2].reshape(copies, 4).T.numpy()) - np.eye(4)
    assert np.abs(correlations).max() < 5 / copies**0.5


def test_each_pixel_is_exchanged_with_the_probability_and_all_others_stay():
    x = images(0, 2, 1, 10, 10)
    drawn = made(x, 200, exchange=0.3, divisor=1e6).view(200, 2, 10, 10)
    exchanged = drawn != x.view(2, 10, 10)
    assert exchanged.double().mean().item() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 40_000) ** 0.5)
    expected = torch.where(exchanged, x.flip(0).view(2, 10, 10), x.view(2, 10, 10))
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=0)
    shares = exchanged.double().mean(0)
    assert (shares - 0.3).abs().max() < 6 * (0.3 * 0.7 / 200) ** 0.5  # no pixel is preferred


def test_nothing_is_exchanged_with_probability_zero_and_all_of_it_with_one():
    x = images(0, 9, 2, 4, 4)
    assert torch.equal(made(x, 3, exchange=0.0), torch.cat([x, x, x]))
    torch.testing.assert_close(made(x, 1, divisor=1e6), x[nearest_neighbors(x)], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("patch", "sides"), [(1, 7), (3, 3), (7, 1), (2**31 - 1, 1)])
def test_patches_are_exchanged_together_with_all_their_channels(patch, sides):
    x = images(0, 2, 3, 7, 7)
    exchanged = made(x, 300, exchange=0.5, patch=patch).view(600, 3, 7, 7) != x.repeat(300, 1, 1, 1)
    assert bool((exchanged == exchanged[:, :1]).all())
    places = [min(index * patch, 6) for index in range(sides)]
    corners = exchanged[:, 0][:, places][:, :, places]
    whole = corners.repeat_interleave(min(patch, 7), 1).repeat_interleave(min(patch, 7), 2)[:, :7, :7]
    assert torch.equal(exchanged[:, 0], whole)
    flat = corners.flatten(1).double().numpy()
    assert set(np.unique(flat)) == {0.0, 1.0}
    if sides > 1:  # patches are drawn apart
        assert np.abs(np.corrcoef(flat.T) - np.eye(sides**2)).max() < 5.5 / 600**0.5


def test_the_seed_draws_the_images_and_the_given_ones_stay():
    x = images(0, 6, 1, 4, 4)
    before = x.clone()
    one, same, other = (made(x, 2, exchange=0.5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other) and torch.equal(x, before)
    assert not torch.equal(one[:6], one[6:])


# The method


def teacher():
    return build("lenet300(size=16, width=0.2)", seed=5)


@pytest.mark.parametrize("transfer", ["images", "munge"])
@pytest.mark.parametrize("shift", [0, 1])
def test_no_label_counts(transfer, shift):
    shuffled = replace(DATA, y_train=DATA.y_train.flip(0))
    assert not torch.equal(shuffled.y_train, DATA.y_train)
    method = replace(FAST, transfer=transfer, shift=shift)
    assert model_digest(method(teacher(), shuffled)) == model_digest(method(teacher(), DATA))


def test_the_student_is_the_one_that_learns_the_probabilities_of_the_transfer_set_by_hand():
    master, student = teacher(), build("lenet300(size=16, width=0.1)", seed=3)
    x = torch.cat([DATA.x_train, munge(DATA.x_train, 3, 0.25, 2.0, 4, seed_apart(3, "munge"))])
    given = replace(DATA, x_train=x, y_train=torch.arange(len(x)), classes=tuple(map(str, range(len(x)))))

    def loss(model, seen, indices):
        assert torch.equal(seen, x[indices])
        q = F.softmax(master(seen).detach(), 1)
        return (q * (q.log() - F.log_softmax(model(seen), 1))).sum(1).mean()

    fit(student, given, Recipe(epochs=2, batch=32, lr=2e-3, seed=3), loss=loss)
    method = replace(FAST, copies=3, exchange=0.25, divisor=2.0, patch=4, seed=3, shift=0)
    for own, theirs in zip(method(master, DATA).parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("seed", [0, 3])
def test_synthetic_images_do_not_repeat_the_draws_of_the_training(seed):
    method = replace(FAST, copies=1, exchange=0.5, divisor=1e6, seed=seed)
    drawn = method.transfer_set(DATA).x_train[66:]
    assert not torch.equal(drawn, munge(DATA.x_train, 1, 0.5, 1e6, 1, seed))


@pytest.mark.parametrize(("changes", "steps"), [({"transfer": "images"}, 6), ({"copies": 1}, 10), ({"copies": 4}, 22)])
def test_an_epoch_passes_over_the_whole_transfer_set(changes, steps):
    seen = []
    with listening(seen.append):
        replace(FAST, **changes)(teacher(), DATA)
    assert seen[-1].done == seen[-1].steps == steps


def test_the_transfer_set_begins_with_the_training_images_and_keeps_all_other_splits():
    given = FAST.transfer_set(DATA)
    assert torch.equal(given.x_train[:66], DATA.x_train) and len(given.x_train) == 3 * 66
    assert given.x_validation is DATA.x_validation and given.y_test is DATA.y_test
    plain = replace(FAST, transfer="images").transfer_set(DATA)
    assert torch.equal(plain.x_train, DATA.x_train) and not plain.y_train.any()


def test_a_student_learns_from_its_teacher_alone():
    master = build("lenet300(size=16, width=0.2)", seed=5)
    fit(master, DATA, Recipe(epochs=12, batch=32, lr=3e-3))
    student = replace(FAST, epochs=20, lr=5e-3)(master, DATA)
    agreed = (student(DATA.x_validation).argmax(1) == master(DATA.x_validation).argmax(1)).double().mean()
    assert agreed > 0.7


# Images that glyphs draws


def drawn_set(**dials):
    return glyphs(sizes={"train": 40, "validation": 20, "test": 20}, **dials)


def test_drawn_images_have_the_dials_of_the_data_and_are_in_no_split_of_it():
    data = drawn_set(rotation=0, seed=4).shortened(train=30)
    given = replace(FAST, transfer="drawn", copies=2).transfer_set(data)
    expected = draw_glyphs(60, seed=4, split="transfer", rotation=0).images
    assert torch.equal(given.x_train[:30], data.x_train) and len(given.x_train) == 90
    assert torch.equal(given.x_train[30:], normalized(torch.from_numpy(expected), MEAN, STD))
    known = {image.numpy().tobytes() for split in SPLITS for image in data.split(split)[0]}
    assert not known & {image.numpy().tobytes() for image in given.x_train[30:]}


def test_a_student_learns_from_drawn_images():
    data = drawn_set()
    master = build("lenet300(width=0.2)", seed=5, size=32, classes=20)
    seen = []
    with listening(seen.append):
        replace(FAST, transfer="drawn", copies=1)(master, data)
    assert seen[-1].steps == 2 * 3  # epochs, batches of 80 images


def test_images_are_not_drawn_for_other_data():
    changed = replace(drawn_set(), name="glyphs without B", origin="")
    for data in (DATA, changed):
        with pytest.raises(CompressionError, match="sets that glyphs made as they are, not for"):
            replace(FAST, transfer="drawn").transfer_set(data)
