"""Gauges, words and single figures: units, what is never shown, room, and figures that stand alone."""

import math
from dataclasses import replace

import pytest
import torch
from page_of_explorer import sizes_of

import compedu as ce
from compedu.explorers import curves, matrices, noise_dots
from compedu.explorers.figures.figure import drawn, moving
from compedu.explorers.figures.gauges import captions
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.figures.places import GAUGE, KNOBS
from compedu.explorers.view import State
from compedu.explorers.words import bytes_text, points_text, times_text, verdict_text
from compedu.metrics import Latency


def test_numbers_in_words_carry_units():
    assert [bytes_text(n) for n in (812, 41_234, 999_960, 1_204_000)] == ["812 B", "41.2 kB", "1.00 MB", "1.20 MB"]
    assert points_text(-0.106) == "\N{MINUS SIGN}10.6 points" and points_text(0.006) == "+0.6 points"
    assert times_text(14.53) == "14.5 times smaller than" and times_text(0.5) == "2.0 times larger than"
    assert times_text(1.03) == "3 % smaller than" and times_text(0.97) == "3 % larger than"
    assert times_text(1) == "as large as"


def test_a_small_difference_in_speed_keeps_the_digits_that_tell_it():
    timing = Latency(1.0, (1.0, 1.0), 32, 1, 9, 1.0, 1.04, (1.03, 1.06), 1.0, (0.99, 1.01))
    assert verdict_text(timing) == "1.04× faster"
    assert verdict_text(replace(timing, speed_up=4.12, speed_up_interval=(4.0, 4.2))) == "4.1× faster"
    assert verdict_text(replace(timing, speed_up=0.4, speed_up_interval=(0.3, 0.5))) == "2.5× slower"
    assert verdict_text(replace(timing, speed_up_interval=(0.9, 1.06))) == "not distinguishable"


def test_the_speed_of_a_stored_point_is_shown_as_another_machines_only(looked_at):
    explorer = looked_at(ce.MagnitudePruning(sparsity=0.5))
    report = explorer.report
    assert report.latency is not None
    preview = replace(explorer.view, state=State.PREVIEW)
    assert captions(preview)[2] == ("…", "not measured here yet")
    assert captions(replace(preview, report=None)) == (("…", "not measured yet"),) * 3
    said = captions(explorer.view)[2]
    assert said[0].startswith(("faster", "slower", "not", "withheld")) or said[0].split("× ")[1] in ("faster", "slower")
    assert said[1].startswith(f"{report.latency.speed_up:.2f}×")
    assert [len(one["x"]) for one in moving(preview)["speed"]["data"][1:]] == [0, 0, 0]
    assert [len(one["x"]) for one in moving(explorer.view)["speed"]["data"][1:]] == [2, 0, 1]
    timing = replace(report.latency, speed_up=2.0)
    ghost = replace(preview, report=report, stored=replace(report, latency=timing))
    assert captions(ghost)[2] == ("…", "not measured here yet", "on another machine 2.0×")
    *_, elsewhere, here = moving(ghost)["speed"]["data"]
    assert elsewhere["x"] == [pytest.approx(math.log10(2))] and here["x"] == []
    assert elsewhere["said"] == "stored, not of your machine: 2.00×"
    noisy = replace(timing, a_a_interval=(1.2, 1.3))
    withheld = replace(ghost, stored=replace(report, latency=noisy))
    assert noisy.verdict.startswith("withheld")
    assert captions(withheld)[2] == ("…", "not measured here yet") and not moving(withheld)["speed"]["data"][2]["x"]
    beside = replace(explorer.view, stored=ghost.stored)
    assert [len(one["x"]) for one in moving(beside)["speed"]["data"][1:]] == [2, 1, 1]
    assert captions(beside)[2] == said, "what was measured here is said alone"


def test_the_gauge_of_speed_shows_a_ratio_beyond_its_ends_as_an_arrow_at_the_end(looked_at):
    explorer = looked_at(ce.MagnitudePruning(sparsity=0.5))
    for speed_up, place, symbol in ((40.0, 1, "right"), (0.01, -1, "left"), (10.0, 1, "diamond")):
        timing = replace(explorer.report.latency, speed_up=speed_up, speed_up_interval=(speed_up, speed_up))
        view = replace(explorer.view, report=replace(explorer.report, latency=timing))
        dot = moving(view)["speed"]["data"][-1]
        assert (dot["x"], dot["symbol"]) == ([pytest.approx(place)], symbol)


def test_the_bars_of_the_size_follow_each_other_up_to_the_bytes_of_the_file(looked_at):
    explorer = looked_at(ce.MagnitudePruning(sparsity=0.5))
    ghost, *roles, coded = moving(explorer.view)["size"]["data"]
    assert ghost["x"] == [0, explorer.view.baseline.file_bytes]
    ends = [bar["x"] for bar in roles if bar["x"]]
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert ends[-1][1] == explorer.report.file_bytes
    assert coded["x"] == [explorer.report.entropy_coded_bytes]


def test_the_layout_has_room_on_a_small_screen(looked_at):
    view = looked_at(ce.MagnitudePruning(sparsity=0.5)).view
    figures = moving(view) | {"picture": drawn(view, pictures_of(ce.MagnitudePruning)[0], "fc1")}
    width, height = ({name: one["layout"][side] for name, one in figures.items()} for side in ("width", "height"))
    assert all(width[name] == GAUGE[0] for name in ("accuracy", "size", "speed"))
    for side_by_side in (("accuracy", "size", "speed"), ("picture", "tradeoff")):
        assert KNOBS + sum(width[name] for name in side_by_side) <= 848  # what JupyterLab leaves of 1280 pixels
    assert height["accuracy"] + max(height["picture"], height["tradeoff"]) <= 400


def test_figures_that_stand_alone_show_no_buttons(monkeypatch):
    shown = []
    monkeypatch.setattr("plotly.io.show", lambda figure, **options: shown.append(options["config"]))
    figures = [
        curves([0, 1], {"a": [1, 2]}, "x", "y"), matrices(a=torch.eye(2)),
        noise_dots(torch.ones(9) > 0, (3,), repeats=2),
    ]  # fmt: skip
    for figure in figures:
        figure.show()
        assert min(sizes_of(figure.to_dict())) >= 12
    assert shown == [{"displayModeBar": False}] * 3
