"""Objectives: losses and correct answers of classification, regression and embedding, and data that serve them."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import compedu as ce
from compedu.commands import figures
from compedu.datasets import Dataset, load
from compedu.datasets.drawn import TARGETS
from compedu.datasets.glyphs import draw_glyphs
from compedu.datasets.objectives import CLASSES, KINDS, Classification, Embedding, Regression
from compedu.errors import CompressionError, MissingData
from compedu.evaluation import evaluating
from compedu.networks.fitting import network_for
from compedu.networks.recipes import recipe_for
from compedu.training import Recipe, fit

FEW = {"train": 128, "validation": 96, "test": 40}
POSE = Regression(("sine", "x"), (0.1, 2.0))


def serving(targets: str, **knobs):
    return ce.datasets.drawn.glyphs(sizes=FEW, targets=targets, **knobs)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# Losses and answers


def test_the_loss_of_classes_is_the_cross_entropy_of_torch():
    logits, labels = noise(7, 5), torch.arange(7) % 5
    assert torch.equal(CLASSES.loss(logits, labels), F.cross_entropy(logits, labels))
    assert torch.allclose(CLASSES.losses(logits, labels).mean(), CLASSES.loss(logits, labels))
    assert torch.equal(CLASSES.correct(CLASSES.answers(logits), labels), logits.argmax(1) == labels)


def test_a_tolerance_is_the_unit_of_the_loss_of_a_regression_and_the_bound_of_a_correct_answer():
    targets = torch.tensor([[0.0, 0.0], [0.5, 4.0], [0.0, 0.0]])
    outputs = targets + torch.tensor([[0.1, -2.0], [0.05, 0.0], [0.0, 2.01]])
    assert torch.allclose(POSE.losses(outputs, targets), torch.tensor([0.5, 0.0625, 0.5 * 1.005**2 / 2]))
    assert torch.allclose(POSE.loss(outputs, targets), POSE.losses(outputs, targets).mean())
    assert POSE.correct(POSE.answers(outputs), targets).tolist() == [True, True, False]
    assert POSE.criterion == "sine within 0.1, x within 2"


def test_the_loss_of_an_embedding_is_that_of_all_its_pairs():
    """Against a loop over pairs, written from the formula."""
    outputs, labels = noise(9, 4).double(), torch.arange(9) % 3
    objective = Embedding(4, margin=1.3)
    near, far = [], []
    for i, j in itertools.combinations(range(9), 2):
        distance = (outputs[i] / outputs[i].norm() - outputs[j] / outputs[j].norm()).norm()
        if labels[i] == labels[j]:
            near.append(distance**2)
        else:
            far.append(max(0.0, 1.3 - distance) ** 2)
    expected = sum(near) / len(near) / 2 + sum(far) / len(far) / 2
    assert float(objective.loss(outputs, labels)) == pytest.approx(float(expected), rel=1e-9)
    assert torch.allclose(objective.loss(3 * outputs, labels), objective.loss(outputs, labels))


def test_pairs_that_coincide_or_are_missing_leave_finite_gradients():
    for labels in (torch.zeros(4, dtype=torch.int64), torch.arange(4)):
        outputs = torch.ones(4, 3, requires_grad=True)
        Embedding(3).loss(outputs, labels).backward()
        assert outputs.grad.isfinite().all()


def test_an_embedding_is_correct_where_the_nearest_other_image_is_alike(monkeypatch):
    monkeypatch.setattr("compedu.datasets.objectives.ROWS", 4)  # so that several blocks of rows are computed
    outputs, labels = noise(11, 3), torch.arange(11) % 3
    objective = Embedding(3)
    answers = objective.answers(outputs)
    nearest = [min((j for j in range(11) if j != i), key=lambda j: (answers[i] - answers[j]).norm()) for i in range(11)]
    assert objective.correct(answers, labels).tolist() == [bool(labels[i] == labels[j]) for i, j in enumerate(nearest)]
    assert objective.correct(answers[:1], labels[:1]).tolist() == [False]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Regression((), ()), "a tolerance for each quantity"),
        (lambda: Regression(("x",), (0.0,)), "must be above 0"),
        (lambda: Embedding(1), "at least 2 dimensions"),
        (lambda: Embedding(4, margin=2.1), "a margin above 0 and at most 2"),
        (lambda: Regression(("x",), (1.0,), unchanged_by=("turn",)), "unchanged_by is a tuple of"),
        (lambda: Regression(("x",), (1.0,), unchanged_by="shift"), "unchanged_by is a tuple of"),
        (lambda: Embedding().losses(noise(2, 16), torch.arange(2)), "a single image has none"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(make, words):
    with pytest.raises(CompressionError, match=words):
        make()


# Data


@pytest.mark.parametrize("targets", [name for name in TARGETS if isinstance(TARGETS[name], Regression)])
def test_targets_are_the_factors_that_the_images_were_drawn_with(targets):
    data = serving(targets, rotation=90)
    drawn = draw_glyphs(40, split="test", rotation=90)
    for column, quantity in enumerate(TARGETS[targets].quantities):
        assert torch.allclose(data.y_test[:, column].double(), torch.from_numpy(drawn.factors[quantity]), atol=1e-6)
    assert torch.equal(data.x_test, serving("class", rotation=90).x_test)
    assert data.outputs == len(TARGETS[targets].quantities)
    assert data.name.startswith("glyphs(") and f"targets={targets!r}" in data.name


def test_the_objective_is_part_of_the_identity_of_data_and_shipped_weights_belong_to_classes():
    classes, pairs, pose = (serving(targets) for targets in ("class", "pairs", "pose"))
    assert len({one.digest for one in (classes, pairs, pose)}) == 3
    assert "objective" not in classes.digest.lower() and len(classes.digest) < len(pairs.digest)
    assert load("glyphs").objective == Classification() and (pose.origin, pairs.origin) == ("", "")
    with pytest.raises(MissingData, match=r"compedu train .*targets='pose'"):
        ce.load("lenet5", pose)


def test_unknown_targets_and_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="'class', 'pairs', 'angle', 'position', 'pose'"):
        load("glyphs(targets='size')")
    x, y = serving("pose").split("train")
    for targets, objective, words in (
        (y[:, :2], TARGETS["pose"], r"needs floats \(N, 4\)"),
        (y.long(), TARGETS["pose"], r"needs floats \(N, 4\)"),
        (y * torch.nan, TARGETS["pose"], "targets that are not finite"),
        (y, TARGETS["pairs"], "must be int64"),
    ):
        with pytest.raises(CompressionError, match=f"split 'train' has .*{words}"):
            Dataset("bad", *((x, targets) * 3), classes=("a", "b"), objective=objective)


# Networks on such data


@pytest.fixture(scope="module", params=["pose", "pairs"])
def learned(request):
    data = serving(request.param)
    model = network_for("lenet5(width=0.25)", data)
    before = ce.evaluate(model, data)
    fit(model, data, Recipe(epochs=6, lr=4e-3))
    return model, data, before


def test_a_network_learns_what_its_data_ask_for(learned):
    model, data, before = learned
    after = ce.evaluate(model, data)
    assert after.loss < 0.9 * before.loss
    assert model.spec.endswith(f"classes={data.outputs})") or f"classes={data.outputs}" in model.spec
    assert after.correct == int(data.objective.correct(after.predictions, data.y_validation).sum())


def test_a_report_says_when_an_answer_is_correct_and_has_its_paired_change(learned):
    model, data, _ = learned
    small = ce.LinearQuantization(bits=8)(model, data)
    report = ce.measure(small, data, baseline=model, speed=False)
    assert report.criterion == data.objective.criterion and report.newly_wrong is None
    assert report.change.total == len(data.x_validation)
    assert f"correct if  {data.objective.criterion}"[:60] in str(report) and " nats" not in str(report)
    assert ce.Report.from_dict(report.as_dict()) == report
    assert f": correct ({data.objective.criterion}) {report.accuracy:.2%} (" in figures(report)


def test_a_network_with_another_number_of_outputs_is_refused(learned):
    _, data, _ = learned
    other = ce.networks.build("lenet5(width=0.25)", size=32, classes=data.outputs + 1)
    with pytest.raises(CompressionError, match=f"outputs of shape .*build it with classes={data.outputs}"):
        ce.evaluate(other, data)


def test_explorers_show_classes_only(learned):
    model, data, _ = learned
    with pytest.raises(CompressionError, match=f"explorers show classes.*{data.objective.kind}"):
        ce.explore(ce.MagnitudePruning, model, data)


# Methods


def quick(cls):
    """Return the method as laws try it, with as little training as it allows."""
    tried = dict(cls.tried_with)
    if "epochs" in cls.__dataclass_fields__:
        tried.setdefault("epochs", 1)
    return cls(**tried)


@pytest.mark.parametrize("cls", ce.METHODS, ids=lambda cls: cls.__name__)
def test_a_method_says_for_which_objectives_it_is_defined(cls, learned):
    """It refuses others by name; that it works on the ones it names is tried below."""
    model, data, _ = learned
    method = quick(cls)
    assert set(method.defined_for) <= set(KINDS) and "classification" in method.defined_for
    if data.objective.kind not in method.defined_for:
        with pytest.raises(CompressionError, match=f"is defined for classification.*{data.objective.kind}"):
            method(model, data)


TRIED = [
    ce.FineTune(epochs=1),
    ce.MagnitudePruning(sparsity=0.5, budget="sensitivity"),
    ce.TruncatedSVD(rank=0.3, budget="sensitivity"),
    ce.GPTQ(bits=4),
    ce.LogitMatching(shift=0, epochs=1),
    ce.AttentionTransfer(shift=0, epochs=1),
    ce.RelationalDistillation(shift=0, epochs=1),
    ce.SimilarityPreserving(shift=0, epochs=1),
    ce.ContrastiveDistillation(shift=0, epochs=1),
    ce.FitNets(hint="conv2", guided="conv2", weight=0.0, epochs=2, hint_share=0.5, shift=0),
    ce.RandomTeacher(distillation=ce.LogitMatching(shift=0, epochs=1)),
]


@pytest.mark.parametrize("method", TRIED, ids=lambda method: type(method).__name__)
def test_methods_work_on_what_they_are_defined_for(method, learned):
    model, data, _ = learned
    assert data.objective.kind in method.defined_for
    small = method(model, data)
    found = ce.evaluate(small, data)
    assert found.loss < 10 and found.of == len(data.x_validation)


def test_taylor_scores_follow_the_loss_of_a_regression_and_need_losses_of_single_images(learned):
    model, data, _ = learned
    pruning = ce.FilterPruning(sparsity=0.3, criterion="taylor")
    if data.objective.kind == "embedding":
        with pytest.raises(CompressionError, match="is defined for classification and regression, but"):
            pruning(model, data)
    else:
        assert sum(p.numel() for p in pruning(model, data).parameters()) < sum(p.numel() for p in model.parameters())


def test_an_embedding_is_reported_once_all_neighbors_are_known(learned):
    """A part of the images has fewer neighbors to be right or wrong among, here and in the baseline."""
    model, data, _ = learned
    many = replace(data, x_validation=data.x_validation.repeat(7, 1, 1, 1), y_validation=data.y_validation.repeat(7, 1)
                   if data.y_validation.ndim == 2 else data.y_validation.repeat(7))  # fmt: skip
    looks = list(evaluating(model, many, batch=64))
    assert len(looks) == (1 if data.objective.kind == "embedding" else 3)
    assert looks[-1].seen == len(many.x_validation)


def test_another_rule_for_what_is_correct_makes_other_data():
    class Lenient(Classification):
        def correct(self, answers, targets):
            return answers == answers

    data = serving("class")
    assert replace(data, objective=Lenient()).digest != data.digest


def test_outputs_are_matched_in_units_of_their_tolerances():
    data = serving("pose")
    method = ce.LogitMatching()
    lesson_of = ce.methods.distillation.shared.distillation.Lesson
    student, teacher = noise(5, 4), noise(5, 4) + 1
    lesson = lesson_of(student, teacher, data.y_train[:5], objective=data.objective)
    units = torch.tensor([0.1, 0.1, 1.0, 1.0])
    expected = 0.5 * (((student - teacher) / units) ** 2).sum(1).mean()
    assert torch.allclose(method.loss_of(lesson), expected)


def test_images_are_not_changed_where_their_targets_would_not_be_true():
    pose, angle, pairs = (serving(targets) for targets in ("pose", "angle", "pairs"))
    for data, method, cure in (
        (pose, ce.RelationalDistillation(epochs=1), "shift=0"),
        (angle, ce.FineTune(epochs=1, mirror=True), "mirror=False"),
    ):
        model = network_for("lenet5(width=0.25)", data)
        with pytest.raises(CompressionError, match=f"targets, which are then no longer true .*train with {cure}"):
            method(model, data)
    with pytest.raises(CompressionError, match="train with shift=0"):
        fit(network_for("lenet5(width=0.25)", pose), pose, Recipe(epochs=1, shift=2))
    for data, method in ((angle, ce.FineTune(epochs=1, shift=1)), (pairs, ce.FineTune(epochs=1, mirror=True))):
        method(network_for("lenet5(width=0.25)", data), data)
    ce.LogitMatching(epochs=1, shift=1)(network_for("lenet5", pose), pose)  # the teacher says what is true of them
    assert recipe_for("lenet5", pose).shift == 0 and recipe_for("lenet5", pairs).shift == 1
