"""Relations among images: distances, angles and similarities by loops, invariances, and students that learn them."""

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.hashing import model_digest
from compedu.methods.distillation import relational
from compedu.methods.distillation.relational import angle_loss, cosines, distance_loss, in_their_span
from compedu.methods.distillation.similarity_preserving import similarities, similarity_loss
from compedu.networks import build
from compedu.training import Recipe, fit, listening

DATA = digits(size=16).shortened(train=131, validation=60, test=20)  # batches of 32, and three images
FAST = {"student": "lenet5(width=0.2)", "epochs": 2, "batch": 32}
LOSSES = [distance_loss, angle_loss, similarity_loss]
METHODS = [ce.RelationalDistillation(**FAST), ce.SimilarityPreserving(**FAST)]


def embeddings(seed, images=5, features=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, features, generator=generator, dtype=torch.float64)


def huber(x):
    return 0.5 * x**2 if abs(x) <= 1 else abs(x) - 0.5


def distances_by_loops(student, teacher):
    pairs = list(combinations(range(len(student)), 2))
    own, theirs = (np.array([np.linalg.norm(e[i] - e[j]) for i, j in pairs]) for e in (student, teacher))
    return np.mean([huber(a - b) for a, b in zip(own / own.mean(), theirs / theirs.mean(), strict=True)])


def angles_by_loops(student, teacher):
    def cosine(e, i, j, k):
        one, other = e[i] - e[j], e[k] - e[j]
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    triplets = list(permutations(range(len(student)), 3))
    return np.mean([huber(cosine(student, *t) - cosine(teacher, *t)) for t in triplets])


def similarities_by_loops(student, teacher):
    def rows(features):
        made = []
        for one in features:
            row = np.array([(one * other).sum() for other in features])
            made.append(row / np.sqrt((row**2).sum()))
        return np.array(made)

    return ((rows(student) - rows(teacher)) ** 2).sum() / len(student) ** 2


@pytest.mark.parametrize(("loss", "by_loops"), [
    (distance_loss, distances_by_loops), (angle_loss, angles_by_loops), (similarity_loss, similarities_by_loops),
], ids=lambda value: value.__name__)  # fmt: skip
def test_loss_and_gradient_equal_those_of_loops(loss, by_loops):
    student, teacher = (
        (4 * embeddings(0) + torch.tensor([[9.0], [0], [0], [0], [0]])).requires_grad_(),
        embeddings(1, 5, 7),
    )
    value = loss(student, teacher)
    numbers = student.detach().numpy()
    assert value.item() == pytest.approx(by_loops(numbers, teacher.numpy()), rel=1e-10)
    (gradient,) = torch.autograd.grad(value, student)
    for place in np.ndindex(numbers.shape):
        step = np.zeros_like(numbers)
        step[place] = 1e-5
        after, before = (by_loops(numbers + sign * step, teacher.numpy()) for sign in (1, -1))
        assert gradient[place].item() == pytest.approx((after - before) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("images", [4, 30])  # fewer features than images, and more
def test_many_features_give_the_angles_and_gradients_of_all_differences(images):
    student = (embeddings(0, images, 20) + 5).requires_grad_()
    teacher = embeddings(1, images, 9)
    own, theirs = (F.normalize(e[None] - e[:, None], dim=2) for e in (student, teacher))
    places = torch.tensor(list(permutations(range(images), 3))).T
    cosines = [torch.einsum("jif,jkf->ijk", e, e)[tuple(places)] for e in (own, theirs)]
    expected = F.huber_loss(*cosines)
    value = angle_loss(student, teacher)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (value, expected)]
    torch.testing.assert_close(*gradients)


class Largest(TorchDispatchMode):
    """Keeps how many numbers the largest tensor has that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
        return made


@pytest.mark.parametrize("features", [30, 1000])
def test_angles_take_no_more_memory_than_all_cosines_or_the_features(features):
    student, teacher = embeddings(0, 20, features).requires_grad_(), embeddings(1, 20, features)
    with Largest() as largest:
        angle_loss(student, teacher).backward()
    assert largest.numbers <= max(20**3, 20 * features)


def test_images_that_coincide_have_no_direction_though_rounding_sets_them_apart_on_other_axes(monkeypatch):
    student = torch.rand(40, 1000, generator=torch.Generator().manual_seed(0)) + 3
    student[20:] = student[:20]
    noise = 1e-6 * embeddings(2, 40, 40).float()  # as of a product whose rows are not all summed in the same order
    monkeypatch.setattr(relational, "in_their_span", lambda given: in_their_span(given) + noise[:, : given.shape[1]])
    made = cosines(student.requires_grad_())
    images = torch.arange(20)
    assert made[images, images + 20].abs().max() == 0  # at an image, towards the one that coincides with it
    (gradient,) = torch.autograd.grad(angle_loss(student, embeddings(1, 40, 3).float()), student)
    assert torch.isfinite(gradient).all() and gradient.abs().max() < 1


def test_a_distance_far_off_counts_linearly():
    student, teacher = torch.tensor([[0.0], [0.0], [0.1], [90.0]]), torch.tensor([[0.0], [60.0], [0.1], [0.0]])
    assert distance_loss(student, teacher).item() == pytest.approx(distances_by_loops(student.numpy(), teacher.numpy()))


def test_maps_are_compared_as_vectors():
    student, teacher = embeddings(0, 4, 12), embeddings(1, 4, 12)
    for loss in LOSSES:
        torch.testing.assert_close(loss(student.view(4, 3, 2, 2), teacher), loss(student, teacher))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_student_equal_to_its_teacher_up_to_scale_and_rotation_has_no_loss(loss):
    teacher = embeddings(0, 6, 4)
    rotation = torch.linalg.qr(embeddings(1, 4, 4))[0]
    assert loss(3 * teacher @ rotation, teacher).item() == pytest.approx(0, abs=1e-15)
    moved = teacher + 2
    assert (loss(moved, teacher).item() < 1e-15) == (loss is not similarity_loss)  # relations do not see a shift


def test_rows_of_similarities_have_norm_one_and_scaling_one_image_leaves_its_own_row():
    features = embeddings(0)
    scaled = features * torch.tensor([[7.0], [1], [1], [1], [1]])
    made = similarities(features)
    torch.testing.assert_close(made.norm(dim=1), torch.ones(5, dtype=torch.float64))
    ratio = similarities(scaled)[1:, 1:] / made[1:, 1:]
    torch.testing.assert_close(ratio, ratio[:, :1].expand(4, 4))  # a row changes by its norm alone


@pytest.mark.parametrize("loss", LOSSES)
def test_embeddings_that_coincide_have_a_finite_loss_and_gradient(loss):
    for student in (torch.zeros(4, 3), torch.ones(4, 3), torch.tensor([[1.0, 2], [1, 2], [0, 0], [3, 1]])):
        student.requires_grad_()
        value = loss(student, torch.rand(4, 3, generator=torch.Generator().manual_seed(0)))
        (gradient,) = torch.autograd.grad(value, student)
        assert torch.isfinite(value) and gradient.abs().max() < 100


def test_few_images_have_no_pairs_and_no_triplets():
    assert distance_loss(embeddings(0, 1), embeddings(1, 1)) == 0
    assert angle_loss(embeddings(0, 2), embeddings(1, 2)) == 0
    assert distance_loss(embeddings(0, 3), embeddings(1, 3)) > 0 and angle_loss(embeddings(0, 3), embeddings(1, 3)) > 0


@pytest.mark.parametrize(("method", "images", "batch", "match"), [
    (ce.RelationalDistillation, 129, 32, r"needs 3 in each; 129 .* in batches of 32 leave 1 for .*choose batch=31, or"),
    (ce.RelationalDistillation, 130, 32, r"leave 2 for the last one of an epoch: choose batch=31, or strength=0"),
    (ce.RelationalDistillation, 60, 2, r"in batches of 2 leave 2 .*choose batch=3, or"),
    (ce.RelationalDistillation, 2, 64, r"needs 3 in each; 2 .* in batches of 64 leave 2 .*: give more images, or str"),
    (ce.SimilarityPreserving, 129, 32, r"needs 2 in each; 129 .* in batches of 32 leave 1 .*choose batch=31, or str"),
    (ce.SimilarityPreserving, 60, 1, r"in batches of 1 leave 1 .*choose batch=2, or"),
])  # fmt: skip
def test_batches_without_relations_are_refused_by_name(method, images, batch, match):
    data = digits(size=16).shortened(train=images, validation=10, test=10)
    one = method(**FAST | {"batch": batch})
    with pytest.raises(CompressionError, match=match), listening(lambda step: pytest.fail("it trained")):
        one(build("lenet5(size=16)"), data)
    assert replace(one, strength=0.0, epochs=1)(build("lenet5(size=16, width=0.2)"), data) is not None


def test_two_images_are_enough_for_distances_alone():
    two = ce.RelationalDistillation(batch=2, angles=0.0)
    two.refuse_small_batches(60)
    with pytest.raises(CompressionError, match="needs 2 in each"):
        two.refuse_small_batches(61)


def embedding(model):
    """What the last layer of LeNet-5 reads."""
    first = (model.conv1, model.relu1, model.pool1, model.conv2, model.relu2, model.pool2)
    return nn.Sequential(*first, model.flatten, model.fc1, model.relu3)


def hand_made(method, own, theirs):
    """The features' loss of one pair of layers, by what other tests compare with loops."""
    if isinstance(method, ce.SimilarityPreserving):
        return similarity_loss(own, theirs)
    return distance_loss(own, theirs) + method.angles * angle_loss(own, theirs)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_the_loss_of_a_batch_and_its_gradients_equal_those_by_hand(method):
    teacher, student = build("lenet5(size=16, width=0.4)", seed=5), build("lenet5(size=16, width=0.2)")
    before = model_digest(teacher)
    method = replace(method, strength=3.0, shift=0)
    pairs = method.pairs_of(student, teacher, DATA.example)
    x, y = DATA.x_train[:16], DATA.y_train[:16]
    regressors = method.regressors(pairs, student, teacher, DATA)
    value = method.loss(teacher, DATA, pairs, regressors)(student, x, torch.arange(16))
    value.backward()
    learned, taught = embedding(student)(x), embedding(teacher)(x).detach()
    expected = F.cross_entropy(student.fc2(learned), y) + 3 * hand_made(method, learned, taught)
    torch.testing.assert_close(value, expected)
    for own, theirs in zip(
        student.parameters(), torch.autograd.grad(expected, list(student.parameters())), strict=True
    ):
        torch.testing.assert_close(own.grad, theirs, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
    assert model_digest(teacher) == before


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_with_strength_zero_the_student_learns_alone_bit_by_bit(method):
    alone = build("lenet5(width=0.2, size=16)", seed=3)
    fit(alone, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1))
    control = replace(method, strength=0.0, seed=3)(build("lenet5(size=16)"), DATA)
    assert model_digest(control) == model_digest(alone)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_the_relations_of_the_student_come_closer_to_its_teachers(method):
    teacher = build("lenet5(size=16, width=0.4)", seed=5)
    fit(teacher, DATA, Recipe(epochs=5, batch=32, lr=3e-3))

    def distance(strength):
        student = replace(method, strength=strength, epochs=16, lr=4e-3)(teacher, DATA)
        own, theirs = (embedding(model)(DATA.x_validation) for model in (student, teacher))
        return hand_made(method, own, theirs).item()

    assert distance(10 * method.strength) < 0.5 * distance(0.0)


def test_angles_of_weight_zero_are_not_computed(monkeypatch):
    monkeypatch.setattr("compedu.methods.distillation.relational.angle_loss", lambda *features: pytest.fail("computed"))
    student, teacher = embeddings(0), embeddings(1)
    found = ce.RelationalDistillation(angles=0.0).feature_loss(student, teacher)
    assert found == distance_loss(student, teacher)
