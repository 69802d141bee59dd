"""The same student taught in every way: all ways start and train alike, and the table tells the stored runs."""

from dataclasses import replace

import pytest

import compedu as ce
from compedu.methods import METHODS, LabelSmoothing, ModelCompression, RandomTeacher, TeacherAssistant
from compedu.metrics.seeds import student_interval
from compedu.replications import students
from compedu.replications.races import SEEDS
from compedu.sweeps import method_of
from compedu.sweeps.store import Store

LED = {"soft targets": 2.0, "attention maps": -3.0, "similarity": 0.0}  # points to the student alone, on average


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A store with three seeds of some ways, whose accuracies are known."""
    file = tmp_path / "students.jsonl"
    monkeypatch.setattr(students, "path", lambda: file)
    model, data = ce.load("lenet5", "digits")
    report = ce.measure(model, data.shortened(test=100), split="test", speed=False)
    store = Store(file)
    for place, seed in enumerate(SEEDS[:3]):
        for name, points in {students.ALONE: 0.0, **LED}.items():
            method = students.seeded(students.arms()[name], seed)
            right = round(500 + 100 * place + 10 * points + (place - 1) * (0 if name == students.ALONE else 25))
            made = replace(report, method=repr(method), correct=right, seen=1000, total=1000, split="test")
            store.append({"key": f"{name} {seed}", "report": made.as_dict()})


def test_every_way_of_the_family_that_trains_a_student_takes_part():
    kinds = {type(method) for method in students.arms().values()}
    missing = {cls for cls in METHODS if cls.family == "distillation" and cls().needs == "training"} - kinds
    assert {cls.__name__ for cls in missing} <= {"Net2Wider", "Net2Deeper"}  # their networks are larger ones


def test_all_ways_have_one_student_start_and_number_of_steps():
    for name, method in students.arms().items():
        given = method.distillation if isinstance(method, RandomTeacher) else method
        assert (given.student, given.lr, given.seed) == (students.SOFT.student, students.SOFT.lr, students.SOFT.seed)
        factor = 2 if name == "longer" else 1
        if isinstance(method, ModelCompression):  # of a transfer set that is larger
            given = replace(given, epochs=given.epochs * (students.COPIES + 1) + 1)
        assert given.epochs == factor * students.SOFT.epochs, name
    assert isinstance(students.arms()["label smoothing"], LabelSmoothing)
    assert isinstance(students.arms()["teacher assistant"], TeacherAssistant)


def test_a_seed_changes_the_student_inside_a_control_as_well_and_the_text_is_the_method():
    for method in students.arms().values():
        made = students.seeded(method, 13)
        assert made.seed == 13 and method_of(repr(made)) == made
        if isinstance(made, RandomTeacher):
            assert made.distillation.seed == 13


def test_the_table_tells_means_intervals_and_verdicts_of_the_stored_seeds(stored):
    gains = students.gains()
    assert gains["soft targets"] == pytest.approx([-0.5, 2.0, 4.5])
    assert students.ALONE in gains and gains["decoupled"] == []
    rows = {row[0]: row for row in students.table().rows[1:]}
    assert set(rows) == set(LED)
    low, high = student_interval(gains["soft targets"])
    assert rows["soft targets"][2:4] == ("+2.00", f"{low:+.2f} to {high:+.2f}")
    assert all(rows[name][-1] == "undecided" for name in ("soft targets", "attention maps"))


def test_a_way_helps_or_hurts_only_beyond_the_interval_that_all_ways_share(stored, monkeypatch):
    known = {students.ALONE: [0.0] * 4, "soft targets": [2.0, 2.1, 1.9, 2.0], "relations": [-1.0, -1.1, -0.9, -1.0]}
    monkeypatch.setattr(students, "gains", lambda: known | {"similarity": [0.5, 1.6, 1.0, 1.2]})
    verdicts = {row[0]: row[-1] for row in students.table().rows[1:]}
    assert verdicts == {"soft targets": "helps", "similarity": "undecided", "relations": "hurts"}
    assert student_interval([0.5, 1.6, 1.0, 1.2])[0] > 0, "though its own interval excludes zero"
