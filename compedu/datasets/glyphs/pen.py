"""A pen that draws straight pieces of strokes with smooth edges, many images at once, from distances to the pieces."""

import numpy as np

IMAGES_AT_ONCE = 48  # three float64 buffers of this many 32x32 images stay in a core's second-level cache


def _squared_distance(pieces: np.ndarray, metric: np.ndarray, side: int) -> np.ndarray:
    """Squared distance of every pixel to the nearest piece, measured after the linear map `metric`; (n, side, side)."""
    mapped = np.einsum("nij,npej->npei", metric, pieces)
    middle = mapped.mean(axis=2)
    half = 0.5 * (mapped[:, :, 1] - mapped[:, :, 0])
    reach = np.hypot(half[..., 0], half[..., 1])
    along = np.where(reach[..., None] > 0, half / np.maximum(reach, 1e-300)[..., None], [1.0, 0.0])
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    places = np.arange(side, dtype=np.float64)
    nearest = np.full((len(pieces), side, side), np.inf)
    beside = np.empty_like(nearest)
    beyond = np.empty_like(nearest)
    for piece in range(pieces.shape[1]):
        # Both coordinates in the piece's own frame are linear in column and row: one broadcast addition each.
        for direction, out in ((across[:, piece], beside), (along[:, piece], beyond)):
            slope = np.einsum("nij,ni->nj", metric, direction)
            offset = (direction * middle[:, piece]).sum(axis=1)
            np.add((slope[:, 1:] * places - offset[:, None])[:, :, None], (slope[:, :1] * places)[:, None, :], out=out)
        np.abs(beyond, out=beyond)
        np.subtract(beyond, reach[:, piece, None, None], out=beyond)
        np.maximum(beyond, 0.0, out=beyond)
        np.multiply(beyond, beyond, out=beyond)
        np.multiply(beside, beside, out=beside)
        np.add(beside, beyond, out=beside)
        np.minimum(nearest, beside, out=nearest)
    return nearest


def coverage(pieces: np.ndarray, widths: np.ndarray, softness: np.ndarray, metric: np.ndarray, side: int) -> np.ndarray:
    """How much of each pixel pens of several widths cover, 0..1, float64 of shape (widths, n, side, side).

    `pieces` (n, pieces, 2 ends, 2 coordinates) are in pixels, x to the right and y downwards, pixel centers at whole
    numbers; `widths` (widths, n) are the pens' widths and `softness` (n) the width of their edge, in pixels; `metric`
    (n, 2, 2) shapes the nib: the identity is round, a squeeze of determinant one is a broad nib whose strokes vary with
    direction. The distances, which take the time, are found once for all widths.
    """
    out = np.empty((len(widths), len(pieces), side, side))
    for first in range(0, len(pieces), IMAGES_AT_ONCE):
        part = slice(first, first + IMAGES_AT_ONCE)
        distance = np.sqrt(_squared_distance(pieces[part], metric[part], side))
        for width, covered in zip(widths[:, part, None, None], out[:, part], strict=True):
            np.subtract(0.5 * width, distance, out=covered)
            np.divide(covered, softness[part, None, None], out=covered)
            np.add(covered, 0.5, out=covered)
            np.clip(covered, 0.0, 1.0, out=covered)
    return out
