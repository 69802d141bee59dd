"""Small pictures of the images that a network newly gets wrong, with what it was, what was said before and after."""

import base64
import html
import io

import numpy as np
from PIL import Image

from compedu.datasets.dataset import Dataset
from compedu.metrics import Report

MOST = 12


def image_bytes(data: Dataset, split: str, index: int, side: int = 40) -> str:
    """Return one image as the text of a PNG data address, enlarged to `side` pixels without smoothing."""
    pixels = data.split(split)[0][index] * data.spread + data.mean
    levels = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(levels[:, :, 0] if levels.shape[2] == 1 else levels))
    buffer = io.BytesIO()
    picture.resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip(report: Report | None, data: Dataset) -> str:
    """Return HTML with at most twelve newly wrong images of `report`."""
    if report is None or report.newly_wrong is None:
        return "<span class='compedu-quiet'>newly wrong images appear after the first measurement</span>"
    if not report.newly_wrong:
        return "<span class='compedu-quiet'>no image is newly wrong</span>"
    cells = []
    for wrong in report.newly_wrong[:MOST]:
        true, before, after = (html.escape(data.classes[label]) for label in (wrong.true, wrong.before, wrong.after))
        words = f"image {wrong.index}: is {true}, the dense network said {before}, this one says {after}"
        cells.append(
            f"<figure title='{words}'><img alt='{words}' src='{image_bytes(data, report.split, wrong.index)}'>"
            f"<figcaption>{true}→{after}</figcaption></figure>"
        )
    return "".join(cells)
