"""Sweeps: every point once whatever interrupts, the same on any number of processes, nothing lost or misread."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from typing import ClassVar

import joblib
import pytest
import torch

from compedu.datasets import DATASETS
from compedu.errors import Cancelled, CompressionError
from compedu.knobs import knob, method
from compedu.methods import LinearQuantization, MagnitudePruning, RegularizedPruning, SmallDense, TruncatedSVD
from compedu.methods.method import Method
from compedu.metrics import Timing, measure
from compedu.networks import build
from compedu.sweeps import grid, method_of, nearest, read_sweep, stored_points, sweep
from compedu.sweeps.keys import point_key
from compedu.sweeps.store import compact

QUICK = Timing(batch_size=2, budget_s=0.0)
POINTS = grid(MagnitudePruning, "sparsity", 4)


@method
class Counted(Method):
    """Leaves the model as it is, notes that it was called, and raises if asked."""

    family: ClassVar[str] = "training"
    calls: ClassVar[list] = []
    error: ClassVar[Exception | None] = None

    number: int = knob(default=0, help="which point", low=0, high=99, slider_range=(0, 9))
    scale: float = knob(default=1.0, help="on a range that no slider narrows", low=0, high=1, log=True)

    def compress(self, task):
        self.calls.append(self.number)
        if self.error is not None:
            raise self.error
        return task.model


COUNTED = [Counted(number=number) for number in range(5)]


@pytest.fixture(scope="module")
def data():
    return DATASETS["digits"]().shortened(train=50, validation=60, test=20)


@pytest.fixture(scope="module")
def model():
    return build("lenet300(width=0.1)")


@pytest.fixture
def store(tmp_path):
    Counted.calls.clear()
    return tmp_path / "new folder" / "sweep.jsonl"


def figures(reports):
    return {
        r.method: (r.correct, r.loss, r.file_bytes, r.entropy_coded_bytes, r.macs, r.change, r.layers) for r in reports
    }


def lines(store):
    return [json.loads(line) for line in store.read_text().splitlines()]


# Points


def test_reports_are_those_of_measure_without_lists_of_images(model, data):
    (found,) = sweep([MagnitudePruning(sparsity=0.9)], model, data)
    alone = measure(MagnitudePruning(sparsity=0.9)(model), data, baseline=model, speed=False)
    assert found == replace(alone, newly_wrong=None, newly_right=None, machine=found.machine)
    assert found.machine["threads"] == 1


def test_a_compacted_file_holds_each_point_once_the_newest(model, data, store):
    list(sweep(POINTS[:3], model, data, store=store))
    timed = list(sweep(POINTS[:2], model, data, speed=QUICK, store=store))
    before = read_sweep(store)
    assert len(store.read_text().splitlines()) == 2 + 3 + 2
    compact(store)
    after = read_sweep(store)
    assert after.reports == before.reports and len(after.runs) == 2
    assert len(store.read_text().splitlines()) == 2 + 3
    assert sum(report.latency is not None for report in after.reports.values()) == len(timed) == 2
    list(sweep(POINTS[2:3], model, data, speed=QUICK, store=store))
    compact(store)
    assert len(read_sweep(store).runs) == 2, "the run whose last point was measured again is gone"
    assert list(sweep(POINTS[:3], model, data, speed=QUICK, store=store)) and len(store.read_text().splitlines()) == 5


def test_a_point_named_twice_is_computed_once(model, data, store):
    assert len(list(sweep([*COUNTED, *COUNTED], model, data))) == 5 and sorted(Counted.calls) == [0, 1, 2, 3, 4]


def test_no_points_are_no_reports(model, data, store):
    assert list(sweep([], model, data, store=store)) == [] and not store.exists()


def test_a_baseline_that_cannot_be_measured_is_an_error_of_the_sweep(data, store):
    broken = build("lenet300(width=0.1)")
    broken.fc1.bias.data[0] = torch.nan
    with pytest.raises(CompressionError, match="fc1.bias"):
        list(sweep(POINTS, broken, data, store=store))


# Interruption


def test_a_sweep_that_is_dropped_midway_goes_on_where_it_stopped(model, data, store):
    first = sweep(COUNTED, model, data, store=store)
    seen = [next(first), next(first)]
    del first
    again = list(sweep(COUNTED, model, data, store=store))
    assert again[:2] == seen and len(again) == 5 and sorted(Counted.calls) == [0, 1, 2, 3, 4]
    assert figures(again) == figures(sweep(COUNTED, model, data)) and len(Counted.calls) == 10


def test_a_cancelled_point_ends_the_sweep_and_is_no_failure(model, data, store, monkeypatch):
    done = sweep(COUNTED, model, data, store=store)
    next(done)
    monkeypatch.setattr(Counted, "error", Cancelled())
    with pytest.raises(Cancelled):
        next(done)
    assert done.failures == [] and len(read_sweep(store).reports) == 1


KILLED = """
import os, signal, sys, torch
from compedu.datasets import DATASETS
from compedu.methods import MagnitudePruning
from compedu.networks import build
from compedu.sweeps import grid, sweep
data = DATASETS["digits"]().shortened(train=50, validation=60, test=20)
points = grid(MagnitudePruning, "sparsity", 4)
for number, report in enumerate(sweep(points, build("lenet300(width=0.1)"), data, store=sys.argv[1]), start=1):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no signal that ends a process at once")
def test_a_killed_process_loses_no_finished_point(model, data, store, monkeypatch):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(store)], env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert ended.returncode == -signal.SIGKILL and len(read_sweep(store).reports) == 2
    called, compress = [], MagnitudePruning.compress
    monkeypatch.setattr(MagnitudePruning, "compress", lambda self, task: called.append(self) or compress(self, task))
    assert len(list(sweep(POINTS, model, data, store=store))) == 4
    assert len(called) == 2 and len(read_sweep(store).runs) == 2


def test_a_half_written_last_line_is_computed_again(model, data, store):
    whole = figures(sweep(COUNTED, model, data, store=store))
    text = store.read_bytes()
    store.write_bytes(text[:-40])
    assert len(read_sweep(store).reports) == 4
    Counted.calls.clear()
    assert figures(sweep(COUNTED, model, data, store=store)) == whole and Counted.calls == [4]
    assert len(read_sweep(store).reports) == 5 and [next(iter(line)) for line in lines(store)].count("run") == 2


def test_a_last_line_without_its_end_counts_and_gets_one(model, data, store):
    whole = figures(sweep(COUNTED[:3], model, data, store=store))
    store.write_bytes(store.read_bytes()[:-1])
    assert figures(sweep(COUNTED[:3], model, data, store=store)) == whole and len(Counted.calls) == 3
    list(sweep(COUNTED[:4], model, data, store=store))
    assert [next(iter(line)) for line in lines(store)] == ["run", *["key"] * 3, "run", "key"]


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b"my notes\n",
        b"[1, 2]",
        b"{}",
        b'{"run"',
        b'{"run": {"format": 2}}\nmy notes',
        b"\x89PNG\r\n",
        b"\n",
    ],
    ids=repr,
)
def test_a_file_of_somebody_else_is_refused_and_stays_as_it_was(content, model, data, store):
    store.parent.mkdir()
    store.write_bytes(content)
    if content == b'{"run"':  # what an interruption leaves of the first line
        assert len(list(sweep(COUNTED[:1], model, data, store=store))) == 1 and len(lines(store)) == 2
        return
    with pytest.raises(CompressionError, match="choose another file"):
        list(sweep(COUNTED[:1], model, data, store=store))
    assert store.read_bytes() == content and Counted.calls == []


def test_a_file_that_became_somebody_elses_meanwhile_is_refused_too(model, data, store):
    running = sweep(COUNTED, model, data, store=store)
    next(running)
    store.write_bytes(b"my notes")
    with pytest.raises(CompressionError, match="stays as it is"):
        next(running)
    assert store.read_bytes() == b"my notes"


def test_sweeps_that_share_a_file_lose_nothing_and_say_of_each_point_in_which_run_it_was_made(
    model, data, store, monkeypatch
):
    one, other = (sweep(points, model, data, store=store) for points in (COUNTED[:2], COUNTED[2:]))
    monkeypatch.setattr("compedu.sweeps.store.conditions", lambda: {"format": 2, "made by": Counted.calls[-1] > 1})
    for turn in (one, other, other, one, other):
        next(turn)
    found, run = {}, None
    for line in lines(store):
        run = line.get("run", run)
        if "report" in line:
            found[line["report"]["method"]] = run["made by"]
    assert found == {repr(point): point.number > 1 for point in COUNTED}
    assert len(read_sweep(store).reports) == 5


def test_a_finished_sweep_is_not_touched(model, data, store):
    list(sweep(COUNTED, model, data, store=store))
    before = store.read_bytes()
    assert len(list(sweep(COUNTED, model, data, store=store))) == 5
    assert store.read_bytes() == before and len(Counted.calls) == 5


# What counts as the same point


@pytest.mark.parametrize("change", ["weights", "images", "split", "knob", "version"])
def test_another_result_is_another_point(change, model, data, store, monkeypatch):
    list(sweep(COUNTED[:1], model, data, store=store))
    other, images, split, chosen = model, data, "validation", COUNTED[0]
    if change == "weights":
        other = build("lenet300(width=0.1)", seed=1)
    elif change == "images":
        images = data.shortened(validation=59)
    elif change == "split":
        split = "test"
    elif change == "knob":
        chosen = COUNTED[1]
    else:
        monkeypatch.setattr(Counted, "version", 2)
    list(sweep([chosen], other, images, split=split, store=store))
    assert len(Counted.calls) == 2 and len(read_sweep(store).reports) == 2


# Failures


def test_a_point_that_cannot_be_computed_is_noted_with_its_message_and_not_tried_again(model, data, store):
    impossible = TruncatedSVD(rank=10_000, layers="fc2")
    first = sweep([impossible, *POINTS], model, data, store=store)
    assert len(list(first)) == 4
    (failure,) = first.failures
    assert failure.method == repr(impossible) and failure.kind == "CompressionError" and "fc2" in failure.message
    before = store.read_bytes()
    again = sweep([impossible, *POINTS], model, data, store=store)
    assert len(list(again)) == 4 and again.failures == [failure] and store.read_bytes() == before


def test_an_error_that_may_pass_is_tried_once_in_every_run(model, data, store, monkeypatch):
    monkeypatch.setattr(Counted, "error", MemoryError("none left"))
    for run in (1, 2):
        found = sweep(COUNTED[:2], model, data, store=store)
        assert list(found) == [] and [f.message for f in found.failures] == ["none left"] * 2
        assert len(Counted.calls) == 2 * run
    monkeypatch.setattr(Counted, "error", None)
    found = sweep(COUNTED[:2], model, data, store=store)
    assert len(list(found)) == 2 and found.failures == [] and read_sweep(store).failures == {}


# Processes


def test_processes_agree_with_this_one_in_every_figure_but_time(model, data, store):
    # Files name the class of a method, so the workers can have only what they can import: no class of this test.
    points = [*POINTS, *grid(LinearQuantization(activation_bits=8), "bits", 2), TruncatedSVD(rank=10_000, layers="fc2")]
    alone, shared = sweep(points, model, data), sweep(points, model, data, workers=2, store=store)
    assert figures(alone) == figures(shared) and len(alone.failures) == len(shared.failures) == 1
    assert alone.failures[0] == shared.failures[0] and len(read_sweep(store).reports) == 6


def test_what_joblib_is_told_around_the_call_counts(model, data, store, monkeypatch):
    expected = figures(sweep(POINTS[:2], model, data))
    monkeypatch.setattr(MagnitudePruning, "compress", lambda self, task: pytest.fail("computed in this process"))
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert figures(sweep(POINTS[:2], model, data)) == expected
        next(sweep(POINTS, model, data))  # left early: the rest is neither waited for nor complained about


def test_a_killed_worker_is_one_sentence_on_what_is_kept_and_how_to_go_on(model, data, store, monkeypatch):
    list(sweep(POINTS[:2], model, data, store=store))
    # a function of no module: it travels to the workers by value
    killed = eval("lambda *given: __import__('os')._exit(1)", {"__name__": "__main__"})
    with monkeypatch.context() as dying:
        dying.setattr("compedu.sweeps.running.compute", killed)
        running = sweep(POINTS, model, data, store=store, workers=2)
        assert len([next(running), next(running)]) == 2
        with pytest.raises(CompressionError) as caught:
            next(running)
    assert str(caught.value) == (
        "a worker process was killed, from outside or by the system because memory ran out: try fewer workers; "
        f"all finished points are in {store}, and the same sweep resumes with the others"
    )
    assert len(list(sweep(POINTS, model, data, store=store))) == 4


def test_a_killed_worker_of_a_sweep_without_a_file_says_that_nothing_is_kept(model, data, monkeypatch):
    def killed(calls):
        raise BrokenExecutor
        yield

    monkeypatch.setattr(joblib, "Parallel", lambda **options: killed)
    with pytest.raises(CompressionError, match="nothing was saved, because no store was named: name one, and"):
        list(sweep(POINTS, model, data))


ORPHANING = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from compedu.processes import end_with_parent
pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent)
pool.submit(time.sleep, 0).result()
pool.submit(time.sleep, 1e6)
print("working", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no signal that ends a process at once")
def test_workers_end_with_the_process_that_started_them():
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    # the worker writes to the same pipe: `run` returns when it has ended too
    ended = subprocess.run(
        [sys.executable, "-c", ORPHANING], env=environment, stdout=subprocess.PIPE, timeout=300, text=True
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "working\n")


@pytest.mark.parametrize("workers", [0, -1, 2.0, True, "2", 10_000])
def test_more_processes_than_cores_are_refused(workers, model, data):
    with pytest.raises(ValueError, match=f"one process for each core of this machine, or None, got {workers!r}"):
        sweep(POINTS, model, data, workers=workers)


def test_threads_of_one_process_do_not_disturb_each_other(model, data, store):
    expected = figures(sweep(COUNTED, model, data))
    with joblib.parallel_config(backend="threading", n_jobs=3):
        shared = sweep(COUNTED, model, data)
        assert figures(shared) == expected and shared.failures == []


# Time


def test_time_is_taken_after_all_points_are_computed(model, data, store):
    order = []
    for report in sweep(COUNTED, model, data, speed=QUICK, store=store):
        assert len(Counted.calls) == 5 and report.latency.batch_size == 2 and report.latency.verdict is not None
        order.append(report.method)
    assert sorted(order) == sorted(map(repr, COUNTED))
    assert list(store.parent.iterdir()) == [store]  # the models that waited are gone


def test_time_that_was_interrupted_goes_on_without_computing_a_model_again(model, data, store):
    first = sweep(COUNTED, model, data, speed=QUICK, store=store)
    timed = next(first)
    del first
    again = list(sweep(COUNTED, model, data, speed=QUICK, store=store))
    assert again[0] == timed and len(again) == 5 and len(Counted.calls) == 5
    assert list(store.parent.iterdir()) == [store]
    assert list(sweep(COUNTED, model, data, store=store)) == list(read_sweep(store).reports.values())


def test_time_is_taken_again_on_another_machine_or_with_another_plan(model, data, store):
    list(sweep(COUNTED[:1], model, data, speed=QUICK, store=store))
    (other,) = sweep(COUNTED[:1], model, data, speed=Timing(batch_size=3, budget_s=0.0), store=store)
    assert other.latency.batch_size == 3
    store.write_text(store.read_text().replace(json.dumps(other.machine["cpu"]), '"Another CPU"'))
    (again,) = sweep(COUNTED[:1], model, data, speed=Timing(batch_size=3, budget_s=0.0), store=store)
    assert again.machine["cpu"] == other.machine["cpu"] and len(lines(store)) == 7  # 3 runs; 1 point, timed 3 times


def test_time_without_a_file_leaves_nothing_behind(model, data, store):
    assert all(report.latency for report in sweep(COUNTED[:2], model, data, speed=QUICK))
    assert not store.parent.exists()


# The file


def test_a_file_says_with_what_and_where_it_was_made(model, data, store):
    list(sweep(POINTS[:1], model, data, store=store))
    run = lines(store)[0]["run"]
    assert run["versions"].keys() == {"compedu", "torch", "numpy", "joblib"}
    assert run["versions"]["torch"] == torch.__version__
    assert run["machine"]["cpu"] and run["date"][:2] == "20" and run["date"].endswith("+00:00") and run["format"] == 2


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{}\n", "no line of versions"),
        ("not JSON\n", "line 1"),
        ("[1]\n", "line 1"),
        ('{"run": {"format": 3}}\n', "format 3, this version reads 2: update compedu"),
        ('{"run": {"format": 1}}\n', "format 1, this version reads 2: an older version wrote it, compute it again"),
        ('{"run": {"format": 2}}\n{"key": "x"}\n', "line 2"),
        ('{"run": {"format": 2}}\n{"key": "x", "report": {}}\n', "this is not a report"),
        ('{"run": {"format": 2}}\n{"key": "x", "report": {"meth\n{}\n', "line 2"),
    ],
)
def test_anything_else_is_refused_with_its_line(text, reason, store):
    store.parent.mkdir()
    store.write_text(text)
    with pytest.raises(CompressionError, match=reason):
        read_sweep(store)


# Grids, texts and previews


def test_a_grid_spreads_one_knob_and_keeps_the_others():
    points = grid(LinearQuantization(activation_bits=8), "bits", 8)
    assert [point.bits for point in points] == list(range(1, 9)) and {point.activation_bits for point in points} == {8}
    assert [point.sparsity for point in POINTS] == [0.0, 0.33, 0.66, 0.99]
    with pytest.raises(ValueError, match="MagnitudePruning has no knob 'bits'; it has: sparsity"):
        grid(MagnitudePruning, "bits")


@pytest.mark.parametrize(
    "chosen",
    [
        MagnitudePruning(),
        MagnitudePruning(sparsity={"fc*": 0.5, "*": 0.9}, layers="-fc3"),
        LinearQuantization(bits=4, scales="tensor"),
        MagnitudePruning(sparsity=0.9) | LinearQuantization(bits=4) | SmallDense(),
    ],
    ids=repr,
)
def test_a_method_is_read_back_from_its_repr(chosen):
    assert method_of(repr(chosen)) == chosen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "MagnitudePruning",
        "MagnitudePruning(0.9)",
        "MagnitudePruning(sparsity=2.0)",
        "MagnitudePruning(bits=2)",
        "MagnitudePruning(sparsity=open('x'))",
        "Unknown()",
        "MagnitudePruning() + LinearQuantization()",
        "MagnitudePruning(**{})",
        "__import__('os').getcwd()",
        "MagnitudePruning() |",
    ],
)
def test_any_other_text_is_no_method(text):
    with pytest.raises(ValueError):
        method_of(text)


def test_the_nearest_point_is_of_the_same_steps_and_the_closest_knobs(model, data, store):
    together = MagnitudePruning(sparsity=0.7, budget="global")
    pruned = list(sweep([*POINTS, together, *COUNTED[:1]], model, data))
    assert nearest(pruned, MagnitudePruning(sparsity=0.6)).method == "MagnitudePruning(sparsity=0.66)"
    assert nearest(pruned, MagnitudePruning(sparsity=0.9, budget="global")).method == repr(together)
    assert nearest(pruned, MagnitudePruning(sparsity={"*": 0.5})) is not None
    assert nearest(pruned, LinearQuantization()) is nearest([], MagnitudePruning()) is None
    assert nearest(pruned, MagnitudePruning() | LinearQuantization()) is None


def test_a_knob_on_a_log_scale_is_near_by_ratio():
    reports = [Told(repr(SmallDense(width=width))) for width in (0.05, 0.5)]
    assert nearest(reports, SmallDense(width=0.15)) is reports[0]
    assert nearest(reports, SmallDense(width=0.2)) is reports[1]


def test_a_zero_on_a_logarithmic_scale_is_a_range_below_the_lowest_value_worth_showing():
    reports = [Told(repr(RegularizedPruning(strength=strength))) for strength in (0.0, 1e-6, 3.0)]
    zero, low, high = reports
    assert nearest(reports, RegularizedPruning(strength=0.0)) is zero
    assert nearest(reports[1:], RegularizedPruning(strength=0)) is low
    assert nearest([zero, high], RegularizedPruning(strength=1e-5)) is high
    assert nearest([zero], RegularizedPruning(strength=1e-6), within=0.99) is None
    assert nearest([zero], RegularizedPruning(strength=1e-6), within=1.01) is zero
    untoured = [Told(repr(Counted(scale=scale))) for scale in (0.0, 0.5)]
    assert nearest(untoured, Counted(scale=0.25)) is untoured[0]


class Told:
    """A report of which only the method is known."""

    def __init__(self, method):
        self.method = method


def test_stored_points_are_those_of_the_very_model_and_images_in_the_order_of_the_knob(model, data, store, monkeypatch):
    both, control = MagnitudePruning() | LinearQuantization(), SmallDense(width=0.5, epochs=1)
    list(sweep([*reversed(POINTS), LinearQuantization(), both, control], model, data, store=store))
    found = stored_points(MagnitudePruning, model, data, paths=[store])
    stored_points(MagnitudePruning, model, data, paths=[store]).points[0].machine.clear()  # a reader's own copy
    assert found == stored_points(MagnitudePruning, model, data, paths=[store])
    assert [report.method for report in found.points] == [repr(point) for point in POINTS]
    assert [report.method for report in found.controls] == ["SmallDense(width=0.5, epochs=1)"]
    assert stored_points(MagnitudePruning, build("lenet300(width=0.1)", seed=1), data, paths=[store]) == ((), (), ())
    assert stored_points(MagnitudePruning, model, data.shortened(validation=10), paths=[store]) == ((), (), ())
    assert stored_points(MagnitudePruning, model, data, "test", paths=[store]) == ((), (), ())
    monkeypatch.setattr(MagnitudePruning, "version", 99)
    assert stored_points(MagnitudePruning, model, data, paths=[store]).points == ()


def test_the_key_of_a_point_holds_all_that_its_result_depends_on(model, data):
    key = point_key(MagnitudePruning(), model, data, "validation")
    assert "sparsity=0.8" in key and data.digest in key and "|validation|" in key


def test_rank_one_is_not_the_full_rank():
    full, small = (Told(repr(TruncatedSVD(rank=rank))) for rank in (1.0, 2))
    assert nearest([full, small], TruncatedSVD(rank=1)) is small
    assert nearest([full], TruncatedSVD(rank=1), within=0.99) is None
