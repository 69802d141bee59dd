"""Controls of a distillation: the same start, order, steps and images in all arms; who teaches whom."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.hashing import model_digest
from compedu.methods import compression_of
from compedu.methods.distillation.label_smoothing import smoothed_loss
from compedu.methods.distillation.random_teacher import redrawn
from compedu.methods.distillation.shared.roles import chance, weights_of
from compedu.networks import build
from compedu.sweeps import method_of
from compedu.training import Recipe, fit, listening
from compedu.training.run import Run

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
STEPS = 5  # of an epoch
SMALL = "lenet5(width=0.2)"
FAST = {"student": SMALL, "epochs": 2, "batch": 32, "seed": 3}
PRUNE = ce.MagnitudePruning(sparsity=0.5)
TAUGHT = {
    "soft targets": ce.SoftTargetDistillation(**FAST),
    "decoupled": ce.DecoupledDistillation(**FAST),
    "features": ce.SimilarityPreserving(**FAST),
    "stages": ce.FitNets(**FAST, hint="relu1", guided="relu1", hint_share=0.5),
    "pruned": ce.SoftTargetDistillation(**FAST | {"student": PRUNE}),
    "given": ce.SoftTargetDistillation(**FAST | {"student": build("lenet5(size=16, width=0.2)", seed=9)}),
}
ARMS = ["taught", "alone", "longer", "label smoothing", "temperature 1", "random teacher"]


def teacher(seed=5):
    return build("lenet5(size=16, width=0.4)", seed=seed)


@pytest.fixture(scope="module")
def trained():
    """A teacher that knows something."""
    model = teacher()
    fit(model, DATA, Recipe(epochs=20, batch=32, lr=3e-3))
    return model


@pytest.fixture(scope="module")
def barely():
    """A network of the same size that knows little."""
    return build("lenet5(size=16, width=0.4)", seed=1)


def watched(method, monkeypatch, model):
    """Return the bits that a training of `method` begins with, its batches, its losses, and the student."""
    begun, batches, losses = [], [], []
    take = Run.batch

    def batch(run, step):
        if not begun:
            begun.append([parameter.detach().clone() for parameter in run.model.parameters()])
        x, y = take(run, step)
        batches.append(x.clone())
        return x, y

    monkeypatch.setattr(Run, "batch", batch)
    with listening(lambda step: losses.append(step.loss)):
        student = method(model, DATA)
    monkeypatch.setattr(Run, "batch", take)
    return begun[0], batches, losses, student


@pytest.mark.parametrize("name", TAUGHT)
def test_all_arms_have_the_same_start_order_steps_and_images(name, monkeypatch, trained):
    arms = ce.controls(TAUGHT[name])
    seen = {arm: watched(method, monkeypatch, trained) for arm, method in arms.items()}
    start, batches, losses, student = seen.pop("taught")
    assert len(batches) == 2 * STEPS
    digests = {model_digest(student)}
    for arm, (begun, drawn, told, made) in seen.items():
        assert all(torch.equal(*pair) for pair in zip(start, begun, strict=True)), arm
        digests.add(model_digest(made))
        assert told != losses, arm
        assert len(drawn) == (4 if arm == "longer" else 2) * STEPS
        one_stage = name == "stages" and arm in ("alone", "longer", "label smoothing")  # taught: two, the second alike
        expected = batches[STEPS:] if one_stage else batches
        assert all(torch.equal(*pair) for pair in zip(expected, drawn[: len(expected)], strict=True)), arm
    assert len(digests) == len(arms)


@pytest.mark.parametrize("name", TAUGHT)
def test_the_arms_are_methods_that_their_text_makes_again_with_the_knobs_of_the_taught_one(name):
    arms = ce.controls(TAUGHT[name])
    assert list(arms) == [arm for arm in ARMS if name != "features" or arm != "temperature 1"]
    for method in arms.values():
        if name != "given":  # a network has no text that makes it
            assert method_of(repr(method)) == method
    assert len(set(arms.values())) == len({arm.key(teacher(), DATA) for arm in arms.values()}) == len(arms)
    assert arms["taught"] is TAUGHT[name] and arms["random teacher"].distillation is TAUGHT[name]
    assert arms["random teacher"].seed == arms["label smoothing"].seed == TAUGHT[name].seed
    assert arms["longer"] == replace(arms["alone"], epochs=4)


def test_the_arms_run_as_one_sweep_whose_reports_name_them(trained, tmp_path):
    arms = ce.controls(TAUGHT["pruned"])
    reports = list(ce.sweep(arms.values(), trained, DATA, store=tmp_path / "sweep"))
    assert {report.method for report in reports} == set(map(repr, arms.values()))
    assert len({report.file_bytes for report in reports}) <= len(arms) and all(r.compression_rate for r in reports)


def test_knobs_of_the_arms_can_be_chosen():
    arms = ce.controls(ce.SoftTargetDistillation(epochs=3, temperature=1.0), longer=5, smoothing=0.3)
    assert arms["longer"].epochs == 15 and arms["label smoothing"].smoothing == 0.3
    assert "temperature 1" not in arms


@pytest.mark.parametrize(("method", "options", "match"), [
    (ce.LogitMatching(), {}, r"controls: LogitMatching\(\) has no setting at which a student learns from the labels"),
    (ce.ModelCompression(), {}, r"controls: ModelCompression\(\) has no setting"),
    (ce.FineTune(), {}, r"controls: FineTune\(\) has no setting"),
    (PRUNE | ce.SoftTargetDistillation(), {}, r"controls: MagnitudePruning.* has no setting"),
    (ce.SoftTargetDistillation(weight=0), {}, r"controls: SoftTargetDistillation\(weight=0.0\) is the student alone"),
    (ce.SoftTargetDistillation(), {"longer": 1}, "longer must be a whole number of at least 2, got 1"),
    (ce.SoftTargetDistillation(), {"smoothing": 2.0}, "LabelSmoothing.smoothing must be a number"),
], ids=["logits", "transfer set", "no distillation", "pipeline", "alone", "longer", "smoothing"])  # fmt: skip
def test_what_has_no_controls_is_refused_by_name(method, options, match):
    with pytest.raises(ValueError, match=match):
        ce.controls(method, **options)


# Label smoothing


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_the_loss_of_smoothed_labels_and_its_gradient_equal_the_formula(smoothing):
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    loss = smoothed_loss(logits, labels, smoothing)
    z = logits.detach().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    q = (1 - smoothing) * np.eye(5)[labels.numpy()] + smoothing / 5
    assert loss.item() == pytest.approx(-(q * np.log(p)).sum(1).mean(), rel=1e-12)
    np.testing.assert_allclose(torch.autograd.grad(loss, logits)[0].numpy(), (p - q) / 6, atol=1e-14)


def test_without_smoothing_the_student_learns_alone_bit_by_bit_and_the_teacher_is_never_asked():
    alone = build("lenet5(width=0.2, size=16)", seed=3)
    fit(alone, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1))
    made = [ce.LabelSmoothing(**FAST, smoothing=0.0)(teacher(seed), DATA) for seed in (5, 6)]
    assert [model_digest(model) for model in made] == [model_digest(alone)] * 2


def test_smoothing_is_a_teacher_that_takes_all_classes_for_equally_likely():
    class Even(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 1)

        def forward(self, x):
            return x.new_zeros(len(x), 10)

    smoothed = ce.LabelSmoothing(**FAST, smoothing=0.3)(Even(), DATA)
    taught = ce.SoftTargetDistillation(**FAST, weight=0.3, temperature=1.0)(Even(), DATA)
    torch.testing.assert_close(smoothed.fc1.weight, taught.fc1.weight, atol=1e-5, rtol=1e-4)


# A random teacher


class Asked(ce.SoftTargetDistillation):
    """Keeps the teachers that it was called with."""

    teachers: list = []  # noqa: RUF012

    def teach(self, student, teacher, data):
        self.teachers.append(teacher)
        return super().teach(student, teacher, data)


def test_the_random_teacher_is_random_and_the_given_one_untouched(trained):
    before = model_digest(trained)
    method = ce.RandomTeacher(distillation=Asked(**FAST))
    made = [replace(method, seed=seed)(trained, DATA) for seed in (0, 0, 1)]
    one, same, other = Asked.teachers
    Asked.teachers.clear()
    assert model_digest(one) == model_digest(same) != model_digest(other)
    assert model_digest(made[0]) == model_digest(made[1]) != model_digest(made[2])
    assert model_digest(trained) == before != model_digest(one)
    for name, value in one.state_dict().items():
        assert value.shape == trained.state_dict()[name].shape
        assert not torch.equal(value, trained.state_dict()[name]), name
    assert model_digest(one) != model_digest(build(trained.spec, seed=0))  # where a student of this kind would start
    assert not one.training and ce.evaluate(one, DATA).correct < 0.5 * ce.evaluate(trained, DATA).correct
    assert model_digest(replace(method.distillation)(one, DATA)) == model_digest(made[0])


def test_a_random_teacher_has_batch_norms_as_a_new_network_has_them():
    model = build("resnet(size=16, width=0.25, blocks=1)", seed=1)
    fit(model, DATA, Recipe(epochs=1, batch=32))
    for new in (redrawn(model, 0, "it"), redrawn(nn.Sequential(model), 0, "it")):  # with a spec, and without
        norms = [module for module in new.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms and all(bool((norm.running_mean == 0).all() and (norm.running_var == 1).all()) for norm in norms)
        assert not new.training
    torch.testing.assert_close(redrawn(model, 0, "it").state_dict(), build(model.spec, seed=0).state_dict())


def test_a_teacher_without_channels_is_drawn_without_them_and_a_compressed_one_is_refused():
    narrow = ce.FilterPruning(sparsity=0.5)(teacher(), DATA)
    new = redrawn(narrow, 0, "it")
    assert [p.shape for p in new.parameters()] == [p.shape for p in narrow.parameters()]
    assert not torch.equal(new.conv1.weight, narrow.conv1.weight)
    with pytest.raises(
        CompressionError, match=r"RandomTeacher\(.*\): conv1 \(Masked\) cannot be initialized again; give"
    ):
        ce.RandomTeacher(distillation=ce.SoftTargetDistillation(**FAST))(PRUNE(teacher(), DATA), DATA)


def test_a_pruned_student_starts_at_the_trained_teacher_though_a_random_one_teaches_it(trained):
    slow = replace(TAUGHT["pruned"], epochs=1, lr=1e-9)
    made = ce.RandomTeacher(distillation=slow)(trained, DATA)
    torch.testing.assert_close(made.fc1.dense(), PRUNE(trained, DATA).fc1.dense(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("given", ["SoftTargetDistillation()", ce.FineTune(), PRUNE, None], ids=str)
def test_only_a_distillation_has_a_random_teacher(given):
    with pytest.raises(ValueError, match="RandomTeacher.distillation must be a distillation, such as SoftTarget"):
        ce.RandomTeacher(distillation=given)


# Who teaches whom


def test_swapped_roles_are_refused_by_name(trained, barely, monkeypatch):
    method = ce.SoftTargetDistillation(**FAST | {"student": trained})
    with (
        pytest.raises(
            CompressionError,
            match=r"SoftTargetDistillation\(student=<LeNet5 .*: teacher and student are swapped: .* answers \d+ of 60 "
            r"validation images correctly before it learns, its teacher \d+ of 60, and it has .* weights, its teacher",
        ),
        listening(lambda step: pytest.fail("it trained")),
    ):
        method(barely, DATA)
    assert compression_of(replace(method, student=barely)(trained, DATA)).skipped[0].layer == "(student)"


def test_a_teacher_that_knows_less_than_its_smaller_student_is_named_in_the_report():
    small = build("lenet5(size=16, width=0.2)", seed=0)
    fit(small, DATA, Recipe(epochs=20, batch=32, lr=3e-3))
    student = ce.SoftTargetDistillation(**FAST | {"student": small})(teacher(), DATA)
    (said,) = compression_of(student).skipped
    assert said.layer == "(teacher)" and said.reason.startswith("knows less than its student, which answers ")
    assert "(teacher): knows less than its student" in str(ce.measure(student, DATA, speed=False))


def test_a_student_that_is_not_smaller_is_named_and_nothing_is_evaluated_for_a_spec(monkeypatch):
    monkeypatch.setattr("compedu.methods.distillation.shared.roles.evaluate", lambda *given: pytest.fail("evaluated"))
    method = ce.SoftTargetDistillation(**FAST | {"student": "lenet5(width=0.4)"})
    (said,) = compression_of(method(teacher(), DATA)).skipped
    count = f"{weights_of(teacher()):,}"
    assert (said.layer, said.reason) == (
        "(student)", f"is no smaller than its teacher: {count} weights, the teacher {count}",
    )  # fmt: skip
    assert compression_of(replace(method, student=SMALL)(teacher(), DATA)).skipped == ()
    assert compression_of(replace(method, student=PRUNE)(teacher(), DATA)).skipped == ()


def test_a_teacher_may_teach_a_copy_of_itself(trained):
    copy = ce.SoftTargetDistillation(**FAST | {"student": trained})(trained, DATA)
    assert [said.layer for said in compression_of(copy).skipped] == ["(student)"]


def test_masked_weights_do_not_count_as_size():
    assert weights_of(PRUNE(teacher(), DATA)) < 0.6 * weights_of(teacher())


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (7, 0), (6, 1), (12, 30), (30, 12)])
def test_how_likely_a_difference_is_by_chance_equals_the_binomial_test(won, lost):
    one = torch.tensor([True] * won + [False] * lost + [True] * 4 + [False] * 3)
    other = torch.tensor([False] * won + [True] * lost + [True] * 4 + [False] * 3)
    expected = binomtest(won, won + lost, alternative="greater").pvalue if won + lost else 1.0
    assert chance(one, other) == pytest.approx(expected)


def test_the_loss_of_the_labels_is_that_of_torch_without_smoothing():
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    assert torch.equal(smoothed_loss(logits, labels, 0.0), F.cross_entropy(logits, labels))
