"""Drawn characters, as many as a question needs: seeded, labeled by construction, with every factor known."""

from dataclasses import dataclass, replace

import numpy as np

from compedu.datasets.glyphs.alphabet import ALPHABETS, FAMILIES, MORPHS
from compedu.datasets.glyphs.dials import GlyphDials
from compedu.datasets.glyphs.factors import (
    HUES,
    SIDE,
    Draws,
    draw_factors,
    draw_labels,
    label_probabilities,
    morph_probability,
)  # fmt: skip
from compedu.datasets.glyphs.scene import draw_ink, palette
from compedu.datasets.glyphs.streams import permutation

__all__ = [
    "ALPHABETS", "FAMILIES", "HUES", "MORPHS", "SPLITS", "GlyphDials", "Glyphs", "draw_glyphs", "draw_morphs",
    "morph_probability", "pixel_order",
]  # fmt: skip

SPLITS = ("train", "validation", "test", "transfer")


@dataclass(frozen=True)
class Glyphs:
    """A set of drawn characters.

    images: uint8 of shape (N, 1 or 3, 32, 32), light on dark.   labels: int64 (N,), numbers of `classes`.
    probabilities: float64 (N, classes), the true distribution that each label was drawn from.
    factors: by name, one value per image: "character", "other", "morph" (0..1 from character to other), "writer",
    "angle" (degrees, counter-clockwise), "sine" and "cosine" (regress on these, the angle jumps), "x" and "y" (pixels
    to the right and downwards), "size" (half height, pixels), "shear", "pen" (width, pixels), "ink" (0..1), "clutter"
    (stray strokes), "hue" (0..1; without meaning for gray images).
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray
    factors: dict[str, np.ndarray]


def pixel_order() -> np.ndarray:
    """The fixed permutation of the 1,024 pixels that the dial `permute` applies: new pixel i is old pixel order[i]."""
    return permutation(SIDE * SIDE, "pixels")


def draw_glyphs(
    count: int, *, seed: int = 0, split: str = "train", dials: GlyphDials | None = None, **changes: object
) -> Glyphs:
    """Draw `count` images of one split; `changes` are single dials that differ from `dials` (if None, the defaults).

    The same arguments give the same images on every platform (float64 up to the last rounding); a longer set begins
    with the shorter one; no two splits share an image or a writer. Raises ValueError for a count, split or dial out of
    range.
    """
    if count < 1:
        raise ValueError(f"draw_glyphs: count={count!r}: must be at least 1")
    if split not in SPLITS:
        raise ValueError(f"draw_glyphs: split={split!r}: must be one of {', '.join(SPLITS)}")
    dials = replace(dials or GlyphDials(), **changes)
    draws = Draws(count, seed, split)
    factors = draw_factors(draws, dials)
    images = _developed(draw_ink(draws, dials, factors), factors, dials)
    classes, probabilities = label_probabilities(dials, factors)
    return Glyphs(images, draw_labels(draws, probabilities), classes, probabilities, factors)


def draw_morphs(
    first: str, second: str, stages: int, count: int, *, seed: int = 0, split: str = "validation"
) -> Glyphs:
    """Draw the same `count` hands at each of `stages` places t = 0..1 from one character to another, place by place.

    Between two places only the character changes. Raises ValueError for characters that are no pair of `MORPHS`, for
    less than two places, and as `draw_glyphs` does.
    """
    if (first, second) not in MORPHS:
        known = ", ".join(f"{a} to {b}" for a, b in MORPHS)
        raise ValueError(f"draw_morphs: no morph from {first!r} to {second!r}; known are {known}")
    if stages < 2 or count < 1:
        raise ValueError(f"draw_morphs: stages={stages!r}, count={count!r}: must be at least 2 and 1")
    dials = GlyphDials()
    draws = Draws(count, seed, split)
    factors = draw_factors(draws, dials)
    ends = {
        name: np.full(count, dials.characters.index(one)) for name, one in (("character", first), ("other", second))
    }
    parts = [factors | ends | {"morph": np.full(count, t)} for t in np.linspace(0.0, 1.0, stages)]
    images = np.concatenate([_developed(draw_ink(draws, dials, part), part, dials) for part in parts])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in factors}
    classes, probabilities = label_probabilities(dials, joined)
    labels = draw_labels(Draws(count * stages, seed, split), probabilities)
    return Glyphs(images, labels, classes, probabilities, joined)


def _developed(picture: np.ndarray, factors: dict[str, np.ndarray], dials: GlyphDials) -> np.ndarray:
    """Images of bytes, (N, channels, 32, 32), colored and permuted as the dials say."""
    if dials.permute:
        picture = picture.reshape(len(picture), -1)[:, pixel_order()].reshape(picture.shape)
    colors = np.ones((len(picture), 1)) if dials.color == "gray" else palette(factors["hue"])
    # Stray strokes may be brighter than the brightest ink: no byte holds more than white.
    return np.rint(255.0 * np.minimum(picture, 1.0)[:, None] * colors[:, :, None, None]).astype(np.uint8)
