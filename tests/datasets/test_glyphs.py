"""The drawn characters: the same everywhere, labeled by construction, every dial does what it says."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from compedu.datasets.glyphs import (
    ALPHABETS,
    FAMILIES,
    HUES,
    MORPHS,
    SPLITS,
    GlyphDials,
    draw_glyphs,
    draw_morphs,
    morph_probability,
    pixel_order,
)
from compedu.datasets.glyphs.factors import Draws, draw_factors, draw_labels, label_probabilities
from compedu.datasets.glyphs.pen import coverage
from compedu.datasets.glyphs.streams import uniforms

CLEAN = GlyphDials(shift=0, rotation=0, size=(11, 11), shear=0, pen=(2.4, 2.4), ink=(1, 1), wobble=0, clutter=0)
TURNED_INTO_EACH_OTHER = (("6", "9", 2), ("N", "Z", 1), ("M", "W", 2), ("b", "q", 2), ("p", "d", 2))


@cache
def drawn(count=2000, split="train", seed=0, **dials):
    return draw_glyphs(count, seed=seed, split=split, **dials)


def factors_alone(count=20_000, **dials):
    """Factors, true probabilities and labels of many images, none of which is drawn."""
    draws, dials = Draws(count, 0, "train"), GlyphDials(**dials)
    factors = draw_factors(draws, dials)
    classes, probabilities = label_probabilities(dials, factors)
    return classes, factors, probabilities, draw_labels(draws, probabilities)


def drawn_exactly(alphabet, **dials):
    """The mean picture of each character over the writers of a split, all else fixed: {character: (32, 32) of 0..1}."""
    glyphs = draw_glyphs(400, dials=replace(CLEAN, alphabet=alphabet), **dials)
    return {
        name: glyphs.images[glyphs.labels == label, 0].mean(axis=0) / 255.0 for label, name in enumerate(glyphs.classes)
    }


# Stability


def test_two_calls_give_the_same_images_labels_and_factors():
    first, second = draw_glyphs(300, seed=5), draw_glyphs(300, seed=5)
    assert np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)
    assert first.factors.keys() == second.factors.keys()
    assert all(np.array_equal(first.factors[name], second.factors[name]) for name in first.factors)


def test_a_longer_set_begins_with_the_shorter_one():
    for dials in ({}, {"morph": 0.5}, {"long_tail": 10.0}, {"color": "label"}, {"clutter": 1}):
        short, long = draw_glyphs(33, **dials), draw_glyphs(90, **dials)
        assert np.array_equal(short.images, long.images[:33]) and np.array_equal(short.labels, long.labels[:33])


def test_the_default_images_are_the_ones_that_the_shipped_networks_were_trained_on():
    glyphs = drawn()
    coarse = glyphs.images[:4, 0].reshape(4, 2, 16, 2, 16).mean(axis=(2, 4)).reshape(4, 4)
    labels = "".join(glyphs.classes[label] for label in glyphs.labels[:20])
    assert labels == "GUKXOSEYQVAMFBCZPRNH"
    # Another processor's sine may move single pixels by one step of gray; a changed generator moves these means.
    quarters = [
        [41.24, 7.82, 30.95, 45.78], [46.0, 30.16, 42.54, 54.06], [19.59, 17.77, 21.07, 31.42],
        [51.07, 28.77, 27.1, 32.2],
    ]  # fmt: skip
    assert np.abs(coarse - quarters).max() < 0.1
    assert abs(glyphs.images.mean() - 32.924) < 0.01


def test_random_numbers_are_hashed_counters_with_known_values():
    known = [0.9964081040556926, 0.9845370384215006, 0.16361751212575093]
    assert uniforms(3, "image", 0, "train", "angle").tolist() == known
    many = uniforms(100_000, "anything")
    assert many.min() >= 0 and many.max() < 1
    assert np.abs(np.histogram(many, 20, (0, 1))[0] / 5000 - 1).max() < 0.06
    assert abs(np.corrcoef(many[:-1], many[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(many, uniforms(100_000, "anything else"))[0, 1]) < 0.01


# Splits


def test_no_image_occurs_twice_in_or_across_splits_and_seeds():
    sets = [drawn(split=split) for split in SPLITS] + [drawn(seed=1)]
    images = np.concatenate([glyphs.images.reshape(2000, -1) for glyphs in sets])
    assert len(np.unique(images, axis=0)) == len(images)


def test_splits_have_writers_of_their_own():
    pens = []
    for split in SPLITS:
        pictures = drawn_exactly("standard", split=split)
        pens.append(np.stack([pictures[name] for name in "OQEH"]))
    for one in range(len(pens)):
        for other in range(one):
            assert np.abs(pens[one] - pens[other]).max() > 0.02


def test_the_same_writer_draws_alike_and_another_differently():
    glyphs = draw_glyphs(4000, dials=replace(CLEAN, classes=("O", "H"), wobble=0.1))
    rows = glyphs.labels == 0
    writer, images = glyphs.factors["writer"][rows], glyphs.images[rows]
    of_one = images[writer == writer[0]]
    assert len(of_one) > 10 and (of_one == of_one[0]).all()
    assert (images[writer != writer[0]] != of_one[0]).any(axis=(1, 2, 3)).all()


# Labels


def test_classes_are_balanced_and_in_the_order_of_the_alphabet():
    glyphs = drawn()
    assert glyphs.classes == tuple(ALPHABETS["standard"]) and len(glyphs.classes) == 20
    assert np.array_equal(np.bincount(glyphs.labels), np.full(20, 100))
    assert np.array_equal(glyphs.labels, glyphs.factors["character"])
    assert glyphs.images.dtype == np.uint8 and glyphs.images.shape == (2000, 1, 32, 32)
    assert glyphs.labels.dtype == np.int64


def test_look_alike_families_divide_the_standard_alphabet():
    assert sorted("".join(FAMILIES)) == sorted(ALPHABETS["standard"])
    pictures = drawn_exactly("standard")

    def apart(a, b):
        return np.abs(pictures[a] - pictures[b]).mean()

    for close, far in (("OQ", "OK"), ("CG", "CH"), ("PR", "PV"), ("EF", "EX")):
        assert 0 < apart(*close) < 0.6 * apart(*far)


def test_chosen_classes_are_drawn_in_the_chosen_order():
    chosen = draw_glyphs(60, dials=CLEAN, classes=("V", "O"))
    assert chosen.classes == ("V", "O") and set(chosen.labels) == {0, 1}
    hollow = chosen.images[:, 0, 14:18, 14:18].mean(axis=(1, 2)) < 20
    assert hollow[chosen.labels == 1].all()


def test_a_long_tail_makes_the_last_class_rarer_by_the_ratio_asked_for():
    counts = np.bincount(factors_alone(long_tail=10.0)[-1])
    assert 7 < counts[0] / counts[-1] < 14
    assert np.corrcoef(np.log(counts), np.arange(20))[0, 1] < -0.98


def test_label_noise_replaces_labels_at_its_rate_and_says_so_in_the_probabilities():
    noisy = drawn(label_noise=0.3)
    kept = (noisy.labels == noisy.factors["character"]).mean()
    assert abs(kept - (0.7 + 0.3 / 20)) < 0.03
    assert np.allclose(noisy.probabilities.max(axis=1), 0.7 + 0.3 / 20)
    assert np.allclose(noisy.probabilities.sum(axis=1), 1)
    assert np.array_equal(noisy.images, drawn().images)


# Factors


def test_factors_fill_their_ranges_and_stay_inside():
    dials, factors = GlyphDials(), drawn().factors
    ranges = {
        "angle": (-dials.rotation, dials.rotation), "x": (-dials.shift, dials.shift), "y": (-dials.shift, dials.shift),
        "size": dials.size, "pen": dials.pen, "ink": dials.ink, "shear": (-dials.shear, dials.shear),
        "clutter": (0, dials.clutter), "hue": (0, 1), "morph": (0, 0),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        values, slack = factors[name], 0.01 * (high - low)
        assert values.shape == (2000,)
        assert low <= values.min() <= low + slack and high - slack <= values.max() <= high
    assert np.allclose(factors["sine"], np.sin(np.deg2rad(factors["angle"])))
    assert np.allclose(factors["sine"] ** 2 + factors["cosine"] ** 2, 1)


def test_factors_are_independent_of_each_other_and_of_the_label():
    factors = factors_alone()[1]
    names = ("character", "angle", "x", "y", "size", "pen", "ink", "shear", "writer", "hue")
    correlation = np.corrcoef([factors[name] for name in names]) - np.eye(len(names))
    assert np.abs(correlation).max() < 0.04


def test_factors_say_what_is_on_the_paper():
    glyphs = draw_glyphs(400, dials=CLEAN, shift=4.0, size=(8, 11), pen=(1.6, 4), ink=(0.4, 1.0), classes=("O", "X"))
    gray, factors = glyphs.images[:, 0] / 255.0, glyphs.factors
    mass, places = gray.sum(axis=(1, 2)), np.arange(32) - 15.5
    across, down = (gray.sum(axis=1) * places).sum(axis=1) / mass, (gray.sum(axis=2) * places).sum(axis=1) / mass
    assert np.abs(across - factors["x"]).max() < 0.3 and np.abs(down - factors["y"]).max() < 0.3
    assert np.abs(gray.max(axis=(1, 2)) - factors["ink"]).max() < 0.12
    assert np.corrcoef(mass / factors["ink"], factors["size"] * factors["pen"])[0, 1] > 0.9


def test_a_positive_angle_turns_counter_clockwise():
    glyphs = draw_glyphs(200, dials=replace(CLEAN, alphabet="hatch", classes=("-", "|")), rotation=40.0)
    gray = glyphs.images[glyphs.labels == 0, 0].astype(float)
    gradient_down, gradient_right = np.gradient(gray, axis=(1, 2))
    across = 0.5 * np.arctan2(
        2 * (gradient_right * -gradient_down).sum(axis=(1, 2)), (gradient_right**2 - gradient_down**2).sum(axis=(1, 2))
    )  # direction across the lines, upwards positive
    measured = np.rad2deg(across) % 180 - 90  # the lines are at right angles to their gradient
    assert np.corrcoef(measured, glyphs.factors["angle"][glyphs.labels == 0])[0, 1] > 0.98


def test_clutter_adds_ink_in_proportion_and_never_touches_the_character():
    plain, crowded = drawn(clutter=0), drawn()
    added = crowded.images.astype(int) - plain.images
    assert (added >= 0).all()
    assert (added[plain.images > 0.6 * 255 * plain.factors["ink"][:, None, None, None]] == 0).all()
    strokes, ink = crowded.factors["clutter"], (added / crowded.factors["ink"][:, None, None, None]).sum(axis=(1, 2, 3))
    assert (ink[strokes == 0] == 0).all() and np.corrcoef(strokes, ink)[0, 1] > 0.8


def test_no_stroke_is_brighter_than_white():
    dim, bright = (draw_glyphs(600, ink=(ink, ink)).images.astype(int) for ink in (0.5, 1.0))
    assert (2 * dim).max() > 256  # stray strokes may be brighter than the ink: a byte would overflow
    assert np.abs(bright - np.minimum(2 * dim, 255)).max() <= 1


def test_the_pen_covers_what_a_brute_force_distance_says():
    generator = np.random.default_rng(0)
    pieces = generator.uniform(0, 31, (2, 3, 2, 2))
    pieces[0, 1, 1] = pieces[0, 1, 0]  # a dot: a piece without length
    widths, softness = np.array([[2.0, 3.0], [5.0, 6.0]]), np.array([1.0, 1.5])
    squeeze = np.diag([1.25, 0.8])
    covered = coverage(pieces, widths, softness, np.stack([np.eye(2), squeeze]), 32)
    steps = np.linspace(0, 1, 4001)[:, None]
    for image, nib in enumerate((np.eye(2), squeeze)):
        line = np.concatenate([(one + steps * (two - one)) @ nib.T for one, two in pieces[image]])
        for row, column in ((0, 0), (5, 20), (16, 16), (31, 7)):
            distance = np.hypot(*(line - nib @ np.array([column, row])).T).min()
            for pen in range(2):
                expected = np.clip((widths[pen, image] / 2 - distance) / softness[image] + 0.5, 0, 1)
                assert covered[pen, image, row, column] == pytest.approx(expected, abs=1e-2)


# Alphabets


def test_the_orientation_alphabet_holds_exactly_the_pairs_that_only_turning_tells_apart():
    pictures = drawn_exactly("orientation")
    assert set(pictures) == set("69NZMWbqpd")
    for one, other, quarters in TURNED_INTO_EACH_OTHER:
        from_one, to_other = ALPHABETS["orientation"][one], ALPHABETS["orientation"][other]
        turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters)
        assert all(np.array_equal(a @ turn.T, b) for a, b in zip(from_one, to_other, strict=True))
    mirrored = [stroke * [-1, 1] for stroke in ALPHABETS["orientation"]["b"]]
    assert all(np.array_equal(a, b) for a, b in zip(mirrored, ALPHABETS["orientation"]["d"], strict=True))


def test_characters_of_the_rotated_alphabet_stay_distinct_under_quarter_turns():
    def closest(alphabet):
        pictures = drawn_exactly(alphabet)
        names = list(pictures)
        return min(
            np.abs(pictures[a] - np.rot90(pictures[b], quarter)).mean()
            for place, a in enumerate(names) for b in names[:place] for quarter in range(4)
        )  # fmt: skip

    assert closest("rotated") > 0.02
    assert closest("orientation") < 0.5 * closest("rotated")


def test_quarter_turns_turn_the_pictures_and_are_in_the_angle():
    straight = draw_glyphs(200, dials=replace(CLEAN, alphabet="rotated"))
    turned = draw_glyphs(200, dials=replace(CLEAN, alphabet="rotated"), quarter_turns=True)
    assert set(turned.factors["angle"]) == {0, 90, 180, 270}
    quarters = (turned.factors["angle"] // 90).astype(int)
    for name, loss in (("T", 0.06), ("P", 0.06)):
        for row in np.flatnonzero(straight.labels == straight.classes.index(name)):
            expected = np.rot90(straight.images[row, 0], quarters[row]).astype(float)
            assert np.abs(turned.images[row, 0] - expected).mean() / 255 < loss  # the nib keeps its angle


def test_diagonal_hatching_needs_filters_that_are_not_separable():
    pictures = drawn_exactly("hatch")

    def kept_by_rank_one(picture):
        middle = picture[8:24, 8:24]
        values = np.linalg.svd(middle - middle.mean(), compute_uv=False)
        return values[0] ** 2 / (values**2).sum()

    for upright in "-|":
        assert kept_by_rank_one(pictures[upright]) > 0.85
    for diagonal in "/\\":
        assert kept_by_rank_one(pictures[diagonal]) < 0.6


# Morphs


def test_morphs_run_between_look_alikes_with_a_known_probability():
    classes, factors, probabilities, labels = factors_alone(morph=1.0)
    character, other, t = (factors[name] for name in ("character", "other", "morph"))
    assert {(classes[a], classes[b]) for a, b in zip(character, other, strict=True)} == set(MORPHS)
    assert np.allclose(probabilities[np.arange(len(t)), other], morph_probability(t))
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert ((labels == character) | (labels == other)).all()
    for low in np.arange(0, 1, 0.1):
        rows = (t >= low) & (t < low + 0.1)
        assert abs((labels[rows] == other[rows]).mean() - morph_probability(t[rows]).mean()) < 0.05


def test_morph_probability_runs_from_nought_over_a_half_to_one():
    assert morph_probability(np.array([0.0, 0.5, 1.0])).tolist() == [0.0, 0.5, 1.0]
    assert (np.diff(morph_probability(np.linspace(0, 1, 101))) > 0).all()


@pytest.mark.parametrize("first, second", MORPHS)
def test_a_morph_begins_as_one_character_and_ends_as_the_other(first, second):
    plain, glyphs = (draw_glyphs(400, dials=CLEAN, classes=(first, second), morph=share) for share in (0.0, 1.0))
    start, end = (plain.images[plain.labels == label, 0].mean(axis=0) / 255.0 for label in (0, 1))
    t, way = glyphs.factors["morph"], end - start
    gone = ((glyphs.images[:, 0] / 255.0 - start) * way).sum(axis=(1, 2)) / (way * way).sum()
    assert abs(gone[t < 0.05].mean()) < 0.25 and abs(gone[t > 0.95].mean() - 1) < 0.25
    assert np.corrcoef(gone, t)[0, 1] > 0.7


def test_only_the_asked_fraction_morphs_and_the_rest_is_certain():
    glyphs = drawn(morph=0.25)
    morphing = glyphs.factors["character"] != glyphs.factors["other"]
    assert abs(morphing.mean() - 0.25) < 0.03
    assert (glyphs.probabilities[~morphing].max(axis=1) == 1).all()
    assert (glyphs.labels[~morphing] == glyphs.factors["character"][~morphing]).all()


# Structure dials


def test_wrapped_paper_is_an_exact_circular_symmetry():
    centered, wrapped = draw_glyphs(200, shift=0.0), draw_glyphs(200, wrap=True)
    x, y = wrapped.factors["x"].astype(int), wrapped.factors["y"].astype(int)
    assert set(drawn(wrap=True).factors["x"]) == set(range(-16, 16)) == set(drawn(wrap=True).factors["y"])
    for row in range(200):
        back = np.roll(wrapped.images[row, 0], (-y[row], -x[row]), axis=(0, 1))
        assert np.array_equal(back, centered.images[row, 0])


def test_the_permutation_is_one_bijection_for_all_images():
    order = pixel_order()
    assert np.array_equal(np.sort(order), np.arange(1024)) and (order != np.arange(1024)).mean() > 0.99
    plain, shuffled = draw_glyphs(50), draw_glyphs(50, permute=True)
    restored = np.empty((50, 1024), np.uint8)
    restored[:, order] = shuffled.images.reshape(50, -1)
    assert np.array_equal(restored, plain.images.reshape(50, -1))
    assert order[:6].tolist() == [476, 592, 423, 897, 932, 235]  # models trained on permuted pixels depend on it


def test_color_as_a_nuisance_changes_the_ink_but_not_the_label_nor_the_shape():
    gray, colored = draw_glyphs(300, ink=(0.4, 0.8)), draw_glyphs(300, ink=(0.4, 0.8), color="nuisance")
    assert colored.images.shape == (300, 3, 32, 32) and np.array_equal(gray.labels, colored.labels)
    assert np.abs(colored.images.max(axis=1).astype(int) - gray.images[:, 0]).max() <= 1
    weakest = colored.images.min(axis=1)[gray.images[:, 0] > 100]
    assert (weakest < 60).all()


def test_color_as_the_label_can_be_read_from_the_mean_color_alone():
    glyphs = draw_glyphs(300, color="label")
    assert glyphs.classes == HUES and np.array_equal(np.bincount(glyphs.labels), np.full(6, 50))
    red, green, blue = glyphs.images.reshape(300, 3, -1).mean(axis=2).T
    angle = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi)
    assert np.array_equal(np.rint(angle * 6).astype(int) % 6, glyphs.labels)
    assert len(set(glyphs.factors["character"])) == 20


# Difficulty and refusals


def test_a_linear_model_reads_at_most_half_of_the_characters():
    train, validation = drawn(3000), drawn(2000, split="validation")
    x, seen = ((glyphs.images.reshape(-1, 1024) / 255.0 - 0.129) / 0.237 for glyphs in (train, validation))
    scores = [
        LogisticRegression(C=weight, max_iter=500, tol=1e-3).fit(x, train.labels).score(seen, validation.labels)
        for weight in (1e-4, 1e-3, 1e-2)
    ]
    assert 0.3 < max(scores) <= 0.5


def test_without_its_nuisances_the_set_is_easy_so_that_the_characters_are_legible():
    easy = GlyphDials(shift=0.5, rotation=5, size=(10, 11), shear=0.05, clutter=0)
    train, validation = draw_glyphs(1000, dials=easy), draw_glyphs(500, dials=easy, split="validation")
    x, seen = (glyphs.images.reshape(len(glyphs.images), -1) / 255.0 for glyphs in (train, validation))
    model = LogisticRegression(C=0.1, max_iter=500, tol=1e-3).fit(x, train.labels)
    assert model.score(seen, validation.labels) > 0.97


@pytest.mark.parametrize(
    "dials",
    [
        {"alphabet": "greek"}, {"color": "sepia"}, {"classes": ("O", "9")}, {"classes": ("O",)},
        {"classes": ("O", "O")}, {"shift": -1}, {"shift": 17}, {"rotation": 181}, {"shear": 1.1}, {"wobble": 0.31},
        {"clutter": 9}, {"morph": 1.1}, {"long_tail": 0.5}, {"label_noise": -0.1}, {"size": (2, 9)}, {"size": (9, 8)},
        {"pen": (1, 9)}, {"ink": (0, 1)}, {"ink": (0.5, float("nan"))}, {"shift": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_a_dial_out_of_range_is_refused_by_name(dials):
    with pytest.raises(ValueError, match=rf"GlyphDials\.{next(iter(dials))}="):
        draw_glyphs(4, **dials)


def test_an_unknown_split_an_empty_set_and_a_morph_without_a_pair_are_refused():
    with pytest.raises(ValueError, match="split='dev'.*train, validation"):
        draw_glyphs(4, split="dev")
    with pytest.raises(ValueError, match="count=0.*at least 1"):
        draw_glyphs(0)
    with pytest.raises(ValueError, match="no morph between.*O to Q"):
        draw_glyphs(4, classes=("O", "X"), morph=0.5)


def test_a_morph_changes_the_character_alone_from_place_to_place():
    made = draw_morphs("O", "Q", 3, 5, seed=2)
    assert made.images.shape == (15, 1, 32, 32)
    first, half, last = (made.images[5 * stage : 5 * stage + 5].astype(float) for stage in range(3))
    for name, values in made.factors.items():
        if name != "morph":
            assert (values[:5] == values[5:10]).all() and (values[:5] == values[10:]).all(), name
    assert made.factors["morph"].tolist() == [0.0] * 5 + [0.5] * 5 + [1.0] * 5
    apart = np.abs(first - last).mean(axis=(1, 2, 3))
    assert (np.abs(first - half).mean(axis=(1, 2, 3)) < apart).all() and (apart > 0).all()
    o, q = (made.classes.index(name) for name in "OQ")
    assert made.probabilities[:, q].tolist() == [0.0] * 5 + [0.5] * 5 + [1.0] * 5
    assert np.allclose(made.probabilities[:, o] + made.probabilities[:, q], 1.0)
    assert set(made.labels[:5]) == {o} and set(made.labels[10:]) == {q}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("O", "X", 3, 5), "no morph from 'O' to 'X'; known are O to Q"),
        (("Q", "O", 3, 5), "no morph from 'Q' to 'O'"),
        (("O", "Q", 1, 5), "stages=1, count=5: must be at least 2 and 1"),
        (("O", "Q", 3, 0), "stages=3, count=0"),
    ],
)
def test_a_morph_that_cannot_be_drawn_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        draw_morphs(*wrong)
