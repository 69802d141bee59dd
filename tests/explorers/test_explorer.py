"""The explorer as a whole: previews, measurements, messages of the page, refusals, trainings, methods of one's own."""

import re
import threading
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from page_of_explorer import fill, numbers, say, shown_figures, turn
from torch import nn

import compedu as ce
from compedu.errors import Cancelled
from compedu.explorers import explore, session
from compedu.explorers.figures.gauges import captions
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.panel.badge import badge
from compedu.explorers.view import Learning, State
from compedu.knobs import knob, method
from compedu.methods.layer_method import LayerMethod
from compedu.sweeps import method_of
from compedu.training import Step


def test_a_move_is_previewed_from_points_measured_before_then_measured(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    states = []
    told = explorer._session._changed
    explorer._session._changed = lambda news: (told(news), states.append((explorer.state, explorer.view.report)))
    explorer.set(sparsity=0.52)
    assert explorer.settle(60).method == "MagnitudePruning(sparsity=0.52)"
    assert next(state for state, _ in states) == "PREVIEW" and states[0][1].method == "MagnitudePruning(sparsity=0.5)"
    assert [state for state, _ in states][-1] == "FINAL" and "MEASURING" in [state for state, _ in states]


def test_a_point_far_along_the_knob_is_not_shown_for_another(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    previews = []
    told = explorer._session._changed
    explorer._session._changed = lambda news: (
        told(news), previews.append((badge(explorer.view)[0], captions(explorer.view)[0], explorer.view.report))
    )  # fmt: skip
    explorer.set(sparsity=0.9).settle(60)
    assert previews[0] == ("NOT MEASURED", ("…", "not measured yet"), None)
    previews.clear()
    explorer.set(sparsity=0.89).settle(60)
    assert previews[0][0] == "PREVIEW, nearby" and "nearest point" in previews[0][1][1]
    previews.clear()
    explorer.set(sparsity=0.89, budget="global").settle(60)  # as near along the slider, but another curve
    assert previews[0][2] is None


def test_before_a_run_badge_and_caption_say_that_the_picture_is_the_dense_network(made, measured):
    explorer = made(ce.GradualPruning(sparsity=0.9, epochs=1))
    view, picture = explorer.view, explorer._screen.picture
    assert badge(view)[0] == explorer.widget.shown["badge"] == "NOT RUN"
    for shown in pictures_of(ce.GradualPruning) + pictures_of(ce.FilterPruning) + pictures_of(ce.CReLU):
        assert shown.say(view, "conv1") == "conv1 of the dense network, none compressed yet"
    stored = replace(view.baseline, method=repr(view.method))
    assert badge(replace(view, report=stored))[0] == "STORED, not run"
    near = replace(view.baseline, method="GradualPruning(sparsity=0.91, epochs=1)")
    for state, word in (("PREVIEW", "PREVIEW, nearby"), ("RUNNING", "RUNNING"), ("CANCELLED", "CANCELLED")):
        seen = replace(view, report=near, state=state)
        assert badge(seen)[0] == word and captions(seen)[0][0].startswith("≈")
    measured(explorer)
    assert "weights left" in picture.say(view, "conv1")


def test_a_step_that_ends_after_the_cancel_does_not_say_running_again(made, pair):
    explorer = made(ce.FineTune(epochs=1))
    explorer.cancel()
    stale = iter([False, True])  # cancelled while the step was being shown
    with pytest.raises(Cancelled):
        explorer._session._on_step(Step(1, 2, 0.5, pair[0]), Learning(), lambda: next(stale))
    assert explorer.state == "CANCELLED" and explorer.view.learning.losses == []


def test_the_knob_of_images_is_in_front_only_where_images_matter(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    assert "calibration_images" not in explorer.widget.shown["front"]
    explorer.set(budget="sensitivity", calibration_images=16).settle(60)
    assert explorer.widget.shown["front"] == ["sparsity", "budget", "calibration_images"]
    assert [one["name"] for one in explorer.widget.parts["knobs"]] == list(explorer._controls)
    assert list(explorer.widget.shown["knobs"]) == list(explorer._controls)


def test_an_illegal_value_is_shown_and_the_next_move_goes_on(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    fill(explorer, "sparsity", "1.5")
    assert explorer.state == State.ERROR and explorer.widget.shown["knobs"]["sparsity"]["text"] == "1.5"
    message = explorer.widget.shown["message"]
    assert re.search(r"MagnitudePruning.sparsity must be a number from 0 to below 1.*got 1.5", message)
    fill(explorer, "sparsity", "much")
    assert explorer.widget.shown["knobs"]["sparsity"]["refused"] and "much" in explorer.widget.shown["message"]
    fill(explorer, "sparsity", "0.6")
    assert measured(explorer).method == "MagnitudePruning(sparsity=0.6)" and explorer.widget.shown["message"] == ""


def test_an_exception_inside_a_method_is_shown_with_class_message_and_traceback(made):
    explorer = made(Breaking(share=0.5))
    assert explorer.settle(60) is None and explorer.state == State.ERROR
    shown = explorer.widget.shown["message"]
    assert "ZeroDivisionError: broken &lt;on purpose&gt;" in shown and "Traceback" in shown and "<details>" in shown
    assert explorer.widget.shown["gauges"]["accuracy"] == ("…", "failed: the message says why")


def test_a_refused_setting_waits_for_no_measurement(made, measured):
    explorer = made(ce.TruncatedSVD(rank=0.1, layers="fc1"))
    measured(explorer)
    fill(explorer, "rank", "0.75")
    explorer.settle(60)
    for _ in range(2):
        assert explorer.state == State.ERROR
        assert {gauge[1] for gauge in explorer.widget.shown["gauges"].values()} == {"refused: the message says why"}
        waiting = str(explorer.widget.panes) + explorer.widget.shown["said"]
        assert not any(word in waiting for word in ("measured yet", "appear", "is complete"))
        assert "give no network" in explorer.widget.shown["said"]
        fill(explorer, "rank", "much")
    assert "TruncatedSVD" not in explorer.widget.shown["said"], "the last method is not what was refused"
    fill(explorer, "rank", "0.2")
    assert measured(explorer) and "refused" not in str(explorer.widget.panes) + str(explorer.widget.shown["gauges"])


def test_set_refuses_what_the_method_refuses_and_unknown_knobs(made):
    explorer = made(ce.MagnitudePruning)
    with pytest.raises(ValueError, match="no knob 'bits'; it has: sparsity, budget, calibration_images, layers"):
        explorer.set(bits=3)
    with pytest.raises(ValueError, match="sparsity must be"):
        explorer.set(sparsity=2.0)


def test_the_code_line_moves_the_knobs(made):
    explorer = made(ce.TruncatedSVD)
    say(explorer, "code", text="TruncatedSVD(rank={'fc1': 0.1, 'conv2': 0.3}, layers='fc1 conv2')")
    assert explorer.method == ce.TruncatedSVD(rank={"fc1": 0.1, "conv2": 0.3}, layers="fc1 conv2")
    assert explorer.widget.shown["knobs"]["rank"]["text"] == "fc1=0.1,conv2=0.3"
    assert explorer.widget.shown["code"] == repr(explorer.method) and explorer.widget.shown["typed"] is None
    wrong = "TruncatedSVD(rank=7, bits=1)"
    say(explorer, "code", text=wrong)
    assert explorer.state == State.ERROR and "no knob" in explorer.view.message
    assert explorer.widget.shown["typed"] == wrong, "it can be corrected in place"
    turn(explorer, "rank", 3)
    assert explorer.widget.shown["typed"] is None and explorer.state != State.ERROR


def test_a_layer_is_chosen_and_an_unknown_one_is_refused(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    assert explorer.widget.parts["layers"] == ["conv1", "conv2", "fc1", "fc2"]
    before = shown_figures(explorer)["picture"]
    say(explorer, "layer", name="conv1")
    assert explorer.widget.shown["layer"] == "conv1" and explorer.widget.shown["caption"].startswith("conv1: ")
    assert shown_figures(explorer)["picture"] != before
    with pytest.raises(ValueError, match="no layer 'conv9' to show; there are: conv1, conv2, fc1, fc2"):
        say(explorer, "layer", name="conv9")
    assert explorer.widget.shown["layer"] == "conv1"


def test_a_cancelled_training_leaves_the_network_and_says_so(made, pair):
    before = {name: value.clone() for name, value in pair[0].state_dict().items()}
    explorer = made(ce.SoftTargetDistillation(epochs=1000))
    running = threading.Event()
    told = explorer._session._changed
    explorer._session._changed = lambda news: (told(news), len(explorer.view.learning.losses) > 1 and running.set())
    say(explorer, "press", name="Run")
    assert running.wait(120) and explorer.state == State.RUNNING
    shown = explorer.widget.shown
    assert shown["buttons"]["Cancel"] and not shown["buttons"]["Run"]
    done, steps = shown["progress"]
    assert steps > done > 0
    say(explorer, "press", name="Cancel")
    explorer.settle(60)
    shown = explorer.widget.shown
    assert explorer.state == State.CANCELLED and "untouched" in shown["message"] and shown["progress"] is None
    assert shown["buttons"]["Run"] and not shown["buttons"]["Cancel"]
    assert all(torch.equal(before[name], value) for name, value in pair[0].state_dict().items())


def test_the_loss_is_drawn_while_a_method_trains(made, measured):
    explorer = made(ce.FineTune(epochs=3))
    measured(explorer)
    traces = {one.get("name"): one for one in shown_figures(explorer)["picture"]["data"]}
    loss, race, view = numbers(traces["loss"]["y"]), traces["accuracy, %"], explorer.view
    assert len(view.learning.losses) == 6 and loss == pytest.approx(view.learning.losses, rel=1e-5)
    x, y = (part[: session.Session.watched] for part in view.data.split(view.split))
    reached = (view.after(x).argmax(1) == y).float().mean().item()
    assert numbers(race["x"])[-1] == 6
    assert numbers(race["y"])[-1] == pytest.approx(100 * reached)  # of the network that is shown
    explorer.run().settle(300)
    before, now = view.previous, view.learning
    assert before.losses == pytest.approx(now.losses) and before.reached[-1] == now.reached[-1]


def test_the_run_button_follows_what_the_knobs_need(made):
    explorer = made(ce.CReLU(epochs=1))
    assert explorer.state == State.PREVIEW and explorer.widget.shown["trains"]
    assert explorer.widget.shown["buttons"]["Run"]
    explorer.set(epochs=0)
    assert explorer.settle(60) is not None and explorer.state == State.FINAL
    assert not explorer.widget.shown["trains"] and not explorer.widget.shown["buttons"]["Run"]


def test_pins_reset_and_csv(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    for sparsity in (0.5, 0.6, 0.7, 0.9):
        explorer.set(sparsity=sparsity).settle(60)
        say(explorer, "press", name="Pin")
    assert [report.method[-4:-1] for report in explorer.pins] == ["0.6", "0.7", "0.9"]
    drawn = {one["meta"]: one["x"] for one in shown_figures(explorer)["tradeoff"]["data"]}
    assert [drawn[f"pin {letter}"] for letter in "ABC"] == [[report.file_bytes] for report in explorer.pins]
    lines = explorer.csv.splitlines()
    assert lines[0].startswith("method,model,data,split,correct") and len(lines) == 5
    assert explorer.looks == 4 and "looks: 4" in explorer.widget.shown["about"]
    say(explorer, "press", name="Reset")
    assert explorer.settle(60).method == "MagnitudePruning(sparsity=0.5)" and explorer.pins == ()


def test_a_drag_counts_as_one_look(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    explorer.settle(60)
    looks = explorer.looks
    for place in (10, 20, 30):
        turn(explorer, "sparsity", place, gesture=1)
        explorer.settle(60)
    assert explorer.looks == looks + 1
    turn(explorer, "sparsity", 40, gesture=2)
    explorer.settle(60)
    assert explorer.looks == looks + 2
    for place in (55, 60, 55):  # without a gesture each network is one
        turn(explorer, "sparsity", place)
        explorer.settle(60)
    assert explorer.looks == looks + 4 and f"looks: {looks + 4}" in explorer.widget.shown["about"]


def test_two_hundred_random_moves_leave_no_error_no_queue_and_the_last_position(made):
    explorer = made(ce.MagnitudePruning)
    control = explorer._controls["sparsity"]
    moves = torch.randint(len(control.places), (200,), generator=torch.Generator().manual_seed(3)).tolist()
    threads = threading.active_count()
    for serial, place in enumerate(moves, start=1):
        turn(explorer, "sparsity", place, serial=serial)
        assert explorer._session.runner.pending <= 2 and explorer.state != State.ERROR
    report = explorer.settle(120)
    assert method_of(report.method).sparsity == control.places[moves[-1]] and explorer.state == State.FINAL
    assert explorer.widget.shown["heard"] == 200
    assert threading.active_count() <= threads and explorer._session.runner.pending == 0
    assert all(seen.newly_wrong is None for seen in explorer.view.seen.values())


def test_while_no_page_shows_the_explorer_it_gives_back_what_can_be_computed_again(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    report = measured(explorer)
    say(explorer, "views", page="one", count=0)
    assert explorer.view.after is None and explorer.view.kept == {} and explorer.report == report
    say(explorer, "views", page="one", count=1)
    again = explorer.settle(60)
    assert explorer.view.after is not None and (again.correct, again.file_bytes) == (report.correct, report.file_bytes)
    assert explorer.looks == 1, "the same network once more is not another choice"
    say(explorer, "views", page="another", count=1)
    say(explorer, "views", page="one", count=0)
    assert explorer.view.after is not None, "another page still shows it"
    training = made(ce.FineTune(epochs=1))
    measured(training)
    say(training, "views", page="one", count=0)
    assert training.view.after is not None, "what took a training is kept"


def test_the_error_of_an_earlier_setting_does_not_wipe_the_figures_of_now(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    report = measured(explorer)
    explorer._session._on_error(explorer.method, RuntimeError("too late"), lambda: True)
    assert explorer.state == "FINAL" and explorer.report == report
    explorer._session._on_error(explorer.method, RuntimeError("in time"), lambda: False)
    assert explorer.state == "ERROR" and "in time" in explorer.view.message


# A method that nobody has heard of


@method
class Rounded(LayerMethod):
    """Round weights to a step: a method written in this test."""

    family: ClassVar[str] = "quantization"
    identity_settings: ClassVar = None
    step: float = knob(default=0.1, help="distance of two levels", low=0, high=1, open="low", slider_range=(0.05, 0.5))

    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the layer with rounded weights."""
        with torch.no_grad():
            layer.weight.copy_((layer.weight / self.step).round() * self.step)
        return layer


@method
class Breaking(LayerMethod):
    """Fail inside: a method written in this test."""

    family: ClassVar[str] = "pruning"
    share: float = knob(default=0.5, help="some share", low=0, high=1, slider_range=(0.0, 1.0))

    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Fail."""
        raise ZeroDivisionError("broken <on purpose>")


def test_a_new_method_has_an_explorer_at_once(made, measured, pair):
    explorer = made(Rounded)
    report = measured(explorer)
    (step, *_) = explorer.widget.parts["knobs"]
    assert step["name"] == explorer.widget.parts["main"] == "step" and explorer.widget.shown["code"] == "Rounded()"
    turn(explorer, "step", len(step["places"]) - 1)
    later = measured(explorer)
    assert later.method == "Rounded(step=0.5)" and later.correct < report.correct
    assert later.correct == ce.measure(Rounded(step=0.5)(*pair), pair[1], speed=False).correct


def test_a_network_that_was_compressed_before_can_be_explored(pair, measured):
    pruned = ce.MagnitudePruning(sparsity=0.5)(*pair)
    explorer = explore(ce.LinearQuantization(bits=4), pruned, pair[1])
    try:
        assert measured(explorer).method == "LinearQuantization(bits=4)"
    finally:
        explorer.close()
