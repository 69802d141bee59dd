"""The first experiment of distillation: small runs through the same functions, and what the stored ones show."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from compedu import datasets
from compedu.errors import CompressionError
from compedu.identity import identity
from compedu.metrics.seeds import mean
from compedu.replications import hinton_on_mnist as hinton
from compedu.replications.hinton_on_mnist import ALONE, CORRECTED, NEVER, PAPER, TAUGHT, TEACHER, WITHOUT, Run
from compedu.training import Recipe


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two seeds of everything on few images of `digits`, with small networks."""
    data = datasets.load("digits").shortened(train=256, validation=100, test=100)
    monkeypatch.setattr(hinton, "path", lambda: tmp_path / "runs.json")
    monkeypatch.setattr(hinton, "state_path", lambda seed: tmp_path / f"{seed}.training")
    monkeypatch.setattr(hinton, "SEEDS", (4, 5))
    monkeypatch.setattr(hinton, "TEACHER_UNITS", 48)
    monkeypatch.setattr(hinton, "STUDENT_UNITS", 32)
    monkeypatch.setattr(hinton, "TEACHER_RECIPE", Recipe(epochs=6, lr=1e-2, batch=32, shift=1))
    monkeypatch.setattr(hinton, "LESSONS", hinton.LESSONS | {"epochs": 6, "batch": 32})
    monkeypatch.setattr(hinton.datasets, "load", lambda name: data)
    return data


def made(counts: dict[str, tuple[int, int]], seed: int) -> list[Run]:
    """Runs with these numbers of test errors, all of them and on threes, by arm."""
    return [
        Run(arm, seed, 0.0, {"validation": 7, "test": errors}, {"validation": 0, "test": threes})
        for arm, (errors, threes) in counts.items()
    ]


def test_all_arms_of_all_seeds_are_run_stored_and_printed_once(small, monkeypatch):
    hinton.remake()
    runs = hinton.stored_runs()
    assert [(run.seed, run.arm) for run in runs] == [(seed, arm) for seed in (4, 5) for arm in PAPER]
    assert all(run.errors["test"] < 90 for run in runs), "better than chance"
    assert all(run.bias == 0 for run in runs if run.arm != CORRECTED)
    assert not hinton.state_path(4).exists()
    lines = hinton.table(runs)
    assert [line[:24].strip() for line in lines[1:-1]] == list(PAPER) and "missing" not in "".join(lines)
    monkeypatch.setattr(hinton, "runs_of", None)
    hinton.remake()
    assert hinton.stored_runs() == runs


def test_an_interrupted_replication_goes_on_where_it_stopped_with_the_same_figures(small, monkeypatch):
    monkeypatch.setattr(hinton, "SEEDS", (4,))
    hinton.remake()
    whole = hinton.stored_runs()
    hinton.path().unlink()
    train = hinton.trained

    def interrupted(arm, data, seed):
        if arm == TAUGHT:
            raise KeyboardInterrupt
        return train(arm, data, seed)

    monkeypatch.setattr(hinton, "trained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hinton.remake()
    assert hinton.stored_runs() == whole[:2] and hinton.state_path(4).exists()
    assert "missing" in hinton.table(hinton.stored_runs())[-1]
    asked = []
    monkeypatch.setattr(hinton, "trained", lambda arm, data, seed: asked.append(arm) or train(arm, data, seed))
    hinton.remake()
    assert asked == [TAUGHT, WITHOUT] and hinton.stored_runs() == whole


def test_the_teacher_learns_with_dropout_and_bounded_weights_and_the_student_without(small, monkeypatch):
    monkeypatch.setattr(hinton, "LARGEST_NORM", 0.5)
    teacher = hinton.teacher_of(small, 4)
    norms = [layer.weight.detach().norm(dim=1) for layer in teacher.modules() if isinstance(layer, torch.nn.Linear)]
    assert [len(norm) for norm in norms] == [48, 48, 10]
    assert all(float(norm.max()) == pytest.approx(0.5, abs=1e-4) for norm in norms[:2]) and norms[2].max() > 0.5
    rates = [layer.p for layer in teacher.modules() if isinstance(layer, torch.nn.Dropout)]
    assert rates == [0.2, 0.5, 0.5]
    student = hinton.lesson(small, 4)
    assert not any(layer.p for layer in student.student.network.modules() if isinstance(layer, torch.nn.Dropout))
    assert (student.weight_decay, student.shift, student.seed) == (0.0, 0, 4)


def test_each_student_learns_from_the_same_teacher_by_its_own_lesson(small, monkeypatch):
    taught = []
    monkeypatch.setattr(
        hinton.SoftTargetDistillation, "__call__", lambda method, *given: taught.append((method, *given))
    )
    for arm in (ALONE, TAUGHT, WITHOUT):
        hinton.trained(arm, small, 4)
    assert [method.weight for method, _, _ in taught] == [0.0, 0.5, 0.5]
    assert [bool((data.y_train == NEVER).any()) for _, _, data in taught] == [True, True, False]
    assert len({identity(teacher) for _, teacher, _ in taught}) == 1
    assert len({method.student.digest for method, _, _ in taught}) == 1, "all students start alike"


def test_no_image_of_the_class_is_left_for_training_and_all_are_for_judging(small):
    left = hinton.without(small, NEVER)
    gone = int((small.y_train == NEVER).sum())
    assert gone > 0 and not (left.y_train == NEVER).any() and len(left.x_train) == len(small.x_train) - gone
    assert left.y_test is small.y_test and left.classes == small.classes


def test_the_bias_has_the_fewest_errors_of_all(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 10, generator=generator)
    labels = torch.randint(0, 10, (400,), generator=generator)
    logits[torch.arange(400), labels] += 1.5
    logits[:, NEVER] -= 4

    def errors(bias: float) -> int:
        moved = logits + bias * torch.eye(10)[NEVER]
        return int((moved.argmax(1) != labels).sum())

    found = hinton.best_bias(logits, labels)
    assert errors(found) == min(errors(bias / 100) for bias in range(-200, 1500)) < errors(0.0)


def test_a_run_counts_errors_and_those_on_threes():
    data = datasets.load("digits").shortened(train=10, validation=3, test=4)
    data = replace(data, y_test=torch.tensor([3, 3, 1, 2]))
    said = torch.tensor([3, 1, 1, 3])
    logits = torch.nn.functional.one_hot(said, 10).float()
    run = Run.of(WITHOUT, 0, {"test": logits}, data)
    assert (run.errors, run.threes) == ({"test": 2}, {"test": 1})
    run = Run.of(CORRECTED, 0, {"test": logits}, data, bias=2.0)
    assert (run.errors, run.threes) == ({"test": 2}, {"test": 0})
    assert logits[:, NEVER].tolist() == [1, 0, 0, 1]


def test_the_table_puts_the_paper_beside_ours_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(hinton, "SEEDS", (0, 1))
    counts = {TEACHER: (80, 9), ALONE: (160, 15), TAUGHT: (100, 8), WITHOUT: (900, 830), CORRECTED: (130, 21)}
    one = made(counts, 0)
    lines = hinton.table(one + made(counts | {TAUGHT: (80, 8)}, 1))
    assert lines[3].split() == ["student", "taught", "74", "90.0", "100,", "80", "7.0", "8.0", "8,", "8"]
    assert lines[4].split()[-10:] == ["3", "206", "900.0", "900,", "900", "7.0", "133", "830.0", "830,", "830"]
    assert lines[-1].endswith("closes: 91% in the paper, 88% here (seeds: 75%, 100%)")
    lines = hinton.table(one)
    assert all("missing" in line for line in lines[1:]) and "900, missing" in lines[4]


def test_runs_with_other_settings_and_other_files_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "runs.json"
    monkeypatch.setattr(hinton, "path", lambda: file)
    assert hinton.stored_runs() == []
    hinton.store(made({TEACHER: (80, 9)}, 0))
    assert hinton.stored_runs() == made({TEACHER: (80, 9)}, 0)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"settings": content["settings"] | {"largest_norm": 9.0}}))
    with pytest.raises(CompressionError, match=r"runs\.json holds runs with other settings, .*: move it away"):
        hinton.stored_runs()
    file.write_text(json.dumps([asdict(run) for run in made({TEACHER: (80, 9)}, 0)]))
    with pytest.raises(CompressionError, match=r"runs\.json does not hold runs .*: delete it, and compute them anew"):
        hinton.stored_runs()


def test_the_stored_runs_are_complete_and_teaching_closes_more_than_half_of_the_gap():
    runs = hinton.stored_runs()
    assert [(run.seed, run.arm) for run in runs] == [(seed, arm) for seed in hinton.SEEDS for arm in PAPER]
    errors = {(run.arm, run.seed): run.errors["test"] for run in runs}
    for seed in hinton.SEEDS:
        assert hinton.closed(*(errors[arm, seed] for arm in (TEACHER, ALONE, TAUGHT))) > 0.5


def test_the_stored_students_recognize_the_digit_that_they_never_saw_better_with_the_bias_from_validation_images():
    """Of 1,010 threes the paper's student had 133 wrong, and 14 with its bias corrected."""
    stored = {(run.arm, run.seed): run for run in hinton.stored_runs()}
    assert mean([stored[CORRECTED, seed].threes["test"] for seed in hinton.SEEDS]) < 0.02 * 1010
    for seed in hinton.SEEDS:
        plain = stored[WITHOUT, seed]
        corrected = stored[CORRECTED, seed]
        assert plain.threes["test"] < 0.2 * 1010 and corrected.threes["test"] < plain.threes["test"] / 4
        assert corrected.bias > 0 and corrected.errors["validation"] < plain.errors["validation"]
        assert corrected.errors["test"] < plain.errors["test"]
