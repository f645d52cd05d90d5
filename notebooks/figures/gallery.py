"""Pictures to look at: in rows, each with a note below, or laid out on a plane by their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image

from notebooks.figures.chart import COLOURS, GROUND, Chart, canvas

TILE, STAMP = 96, 44  # pixels
SHADES = 256  # more colours than a chart has
Noted = tuple[Image.Image, str]


def rows(shown: Mapping[str, Sequence[Noted]], title: str) -> Chart:
    """A row of pictures under each name, as many of each as the longest has."""
    across = max(len(pictures) for pictures in shown.values())
    longest = max(len(note) for pictures in shown.values() for _, note in pictures)
    size = (max(4.0, max(1.35, 0.08 * longest) * across), 0.5 + 1.8 * len(shown))
    chart = Chart(figsize=size, dpi=130, facecolor="white", layout="constrained")
    chart.shades = SHADES
    chart.suptitle(title)
    strips = chart.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for strip, (name, pictures) in zip(strips, shown.items(), strict=True):
        strip.suptitle(name, x=0.01, ha="left", fontsize="medium", color=COLOURS[0])
        for axes, noted in zip(strip.subplots(1, across, squeeze=False)[0], pictures, strict=False):
            axes.imshow(_tile(noted[0]))
            axes.set_title(noted[1], y=-0.24, fontsize="small")
        for axes in strip.axes:
            axes.set_axis_off()
    return chart


def plane(
    pictures: Sequence[Image.Image], vectors: npt.NDArray[Any], title: str, middle: float = 1.0
) -> Chart:
    """Each picture where its vector (n, dim) lies on the two directions that tell most apart.

    Of each only the middle is shown, this share of its sides.
    """
    places, told = principal(vectors)
    x, y = (f"direction {i + 1} ({told[i]:.0%} of the variance)" for i in range(2))
    chart = canvas(title, x, y, height=6.0)
    chart.shades = SHADES
    axes = chart.axes[0]
    axes.scatter(places[:, 0], places[:, 1], s=1, color=COLOURS[-1])
    for picture, place in zip(pictures, places, strict=True):
        small = OffsetImage(np.asarray(_tile(_middle(picture, middle), STAMP)), zoom=0.7)
        frame = {"edgecolor": GROUND, "boxstyle": "square,pad=0"}
        axes.add_artist(AnnotationBbox(small, (place[0], place[1]), pad=0, bboxprops=frame))
    axes.margins(0.08)
    return chart


def principal(
    vectors: npt.NDArray[Any], count: int = 2
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Places (n, count) along the directions of most variance, and the share that each tells."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    shares = strengths**2 / max(float((strengths**2).sum()), 1e-12)
    return left[:, :count] * strengths[:count], shares[:count]


def _middle(picture: Image.Image, share: float) -> Image.Image:
    across, down = (side * (1 - share) / 2 for side in picture.size)
    return picture.crop(
        (int(across), int(down), int(picture.width - across), int(picture.height - down))
    )


def _tile(picture: Image.Image, side: int = TILE) -> Image.Image:
    """Small, and centred on a square of white."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    tile = Image.new("RGB", (side, side), "white")
    tile.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return tile
