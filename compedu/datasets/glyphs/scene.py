"""From factors to pictures: the strokes of a character, bent, turned and placed, stray strokes, ink and color."""

import numpy as np

from compedu.datasets.glyphs.alphabet import ALPHABETS, matched, segments
from compedu.datasets.glyphs.dials import GlyphDials
from compedu.datasets.glyphs.factors import SIDE, Draws
from compedu.datasets.glyphs.hands import Hands
from compedu.datasets.glyphs.pen import coverage

_PIECES_PER_STRAY_STROKE = 2
_GAP = 0.4  # pixels: stray strokes stop this far from the character, so that they crowd it but never redraw it


def draw_ink(draws: Draws, dials: GlyphDials, factors: dict[str, np.ndarray]) -> np.ndarray:
    """Brightness 0..1 of every pixel, float64 (N, 32, 32); without borders the picture is rolled by x and y."""
    hands = Hands.of(draws.seed, draws.split)
    alphabet = ALPHABETS[dials.alphabet]
    picture, near = np.empty((2, draws.count, SIDE, SIDE))
    pairs = factors["character"] * len(dials.characters) + factors["other"]
    for pair in np.unique(pairs):
        rows = np.flatnonzero(pairs == pair)
        first, second = divmod(int(pair), len(dials.characters))
        ends = matched(alphabet[dials.characters[first]], alphabet[dials.characters[second]])
        here = {name: values[rows] for name, values in factors.items()}
        pieces = _placed(_mixed(*ends, here["morph"]), here, hands, dials)
        metric = hands.metric[here["writer"]]
        softness = hands.softness[here["writer"]]
        widths = np.stack([here["pen"], here["pen"] + 2 * _GAP])
        drawn, near[rows] = coverage(pieces, widths, softness, metric, SIDE)
        picture[rows] = here["ink"][:, None, None] * drawn
    if dials.clutter:
        np.maximum(picture, (1 - near) * _stray_strokes(draws, dials, factors), out=picture)
    if dials.wrap:
        picture = _rolled(picture, factors["x"].astype(np.int64), factors["y"].astype(np.int64))
    return picture


def _mixed(first: tuple, second: tuple, t: np.ndarray) -> np.ndarray:
    """Pieces (n, pieces, 2, 2) at t (n,) of the way from the first character to the second."""
    t = t[:, None, None, None]
    return (1.0 - t) * segments(first) + t * segments(second)


def _placed(pieces: np.ndarray, factors: dict[str, np.ndarray], hands: Hands, dials: GlyphDials) -> np.ndarray:
    """Pieces in pixels: bent by the writer, sheared, turned, scaled, moved."""
    pieces = hands.bend(pieces, factors["writer"], dials.wobble)
    each = (slice(None), None, None)
    x = pieces[..., 0] + factors["shear"][each] * pieces[..., 1]
    y = pieces[..., 1]
    sine = factors["sine"][each]
    cosine = factors["cosine"][each]
    size = factors["size"][each]
    right = size * (cosine * x - sine * y)
    up = size * (sine * x + cosine * y)
    if not dials.wrap:
        right = right + factors["x"][each]
        up = up - factors["y"][each]
    center = 0.5 * (SIDE - 1)
    return np.stack([center + right, center - up], axis=-1)


def _stray_strokes(draws: Draws, dials: GlyphDials, factors: dict[str, np.ndarray]) -> np.ndarray:
    """Brightness of the clutter alone: bent strokes of about the character's width and brightness."""
    pieces = _stray_pieces(draws, dials.clutter)
    width = draws.between("clutter pen", 1.4, 2.7)
    softness = np.ones(draws.count)
    paleness = factors["ink"] * draws.between("clutter ink", 0.85, 1.15)
    round_nib = np.broadcast_to(np.eye(2), (draws.count, 2, 2))
    picture = np.empty((draws.count, SIDE, SIDE))
    for strokes in np.unique(factors["clutter"]):  # images with equally many at once: the pen draws no stroke in vain
        rows = np.flatnonzero(factors["clutter"] == strokes)
        drawn = pieces[rows, : strokes * _PIECES_PER_STRAY_STROKE]
        picture[rows] = coverage(drawn, width[None, rows], softness[rows], round_nib[rows], SIDE)[0]
    return paleness[:, None, None] * picture


def _stray_pieces(draws: Draws, strokes: int) -> np.ndarray:
    """Pieces in pixels of as many stray strokes as an image can have: two halves each, anywhere on the paper."""
    names = ("x", "y", "angle", "bend", "length")
    unit = {name: draws.unit(f"clutter {name}", max(strokes, 2))[:, :strokes] for name in names}
    angle = 2.0 * np.pi * unit["angle"]
    bend = 1.2 * (unit["bend"] - 0.5)
    length = 4.8 + 3.6 * unit["length"]
    middle = np.stack([unit["x"], unit["y"]], axis=-1) * (SIDE - 1)
    tips = []
    for side in (-1.0, 1.0):
        direction = angle + side * bend
        tips.append(middle + side * length[..., None] * np.stack([np.cos(direction), np.sin(direction)], axis=-1))
    pieces = np.stack([np.stack([tips[0], middle], axis=2), np.stack([middle, tips[1]], axis=2)], axis=2)
    return pieces.reshape(draws.count, strokes * _PIECES_PER_STRAY_STROKE, 2, 2)


def _rolled(picture: np.ndarray, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    places = np.arange(SIDE)
    rows = (places - down[:, None]) % SIDE
    columns = (places - right[:, None]) % SIDE
    return picture[np.arange(len(picture))[:, None, None], rows[:, :, None], columns[:, None, :]]


def palette(hue: np.ndarray) -> np.ndarray:
    """Red, green and blue 0..1 of fully saturated inks, (N, 3), for places 0..1 on the color circle."""
    distance = np.abs((hue[:, None] - np.array([0.0, 1.0, 2.0]) / 3.0 + 0.5) % 1.0 - 0.5)
    return np.clip(2.0 - 6.0 * distance, 0.15, 1.0)
