"""Where the names of marks go in a figure, so that none is printed over another or over a mark; in pixels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

CHARACTER = 7.2  # width of a character in the widest of the usual fonts at 12 pixels, on average
LINE = 15  # height of a line of text
NEAR = 12  # from the middle of a mark to the name beside it
RINGS = (NEAR, 22, 34, 48, 64, 84, 108)  # distances that are tried, nearest first
DIRECTIONS = 16
HALF = 5  # of a mark, which the line of another name does not cross
TRIES = 8  # orders in which the names choose their places
STEP = 6  # between the points of a line that are kept free


class Box(NamedTuple):
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> tuple[float, float]:
        """The center."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlaps(self, other: "Box") -> bool:
        """Tell whether the two rectangles share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: "Box") -> bool:
        """Tell whether `other` lies inside."""
        return (
            self.left <= other.left and other.right <= self.right
            and self.top <= other.top and other.bottom <= self.bottom
        )  # fmt: skip


def around(x: float, y: float, reach: float) -> Box:
    """Return the square about a point that reaches so far to each side."""
    return Box(x - reach, y - reach, x + reach, y + reach)


def along(start: tuple[float, float], end: tuple[float, float], reach: float = 2) -> list[Box]:
    """Return squares on the line between two points, close enough that no text fits between them."""
    count = max(1, math.ceil(math.dist(start, end) / STEP))
    step = [(last - first) / count for first, last in zip(start, end, strict=True)]
    return [around(start[0] + i * step[0], start[1] + i * step[1], reach) for i in range(count + 1)]


def placed(
    marks: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Box], area: Box
) -> list[Box | None]:
    """Return the place of each text (lines joined by "<br>") near its mark, inside `area` and free of all else.

    `taken` is what no text may cover, the marks included. A text without a line to its mark is nearer to it than to
    any other; one without any place has None. Equal arguments give equal places.
    """
    sizes = [_size(text) for text in texts]
    free = [_free(mark, size, taken, area) for mark, size in zip(marks, sizes, strict=True)]
    order = sorted(range(len(texts)), key=lambda one: (len(free[one]), one))  # those with the fewest places first
    best: list[Box | None] = []
    for _ in range(TRIES):
        result = _in_order(order, marks, free)
        if not best or result.count(None) < best.count(None):
            best = result
        order = sorted(order, key=lambda one: result[one] is not None)  # those that found none choose first
    return best


def _in_order(
    order: Sequence[int], marks: Sequence[tuple[float, float]], free: Sequence[Sequence[Box]]
) -> list[Box | None]:
    """Return the place of each text where they choose among their `free` places in this `order`."""
    result: list[Box | None] = [None] * len(marks)
    leaders: list[Box] = []
    for index in order:
        others = [mark for mark in marks if mark != marks[index]]
        names = [box for box in result if box is not None]
        for box in free[index]:
            line = leader(marks[index], box)
            crossed = [*names, *(around(*mark, HALF) for mark in others)]
            told = line or all(_apart(marks[index], box) < _apart(mark, box) for mark in others)
            clear = not any(map(box.overlaps, [*names, *leaders]))
            if told and clear and not any(one.overlaps(dot) for one in crossed for dot in line):
                result[index] = box
                leaders += line
                break
    return result


def leader(mark: tuple[float, float], box: Box) -> list[Box]:
    """Return what the line from a mark to its name covers; empty for a name beside its mark, which has no line."""
    if _apart(mark, box) < RINGS[1] - 1:
        return []
    return along(mark, _nearest(mark, box))[2:-1]


def _nearest(point: tuple[float, float], box: Box) -> tuple[float, float]:
    x, y = point
    return min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)


def _apart(point: tuple[float, float], box: Box) -> float:
    return math.dist(point, _nearest(point, box))


def _size(text: str) -> tuple[float, float]:
    lines = text.split("<br>")
    return CHARACTER * max(map(len, lines)), LINE * len(lines)


def _free(mark: tuple[float, float], size: tuple[float, float], taken: Sequence[Box], area: Box) -> list[Box]:
    """Return the places of one text that cover nothing of `taken`, nearest first; above and below before the sides."""
    x, y = mark
    width, height = size
    found = []
    for ring in RINGS:
        for step in (0, *(sign * turn for turn in range(1, DIRECTIONS // 2) for sign in (1, -1)), DIRECTIONS // 2):
            angle = 2 * math.pi * step / DIRECTIONS
            left = x + math.sin(angle) * (ring + width / 2) - width / 2
            top = y - math.cos(angle) * (ring + height / 2) - height / 2
            box = Box(left, top, left + width, top + height)
            if area.holds(box) and not any(map(box.overlaps, taken)):
                found.append(box)
    return found
