"""The characters of the glyphs data set, as pen strokes: no font is needed, and every shape is known exactly.

A stroke is a poly-line, an array (points, 2) of x (to the right) and y (upwards) in a box from -1 to 1 in y.
Characters of one look-alike family share their strokes and differ in one part only: O and Q in a tail.
"""

from itertools import zip_longest

import numpy as np

Strokes = tuple[np.ndarray, ...]

_DEGREES_PER_STEP = 21.0  # chords of an arc this long stay within 0.2 pixel of a circle of 12 pixels


def _line(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, dtype=np.float64)


def _arc(x: float, y: float, width: float, height: float, first: float, last: float) -> np.ndarray:
    """An elliptic arc about (x, y) with half axes width and height, from angle first to last, in degrees."""
    steps = max(4, int(np.ceil(abs(last - first) / _DEGREES_PER_STEP)))
    angles = np.deg2rad(np.linspace(first, last, steps + 1))
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _chain(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def _turned(strokes: Strokes, quarters: int) -> Strokes:
    """The strokes turned counter-clockwise by quarters of a circle, exactly."""
    for _ in range(quarters % 4):
        strokes = tuple(np.stack([-stroke[:, 1], stroke[:, 0]], axis=1) for stroke in strokes)
    return strokes


def _mirrored(strokes: Strokes) -> Strokes:
    return tuple(stroke * np.array([-1.0, 1.0]) for stroke in strokes)


def _hatching(*directions: float) -> Strokes:
    """Seven parallel lines in each direction (degrees), cut off by the unit circle."""
    lines = []
    for direction in np.deg2rad(directions):
        along = np.array([np.cos(direction), np.sin(direction)])
        across = np.array([-along[1], along[0]])
        for offset in np.linspace(-0.9, 0.9, 7):
            reach = np.sqrt(1.0 - offset * offset)
            lines.append(np.stack([offset * across - reach * along, offset * across + reach * along]))
    return tuple(lines)


def _round_family() -> dict[str, Strokes]:
    ring = _arc(0, 0, 0.84, 1, 90, 450)
    open_ring = _arc(0, 0, 0.84, 1, 36, 324)
    return {
        "O": (ring,),
        "Q": (ring, _line((0.3, -0.5), (0.8, -1.1))),
        "C": (open_ring,),
        "G": (open_ring, _line((0.68, -0.59), (0.68, -0.1), (0.3, -0.1))),
    }


def _bowl_family() -> dict[str, Strokes]:
    stem = _line((-0.6, -1), (-0.6, 1))
    bowl = _chain(_line((-0.6, 1)), _arc(0.05, 0.48, 0.57, 0.52, 90, -90), _line((-0.6, -0.04)))
    belly = _chain(_line((-0.6, -0.04)), _arc(0.08, -0.52, 0.6, 0.48, 90, -90), _line((-0.6, -1)))
    return {
        "P": (stem, bowl),
        "R": (stem, bowl, _line((0.05, -0.04), (0.6, -1))),
        "B": (stem, bowl, belly),
        "D": (stem, _chain(_line((-0.6, 1)), _arc(-0.15, 0, 0.85, 1, 90, -90), _line((-0.6, -1)))),
    }


def _bar_family() -> dict[str, Strokes]:
    stem = _line((-0.58, -1), (-0.58, 1))
    top, middle, foot = (_line((-0.58, y), (x, y)) for x, y in ((0.6, 1), (0.4, 0.04), (0.34, -1)))
    return {"F": (stem, top, middle), "E": (stem, top, middle, foot), "L": (stem, foot)}


def _valley_family() -> dict[str, Strokes]:
    return {
        "U": (_chain(_line((-0.7, 1)), _arc(0, -0.4, 0.66, 0.6, 180, 360), _line((0.7, 1))),),
        "V": (_line((-0.74, 1), (-0.14, -0.92), (0, -1), (0.14, -0.92), (0.74, 1)),),
        "Y": (_line((-0.74, 1), (0, -0.2), (0.74, 1)), _line((0, -0.2), (0, -1))),
        "T": (_line((-0.76, 1), (0.76, 1)), _line((0, 1), (0, -1))),
    }


def _post_family() -> dict[str, Strokes]:
    left = _line((-0.68, -1), (-0.68, 1))
    right = _line((0.68, 1), (0.68, -1))
    return {
        "H": (left, right, _line((-0.68, 0), (0.68, 0))),
        "N": (left, right, _line((-0.68, 1), (0.68, -1))),
        "M": (left, right, _line((-0.68, 1), (0, -0.1), (0.68, 1))),
        "A": (
            _line((-0.74, -1), (-0.24, 1)),
            _line((-0.24, 1), (0.24, 1), (0.74, -1)),
            _line((-0.5, -0.1), (0.5, -0.1)),
        ),
    }


def _crossing_family() -> dict[str, Strokes]:
    return {
        "K": (_line((-0.6, -1), (-0.6, 1)), _line((0.62, 1), (-0.6, -0.06)), _line((-0.2, 0.28), (0.66, -1))),
        "X": (_line((-0.72, 1), (0.72, -1)), _line((0.72, 1), (-0.72, -1))),
        "S": (_chain(_arc(0, 0.5, 0.62, 0.5, 35, 270), _arc(0, -0.5, 0.66, 0.5, 90, -145)),),
        "Z": (_line((-0.68, 1), (0.68, 1), (-0.68, -1), (0.68, -1)),),
    }


def _turning_family() -> dict[str, Strokes]:
    """Characters that are exact rotations or mirror images of each other, so only the orientation tells them apart."""
    six = (_chain(_arc(0.42, -0.4, 1, 1.4, 96, 180), _arc(0, -0.4, 0.58, 0.6, 180, 540)),)
    zigzag = (_line((-0.8, -0.8), (-0.8, 0.8), (0.8, -0.8), (0.8, 0.8)),)
    mountain = (_line((-0.86, -1), (-0.6, 1), (0, -0.4), (0.6, 1), (0.86, -1)),)
    b = (_line((-0.56, -1), (-0.56, 1)), _arc(0, -0.42, 0.56, 0.58, 180, 540))
    d = _mirrored(b)
    return {
        "6": six, "9": _turned(six, 2), "N": zigzag, "Z": _turned(zigzag, 1), "M": mountain, "W": _turned(mountain, 2),
        "b": b, "q": _turned(b, 2), "p": _turned(d, 2), "d": d,
    }  # fmt: skip


_CHARACTERS = _round_family() | _bowl_family() | _bar_family() | _valley_family() | _post_family() | _crossing_family()

ALPHABETS: dict[str, dict[str, Strokes]] = {
    "standard": {name: _CHARACTERS[name] for name in "OQCGPRBEFUVYHNMAKXSZ"},
    "rotated": {name: _CHARACTERS[name] for name in "OQGPRBEFLYTHAKXS"},
    "orientation": _turning_family(),
    "hatch": {"/": _hatching(45), "\\": _hatching(135), "#": _hatching(45, 135), "-": _hatching(0), "|": _hatching(90)},
}

FAMILIES: tuple[str, ...] = ("OQCG", "PRB", "FE", "UVY", "HNMA", "KX", "SZ")

MORPHS: tuple[tuple[str, str], ...] = (("O", "Q"), ("C", "G"), ("P", "R"), ("F", "E"), ("U", "V"), ("V", "Y"))


def _resampled(stroke: np.ndarray, points: int) -> np.ndarray:
    """The same poly-line with `points` points, equally spaced along it."""
    position = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(stroke, axis=0).T))])
    wanted = np.linspace(0.0, position[-1], points)
    return np.stack([np.interp(wanted, position, stroke[:, axis]) for axis in (0, 1)], axis=1)


def matched(first: Strokes, second: Strokes) -> tuple[Strokes, Strokes]:
    """Give two characters the same strokes and points, so that a mixture of the points morphs one into the other.

    Strokes pair up in order; one that only the longer character has grows out of the other's point nearest to it.
    """
    pairs = []
    for one, other in zip_longest(first, second):
        one = _seed(other, first) if one is None else one
        other = _seed(one, second) if other is None else other
        if len(one) != len(other):
            points = 2 * max(len(one), len(other)) - 1
            one = _resampled(one, points)
            other = _resampled(other, points)
        pairs.append((one, other))
    return tuple(one for one, _ in pairs), tuple(other for _, other in pairs)


def _seed(stroke: np.ndarray, character: Strokes) -> np.ndarray:
    """A stroke without length, of as many points as `stroke`, where `character` comes nearest to one of its points."""
    points = np.concatenate(character)
    gap = np.hypot(*(points[:, None] - stroke[None]).transpose(2, 0, 1)).min(axis=1)
    return np.repeat(points[[np.argmin(gap)]], len(stroke), axis=0)


def segments(strokes: Strokes) -> np.ndarray:
    """The straight pieces of a character: an array (pieces, 2 ends, 2 coordinates)."""
    return np.concatenate([np.stack([stroke[:-1], stroke[1:]], axis=1) for stroke in strokes])
