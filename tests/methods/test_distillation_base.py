"""The base of distillation: students of every kind, features of named layers, regressors that train beside."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from laws import LAWS
from torch import nn
from toys.hints import Hints

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import Cancelled, CompressionError
from compedu.files import load, save
from compedu.forms import Masked
from compedu.hashing import model_digest
from compedu.methods import Pipeline, compression_of
from compedu.methods.distillation.shared.distillation import numbered
from compedu.methods.distillation.shared.features import captured, features_of, name_meant, regressor
from compedu.methods.distillation.soft_targets import SoftTargetDistillation
from compedu.networks import build
from compedu.reproducible import seeded
from compedu.training import Companion, fit, listening

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
FAST = {"epochs": 1, "batch": 32}
MAPS = {"student": "lenet5(width=0.2)", "hint": "relu1", "guided": "relu1"}
HINTS = Hints(**FAST, **MAPS)


def teacher(spec="lenet5(size=16, width=0.4)", seed=5):
    return build(spec, seed=seed)


# Students


def test_a_given_network_learns_on_from_its_weights_and_stays_as_it_is():
    given = build("lenet300(size=16, width=0.1)", seed=2)
    digest = model_digest(given)
    slow = SoftTargetDistillation(**FAST, student=given, lr=1e-9)
    student = slow(teacher(), DATA)
    assert model_digest(given) == digest != model_digest(student)
    torch.testing.assert_close(student.fc1.weight, given.fc1.weight, atol=1e-6, rtol=1e-4)
    given.fc1.weight.data.zero_()  # the method keeps what was given
    assert model_digest(slow(teacher(), DATA)) == model_digest(student)


def test_methods_of_other_given_networks_are_others_and_their_repr_names_them():
    one, other = (SoftTargetDistillation(student=build("lenet300(size=16, width=0.1)", seed=seed)) for seed in (1, 2))
    again = SoftTargetDistillation(student=build("lenet300(size=16, width=0.1)", seed=1))
    assert one == again and hash(one) == hash(again) and one != other
    assert repr(one) == repr(again) != repr(other) and repr(one).startswith("SoftTargetDistillation(student=<LeNet300 ")
    assert len({method.key(teacher(), DATA) for method in (one, again, other)}) == 2


def test_a_method_makes_the_student_of_the_teacher(tmp_path):
    prune = ce.MagnitudePruning(sparsity=0.8, layers="-last")
    step = SoftTargetDistillation(**FAST, student=prune)
    assert eval(repr(step), vars(ce.methods)) == step
    start, student = prune(teacher(), DATA), step(teacher(), DATA)
    for name in ("conv1", "conv2", "fc1"):
        before, after = start.get_submodule(name), student.get_submodule(name)
        assert isinstance(after, Masked) and torch.equal(after.mask, before.mask)
        assert not torch.equal(after.dense(), before.dense()) and torch.equal(after.weight, after.latent)
    assert compression_of(student).steps == (repr(step),)
    assert [(s.step, s.layer) for s in compression_of(student).skipped] == [(repr(prune), "fc2")]
    save(student, tmp_path / "student.ce")
    assert model_digest(load(tmp_path / "student.ce")) == model_digest(student)


def test_a_teacher_without_channels_gives_a_student_without_them_that_a_file_brings_back(tmp_path):
    pruned = ce.FilterPruning(sparsity=0.25)(teacher(), DATA)
    step = SoftTargetDistillation(**FAST, student=ce.FilterPruning(sparsity=0.5, layers="conv1"))
    student = step(pruned, DATA)
    assert len(student.conv1.weight) < len(pruned.conv1.weight) < len(teacher().conv1.weight)
    taken = [(removed.step, removed.group) for removed in compression_of(student).removed]
    expected = [(removed.step, removed.group) for removed in compression_of(step.student(pruned)).removed]
    assert taken == expected and len({step for step, _ in taken}) == 2
    save(student, tmp_path / "student.ce")
    loaded = load(tmp_path / "student.ce")
    assert model_digest(loaded) == model_digest(student)
    given = SoftTargetDistillation(**FAST, student=student)(teacher(), DATA)
    save(given, tmp_path / "given.ce")
    assert model_digest(load(tmp_path / "given.ce")) == model_digest(given)


class Same(ce.MagnitudePruning):
    """Returns the very network that it is given."""

    def __call__(self, model, data=None):
        return model


@pytest.mark.parametrize("nothing", [Pipeline(), Same()], ids=repr)
def test_a_method_that_returns_its_teacher_gives_a_student_of_its_own(nothing):
    seen = []

    class Watching(SoftTargetDistillation):
        def teach(self, student, teacher, data):
            before = model_digest(teacher)
            made = super().teach(student, teacher, data)
            shared = {t.data_ptr() for t in student.parameters()} & {t.data_ptr() for t in teacher.parameters()}
            seen.append((made is not teacher, shared, model_digest(teacher) == before))
            return made

    master = teacher()
    before = model_digest(master)
    student = Watching(**FAST, student=nothing)(master, DATA)
    assert seen == [(True, set(), True)] and model_digest(master) == before != model_digest(student)
    assert compression_of(student).steps == (repr(Watching(**FAST, student=nothing)),)
    assert not compression_of(student).skipped


def test_an_empty_pipeline_returns_a_copy():
    master = teacher()
    made = Pipeline()(master)
    assert made is not master and model_digest(made) == model_digest(master)
    assert repr(Pipeline()) == "Pipeline()" and Pipeline().key(master, DATA) != Pipeline().key(teacher(seed=6), DATA)
    made.fc1.weight.data.zero_()
    assert model_digest(made) != model_digest(master) == model_digest(teacher())


class Tanh(nn.Module):
    """A network with the layers of its teacher and another function."""

    def __init__(self, function):
        super().__init__()
        with seeded(0):
            self.flatten, self.fc1, self.fc2 = nn.Flatten(), nn.Linear(256, 8), nn.Linear(8, 10)
        self.function = function

    def forward(self, x):
        return self.fc2(self.function(self.fc1(self.flatten(x))))


def test_a_compressed_student_means_what_it_meant_though_its_teacher_has_the_same_layers_and_means_another_thing():
    small = ce.LinearQuantization(bits=4)(Tanh(torch.tanh).eval(), DATA)
    student = SoftTargetDistillation(**FAST, student=small)(Tanh(torch.relu).eval(), DATA)
    x = student.flatten(DATA.x_validation)
    expected = student.fc2(torch.tanh(F.linear(x, student.fc1.dense(), student.fc1.bias)))
    torch.testing.assert_close(student(DATA.x_validation), expected)


@pytest.mark.parametrize("given", [3, None, nn.Linear, ["lenet5"]], ids=str)
def test_what_is_no_student_is_refused_by_name(given):
    with pytest.raises(
        ValueError, match=r"SoftTargetDistillation.student must be the spec of a network, a network, or a m"
    ):
        SoftTargetDistillation(student=given)


def test_students_that_do_not_fit_their_teacher_are_refused_by_name():
    fewer = nn.Sequential(nn.Flatten(), nn.Linear(256, 12)).eval()
    with pytest.raises(CompressionError, match=r"SoftTargetDistillation.student has 12 classes, its teacher 10"):
        SoftTargetDistillation(**FAST, student=fewer)(teacher(), DATA)
    ended = nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.Softmax(1)).eval()
    with pytest.raises(CompressionError, match="ends in a softmax"):
        SoftTargetDistillation(**FAST, student=ended)(teacher(), DATA)


class TwoHeads(nn.Sequential):
    """A network that returns more than logits in training."""

    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


def test_a_student_of_several_heads_is_refused_by_name():
    heads = TwoHeads(nn.Flatten(), nn.Linear(256, 10)).eval()
    with pytest.raises(
        CompressionError, match=r"student returns \(\(32, 10\), \(32, 10\)\) in training; it must return only log"
    ):
        SoftTargetDistillation(**FAST, student=heads)(teacher(), DATA)


# Features


def test_words_name_layers_of_any_network():
    model = teacher()
    found = [name_meant(model, word, DATA.example, "it") for word in ("first", "middle", "last", "pool1")]
    assert found == ["conv1", "fc1", "fc2", "pool1"]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_hints_keep_the_laws(law):
    law(Hints)


def test_the_loss_and_its_gradients_equal_those_by_hand():
    master, method = teacher(), replace(HINTS, strength=2.0, shift=0)
    pupil = build("lenet5(size=16, width=0.2)", seed=0)
    x, y = DATA.x_train[:32], DATA.y_train[:32]
    pairs = method.pairs_of(pupil, master, DATA.example)
    regressors = method.regressors(pairs, pupil, master, DATA)
    value = method.loss(master, DATA, pairs, regressors)(pupil, x, torch.arange(32))
    value.backward()
    (companion,) = regressors
    found = [*(p.grad for p in pupil.parameters()), companion.module.weight.grad]
    learned, taught = F.relu(pupil.conv1(x)), F.relu(master.conv1(x)).detach()
    expected = F.cross_entropy(pupil(x), y) + 2 * (companion.module(learned) - taught).square().mean()
    torch.testing.assert_close(value, expected)
    grads = torch.autograd.grad(expected, [*pupil.parameters(), companion.module.weight])
    for own, theirs in zip(found, grads, strict=True):
        torch.testing.assert_close(own, theirs)
    assert all(p.grad is None for p in master.parameters()) and not master.training


def test_the_regressor_trains_and_the_student_comes_closer_to_the_hint():
    seen = []

    class Watched(Hints):
        def regressor(self, student, teacher, seed):
            companion = super().regressor(student, teacher, seed)
            seen.append((companion.module, companion.module.weight.detach().clone()))
            return companion

    def distance(strength):
        method = Watched(**MAPS, epochs=15, batch=32, strength=strength, shift=0)
        student = method(teacher(), DATA)
        module, _ = seen[-1]
        x = DATA.x_train
        return F.mse_loss(module(F.relu(student.conv1(x))), F.relu(teacher().conv1(x))).item()

    near, far = distance(30.0), distance(0.0)
    assert near < 0.3 * far
    module, began = seen[0]
    assert not torch.equal(module.weight, began) and not module.training


def test_an_interrupted_lesson_with_a_regressor_ends_with_the_same_bits(tmp_path):
    def stop(step):
        if step.done == 3:
            raise Cancelled

    def run(path, stopped=False):
        pupil, master = build("lenet5(size=16, width=0.2)", seed=0), teacher()
        pairs = HINTS.pairs_of(pupil, master, DATA.example)
        (companion,) = HINTS.regressors(pairs, pupil, master, DATA)
        loss = HINTS.loss(master, DATA, pairs, (companion,))
        with listening(stop if stopped else lambda step: None):
            fit(pupil, numbered(DATA), HINTS.recipe, loss=loss, companions={"r": companion}, resume=path)
        return model_digest(pupil), model_digest(companion.module)

    with pytest.raises(Cancelled):
        run(tmp_path / "run", stopped=True)
    assert run(tmp_path / "run") == run(tmp_path / "other")
    assert run(tmp_path / "third")[0] == model_digest(HINTS(teacher(), DATA))


def test_features_are_taken_before_a_layer_behind_changes_them_in_place():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with captured(model, ["0"], "it") as outputs:
        model(x)
    torch.testing.assert_close(outputs["0"], F.linear(x, model[0].weight, model[0].bias))
    outputs["0"].sum().backward()
    assert model[0].weight.grad is not None


class Folded(nn.Module):
    """A network with a layer that runs twice, one that never runs, and one that gives two tensors."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.split = nn.Linear(2, 2), nn.Linear(2, 2), nn.LSTM(2, 2)

    def forward(self, x):
        return self.split(self.twice(self.twice(x)))[0]


@pytest.mark.parametrize(("name", "match"), [
    ("nosuch", "the teacher has no layer 'nosuch'; its layers are twice, never, split"),
    ("twice", "layer 'twice' of the teacher runs more than once in a pass"),
    ("never", "no image reaches layer 'never' of the teacher"),
    ("split", "layer 'split' of the teacher returns a tuple, not one tensor"),
], ids=["unknown", "twice", "never", "tuple"])  # fmt: skip
def test_layers_that_give_no_feature_are_refused_by_name(name, match):
    model = Folded()
    with pytest.raises(CompressionError, match=match), captured(model, [name], "the teacher"):
        model(torch.ones(3, 2))
    assert not any(module._forward_hooks for module in model.modules())


def test_unknown_layers_of_either_network_are_refused_by_name():
    with pytest.raises(
        CompressionError, match=r"the student of Hints\(.*\) has no layer 'nosuch'; its layers are conv1, "
    ):
        replace(HINTS, guided="nosuch")(teacher(), DATA)
    with pytest.raises(
        CompressionError, match=r"the teacher of Hints\(.*\) has no layer 'nosuch'; its layers are conv1, "
    ):
        replace(HINTS, hint="nosuch")(teacher(), DATA)


@pytest.mark.parametrize(("student", "teacher", "kind"), [
    ((2, 3, 9, 8), (2, 5, 7, 8), nn.Conv2d), ((2, 6), (2, 9), nn.Linear), ((2, 4, 6), (2, 4, 9), nn.Linear),
], ids=["maps", "vectors", "tokens"])  # fmt: skip
def test_a_regressor_gives_the_shape_of_the_teacher(student, teacher, kind):
    made = regressor(torch.zeros(student), torch.zeros(teacher), seed=1)
    assert isinstance(made, kind) and made(torch.zeros(student)).shape == teacher
    assert torch.equal(made.weight, regressor(torch.zeros(student), torch.zeros(teacher), seed=1).weight)
    assert not torch.equal(made.weight, regressor(torch.zeros(student), torch.zeros(teacher), seed=2).weight)


@pytest.mark.parametrize(("student", "teacher"), [
    ((2, 3, 6, 8), (2, 5, 7, 8)), ((2, 6), (2, 5, 7, 8)), ((2, 4, 6), (2, 5, 6)),
], ids=["smaller", "kinds", "tokens"])  # fmt: skip
def test_shapes_that_no_layer_joins_are_refused(student, teacher):
    with pytest.raises(
        CompressionError, match=r"no layer maps features of the student, shape .* to those of the teach"
    ):
        regressor(torch.zeros(student), torch.zeros(teacher), seed=0)


def test_a_companion_is_what_a_regressor_is():
    (made,) = HINTS.regressors((("relu1", "relu1"),), build("lenet5(size=16, width=0.2)"), teacher(), DATA)
    assert isinstance(made, Companion) and made.lr == 1e-2


def halved(dtype, scale=1.0):
    return replace(
        DATA, **{f"x_{part}": scale * DATA.split(part)[0].to(dtype) for part in ("train", "validation", "test")}
    )


BY_FEATURES = [ce.RelationalDistillation, ce.SimilarityPreserving, ce.AttentionTransfer, ce.NeuronSelection, ce.FitNets]
IN_STEP = [*BY_FEATURES, ce.ModelCompression, ce.DecoupledDistillation, ce.BayesianDarkKnowledge, ce.LogitMatching]


@pytest.mark.parametrize("cls", IN_STEP, ids=lambda cls: cls.__name__)
def test_networks_and_images_in_bfloat16_are_trained_and_in_float16_refused_by_name(cls):
    for dtype in (torch.bfloat16, torch.float16):
        student, master = build("lenet5(size=16, width=0.1)").to(dtype), teacher("lenet5(size=16, width=0.2)").to(dtype)
        method = cls(student=student, epochs=4, batch=44)
        if dtype == torch.bfloat16:
            made = method(master, halved(dtype))
            assert made.fc1.weight.dtype == dtype and torch.isfinite(made(halved(dtype).x_validation)).all()
        else:
            with pytest.raises(
                CompressionError, match=r"cannot train in float16, as conv1.weight would: .* in bfloat16"
            ):
                method(master, halved(dtype))


@pytest.mark.parametrize("cls", [*BY_FEATURES[:3]], ids=lambda cls: cls.__name__)
def test_features_in_half_precision_are_compared_in_float32(cls):
    method = cls(compared="relu2=relu2", strength=1.0, shift=0)
    student, master = build("lenet5(size=16, width=0.1)").bfloat16(), teacher("lenet5(size=16, width=0.2)").bfloat16()
    data = halved(torch.bfloat16, scale=30.0)
    pairs = method.pairs_of(student, master, data.example)
    x, y = data.x_train[:8], data.y_train[:8]
    value = method.loss(master, data, pairs, (None,))(student, x, torch.arange(8))
    (own,), (theirs,) = (features_of(model, ("relu2",), x, "it") for model in (student, master))
    expected = F.cross_entropy(student(x).float(), y) + method.feature_loss(own.float(), theirs.float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    value.backward()
    assert student.conv1.weight.grad.isfinite().all() and student.conv1.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("shift", [0, 1])
def test_longer_trainings_write_the_method_down_no_more_often(shift, monkeypatch):
    written = []
    spell = SoftTargetDistillation.__repr__
    monkeypatch.setattr(SoftTargetDistillation, "__repr__", lambda self: written.append(self) or spell(self))
    counts = []
    for epochs in (1, 4):
        written.clear()
        SoftTargetDistillation(student="lenet300(width=0.1)", epochs=epochs, shift=shift)(teacher(), DATA)
        counts.append(len(written))
    assert counts[0] == counts[1]
