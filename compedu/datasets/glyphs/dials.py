"""The dials of the glyphs data set: what varies from image to image, how much, and what the label is."""

from dataclasses import dataclass

from compedu.datasets.glyphs.alphabet import ALPHABETS

COLORS = ("gray", "nuisance", "label")


@dataclass(frozen=True)
class GlyphDials:
    """Settings of `draw_glyphs`; the defaults give the range of difficulties that the course relies on.

    alphabet: "standard" (20 capitals in look-alike families), "rotated" (16 that stay distinct under quarter turns),
        "orientation" (6/9, N/Z, M/W, b/q/p/d: only the orientation tells them apart), "hatch" (line textures that no
        separable filter sees well).
    classes: characters of the alphabet to use, in label order; None uses all.
    shift: largest displacement of the center, in pixels, each way.   rotation: largest angle, in degrees, each way.
    quarter_turns: turn each image by a random multiple of 90 degrees besides.
    size: range of the characters' half height, in pixels.   shear: largest horizontal shear, each way.
    pen: range of the pen's width, in pixels.   ink: range of the ink's brightness, 0..1, on black paper.
    wobble: how far a writer's hand bends the strokes, as a fraction of the half height.
    clutter: largest number of stray strokes; each image has 0 to this many, all clear of the character.
    wrap: paper without borders: the finished image is rolled by any number of pixels (`shift` is then not used).
    permute: the same fixed permutation of the pixels in every image: kills locality, keeps the information.
    color: "gray" (1 channel), "nuisance" (3 channels, hues at random), "label" (3 channels, the hue is the label).
    morph: fraction of the images that lie between two look-alikes, with a known probability of either label.
    long_tail: how many times rarer the last class is than the first, falling geometrically; 1 is balanced.
    label_noise: fraction of the labels that are replaced by a class drawn at random.
    """

    alphabet: str = "standard"
    classes: tuple[str, ...] | None = None
    shift: float = 3.1
    rotation: float = 21.0
    quarter_turns: bool = False
    size: tuple[float, float] = (7.8, 11.7)
    shear: float = 0.2
    pen: tuple[float, float] = (1.7, 3.0)
    ink: tuple[float, float] = (0.4, 0.9)
    wobble: float = 0.1
    clutter: int = 8
    wrap: bool = False
    permute: bool = False
    color: str = "gray"
    morph: float = 0.0
    long_tail: float = 1.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        _one_of("alphabet", self.alphabet, tuple(ALPHABETS))
        _one_of("color", self.color, COLORS)
        for character in self.classes or ():
            _one_of("classes", character, tuple(ALPHABETS[self.alphabet]))
        if self.classes is not None and not 2 <= len(set(self.classes)) == len(self.classes):
            raise ValueError(f"GlyphDials.classes={self.classes!r}: name at least two characters, each once")
        limits = {"shift": (0, 16), "rotation": (0, 180), "shear": (0, 1), "wobble": (0, 0.3), "clutter": (0, 8)}
        limits |= {"morph": (0, 1), "long_tail": (1, 1000), "label_noise": (0, 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"GlyphDials.{name}={getattr(self, name)!r}: must lie in {low}..{high}")
        for name, (low, high) in {"size": (3, 16), "pen": (0.5, 8), "ink": (0.05, 1)}.items():
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise ValueError(f"GlyphDials.{name}={(first, last)!r}: a range (low, high) within {low}..{high}")

    @property
    def characters(self) -> tuple[str, ...]:
        """The characters that are drawn, in the order of their numbers."""
        return tuple(ALPHABETS[self.alphabet]) if self.classes is None else self.classes


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"GlyphDials.{name}={value!r}: must be one of {', '.join(map(repr, allowed))}")
