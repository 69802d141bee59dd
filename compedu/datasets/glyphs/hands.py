"""The writers of the glyphs data set: each bends strokes in its own smooth way and holds its own pen.

No two splits share a writer, so accuracy on one split is measured on writers that the others never saw.
"""

from dataclasses import dataclass

import numpy as np

from compedu.datasets.glyphs.streams import uniforms

WRITERS = 60  # per split and seed
_WAVES = 3


@dataclass(frozen=True)
class Hands:
    """Writers' habits, one entry per writer: bends (waves), breadth of the nib and its angle, edge, proportions."""

    amplitude: np.ndarray  # (writers, waves, 2)
    frequency: np.ndarray  # (writers, waves, 2), radians per half height
    phase: np.ndarray  # (writers, waves)
    metric: np.ndarray  # (writers, 2, 2)
    softness: np.ndarray  # (writers,), in pixels
    aspect: np.ndarray  # (writers,), width over height, against the drawn model

    @classmethod
    def of(cls, seed: int, split: str) -> "Hands":
        """The writers of one split."""

        def draw(name: str, low: float, high: float, *shape: int) -> np.ndarray:
            count = WRITERS * int(np.prod(shape, dtype=int))
            return low + (high - low) * uniforms(count, "writer", seed, split, name).reshape(WRITERS, *shape)

        squeeze = draw("squeeze", 1.0, 1.35)
        angle = np.deg2rad(draw("nib angle", 15.0, 60.0))
        along = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
        across = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        metric = (
            along[:, :, None] * along[:, None, :] / squeeze[:, None, None]
            + across[:, :, None] * across[:, None, :] * squeeze[:, None, None]
        )
        return cls(
            amplitude=draw("amplitude", -1.0, 1.0, _WAVES, 2) / np.sqrt(_WAVES),
            frequency=draw("frequency", -2.4, 2.4, _WAVES, 2),
            phase=draw("phase", 0.0, 2.0 * np.pi, _WAVES),
            metric=metric,
            softness=draw("softness", 0.9, 1.5),
            aspect=draw("aspect", 0.82, 1.12),
        )

    def bend(self, points: np.ndarray, writer: np.ndarray, wobble: float) -> np.ndarray:
        """Points (n, ..., 2) by writers (n,): moved by a smooth field of about `wobble`, made wide or narrow."""
        flat = points.reshape(len(points), -1, 2)
        angle = np.einsum("nki,nwi->nkw", flat, self.frequency[writer]) + self.phase[writer][:, None, :]
        bent = flat + wobble * np.einsum("nkw,nwi->nki", np.sin(angle), self.amplitude[writer])
        bent[..., 0] *= self.aspect[writer][:, None]
        return bent.reshape(points.shape)
