"""Figures of the first chapter: images of a data set, the noise of an accuracy as dots, the survey's criteria."""

import html

import plotly.graph_objects as go
import torch
from torch import Tensor

from compedu.datasets.dataset import Dataset
from compedu.explorers.figures.colors import GRAY, LIVE
from compedu.explorers.pages.standalone import StandaloneFigure, styled
from compedu.explorers.panel.panel import STYLE
from compedu.explorers.panel.strip import image_bytes
from compedu.explorers.panel.tables import criteria_table
from compedu.metrics import Report


class Page:
    """A piece of HTML that a notebook shows."""

    def __init__(self, text: str):
        self.text = text

    def _repr_html_(self) -> str:
        return self.text


def gallery(data: Dataset, count: int = 20, split: str = "validation", labels: bool = True) -> Page:
    """Show the first `count` images of a split, ten in a row, with their classes unless `labels` is false."""
    cells = "".join(
        f"<figure style='margin:0;text-align:center'><img alt='{alt}' src='{image_bytes(data, split, index, 64)}' "
        f"style='image-rendering:pixelated'><figcaption>{caption}</figcaption></figure>"
        for index, (alt, caption) in enumerate(_names(data, split, count, labels))
    )
    return Page(f"<div style='display:grid;grid-template-columns:repeat(10,max-content);gap:6px'>{cells}</div>")


def _names(data: Dataset, split: str, count: int, labels: bool) -> list[tuple[str, str]]:
    """Return the alternative text and the caption of each image."""
    names = [html.escape(data.classes[label], quote=True) for label in data.split(split)[1][:count].tolist()]
    return [(f"a drawn {name}", name) if labels else (f"image {i}", str(i)) for i, name in enumerate(names, start=1)]


def criteria(report: Report) -> Page:
    """Show the survey's criteria of a measured network as a table."""
    return Page(f"<style>{STYLE}</style>{criteria_table(report)}")


def noise_dots(is_correct: Tensor, sizes: tuple[int, ...], repeats: int = 200, seed: int = 0) -> go.Figure:
    """Return a figure of bootstrapped accuracies: `repeats` samples of each size, drawn with replacement.

    They are drawn from `is_correct`, which says of each image whether its prediction is correct, boolean, shape (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    figure = StandaloneFigure()
    for row, size in enumerate(sizes):
        draws = torch.randint(len(is_correct), (repeats, size), generator=generator)
        accuracy = 100 * is_correct.float()[draws].mean(1)
        heights = row + 0.6 * (torch.rand(repeats, generator=generator) - 0.5)
        figure.add_scatter(
            x=accuracy.tolist(), y=heights.tolist(), mode="markers", showlegend=False,
            marker={"size": 5, "color": LIVE, "opacity": 0.5},
            hovertemplate=f"{size} images: %{{x:.1f}} %<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=100 * is_correct.float().mean().item(), line={"color": GRAY, "dash": "dot"})
    figure.update_layout(
        xaxis={"title": "accuracy, %"},
        yaxis={
            "tickvals": list(range(len(sizes))), "ticktext": [f"{size} images" for size in sizes], "showgrid": False,
            "zeroline": False,
        },
    )  # fmt: skip
    return styled(figure, width=640, height=80 + 60 * len(sizes), l=90, r=10, b=40)
