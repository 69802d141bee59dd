"""What varies between the images of glyphs: the factors of each image, and the true probabilities of its label."""

import numpy as np

from compedu.datasets.glyphs.alphabet import MORPHS
from compedu.datasets.glyphs.dials import GlyphDials
from compedu.datasets.glyphs.hands import WRITERS
from compedu.datasets.glyphs.streams import uniforms

HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
SIDE = 32


class Draws:
    """The random numbers of one set of images: every factor has a stream of its own."""

    def __init__(self, count: int, seed: int, split: str):
        self.count = count
        self.seed = seed
        self.split = split

    def unit(self, name: str, per_image: int = 1) -> np.ndarray:
        """Uniform numbers in [0, 1), shape (count,), or (count, per_image)."""
        values = uniforms(self.count * per_image, "image", self.seed, self.split, name)
        return values if per_image == 1 else values.reshape(self.count, per_image)

    def between(self, name: str, low: float, high: float) -> np.ndarray:
        return low + (high - low) * self.unit(name)

    def whole(self, name: str, choices: int) -> np.ndarray:
        return (choices * self.unit(name)).astype(np.int64)

    def balanced(self, name: str, choices: int) -> np.ndarray:
        """Numbers 0..choices-1; each run of `choices` images holds every one of them once."""
        rounds = -(-self.count // choices)
        keys = uniforms(rounds * choices, "image", self.seed, self.split, name).reshape(rounds, choices)
        return np.argsort(keys, axis=1, kind="stable").reshape(-1)[: self.count]


def draw_factors(draws: Draws, dials: GlyphDials) -> dict[str, np.ndarray]:
    """The factors of every image, by name (listed at `Glyphs`)."""
    character, other, t = _characters(draws, dials)
    angle = draws.between("angle", -dials.rotation, dials.rotation)
    if dials.quarter_turns:
        angle = angle + 90.0 * draws.whole("quarter", 4)
    return {
        "character": character,
        "other": other,
        "morph": t,
        "writer": draws.whole("writer", WRITERS),
        "angle": angle,
        "sine": np.sin(np.deg2rad(angle)),
        "cosine": np.cos(np.deg2rad(angle)),
        "x": _displacement(draws, dials, "x"),
        "y": _displacement(draws, dials, "y"),
        "size": draws.between("size", *dials.size),
        "shear": draws.between("shear", -dials.shear, dials.shear),
        "pen": draws.between("pen", *dials.pen),
        "ink": draws.between("ink", *dials.ink),
        "clutter": draws.whole("clutter", dials.clutter + 1),
        "hue": _hue(draws, dials),
    }


def _characters(draws: Draws, dials: GlyphDials) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per image: the number of its character, of the one that it morphs to (mostly itself), and how far it is."""
    names = dials.characters
    if dials.long_tail == 1.0:
        character = draws.balanced("character", len(names))
    else:
        weights = dials.long_tail ** (-np.arange(len(names)) / (len(names) - 1))
        bounds = np.cumsum(weights / weights.sum())[:-1]
        character = np.searchsorted(bounds, draws.unit("character"), side="right")
    if dials.morph == 0.0:
        return character, character.copy(), np.zeros(draws.count)
    pairs = np.array([[names.index(a), names.index(b)] for a, b in MORPHS if a in names and b in names])
    if not len(pairs):
        known = ", ".join(f"{a} to {b}" for a, b in MORPHS)
        raise ValueError(f"GlyphDials.morph={dials.morph}: no morph between the characters {names}; known are {known}")
    chosen = pairs[draws.whole("morph pair", len(pairs))]
    morphing = draws.unit("morph or not") < dials.morph
    character, other = np.where(morphing, chosen.T, character)
    return character, other, np.where(morphing, draws.unit("morph"), 0.0)


def _displacement(draws: Draws, dials: GlyphDials, axis: str) -> np.ndarray:
    if dials.wrap:
        return draws.whole(axis, SIDE) - SIDE // 2.0
    return draws.between(axis, -dials.shift, dials.shift)


def _hue(draws: Draws, dials: GlyphDials) -> np.ndarray:
    """The ink's place on the color circle, 0..1; as a label it stays within a quarter of the way to the next hue."""
    if dials.color != "label":
        return draws.unit("hue")
    return (draws.balanced("hue class", len(HUES)) + draws.between("hue", -0.25, 0.25)) / len(HUES) % 1.0


def morph_probability(t: np.ndarray) -> np.ndarray:
    """Probability of the second label for the morph at t in 0..1: 3 t^2 - 2 t^3; 0, 1/2, 1 at t = 0, 1/2, 1."""
    return t * t * (3.0 - 2.0 * t)


def label_probabilities(dials: GlyphDials, factors: dict[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the classes, and the true distribution of every image's label, float64 (N, classes)."""
    rows = np.arange(len(factors["character"]))
    if dials.color == "label":
        classes = HUES
        probabilities = np.zeros((len(rows), len(classes)))
        probabilities[rows, np.rint(factors["hue"] * len(HUES)).astype(np.int64) % len(HUES)] = 1.0
    else:
        classes = dials.characters
        probabilities = np.zeros((len(rows), len(classes)))
        second = morph_probability(factors["morph"])
        probabilities[rows, factors["character"]] += 1.0 - second
        probabilities[rows, factors["other"]] += second
    return classes, (1.0 - dials.label_noise) * probabilities + dials.label_noise / len(classes)


def draw_labels(draws: Draws, probabilities: np.ndarray) -> np.ndarray:
    """One label per image, int64, drawn from its own distribution."""
    passed = np.cumsum(probabilities[:, :-1], axis=1) <= draws.unit("label")[:, None]
    return passed.sum(axis=1, dtype=np.int64)
