"""Thumbnails of the images whose answer changed: the true class, and the answers before and after."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from compedu.datasets.dataset import Dataset
from compedu.metrics import Flip

MOST = 12


def image_bytes(data: Dataset, split: str, index: int, side: int = 40) -> str:
    """Return one image as a PNG data URL, scaled to `side` pixels without smoothing."""
    pixels = data.split(split)[0][index] * data.std + data.mean
    levels = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(levels[:, :, 0] if levels.shape[2] == 1 else levels))
    buffer = io.BytesIO()
    picture.resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip(flips: Sequence[Flip] | None, data: Dataset, split: str, kind: str) -> str:
    """Return HTML with at most twelve images that are `kind`, "newly wrong" or "newly right"."""
    if flips is None:
        return f"<p class='compedu-quiet'>images that are {kind} appear when all are measured</p>"
    if not flips:
        return f"<p class='compedu-quiet'>no image is {kind}</p>"
    return (
        f"<div class='compedu-strip'>{''.join(_figure(flip, data, split) for flip in flips[:MOST])}"
        f"{_rest(len(flips))}</div>"
    )


def _figure(flip: Flip, data: Dataset, split: str) -> str:
    true, before, after = (
        html.escape(data.classes[label], quote=True) for label in (flip.true, flip.before, flip.after)
    )
    words = f"image {flip.image} is {true}: the dense network says {before}, this one {after}"
    return (
        f"<figure title='{words}'>"
        f"<img alt='{words}' width='40' height='40' src='{image_bytes(data, split, flip.image)}'>"
        f"<figcaption>{before}→{after}</figcaption></figure>"
    )


def _rest(count: int) -> str:
    return f"<span class='compedu-quiet'>and {count - MOST} more</span>" if count > MOST else ""
