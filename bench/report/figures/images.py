"""Reconstructions and samples of methods, for data whose points are images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from bench.report.figures.style import plain, set_title
from bench.stats.curves import Array

if TYPE_CHECKING:
    import pandas as pd

DATA = "data"
POINT, RECONSTRUCTION, SAMPLE = "test point", "reconstruction", "sample"
_STRIP, _TALL, _LEFT, _HEAD, _GAP = 4.2, 0.46, 1.35, 0.72, 0.25  # inches


def beside_data(images: pd.DataFrame, methods: list[str], title: str) -> Figure:
    """A row per method: on the left its reconstructions below the test points, on the right its samples.

    Args:
        images: The rows of one dataset and seed.
        methods: The methods to draw, in order.
        title: The title.
    """
    points = strip(images, DATA, POINT)
    low, high = float(points.min()), float(points.max())
    width, height = _LEFT + 2 * _STRIP + 2 * _GAP, _HEAD + (1 + len(methods)) * _TALL + 0.1
    fig = Figure(figsize=(width, height))
    set_title(fig, title)
    rows = [(DATA, (POINT, None)), *((name, (RECONSTRUCTION, SAMPLE)) for name in methods)]
    for row, (name, kinds) in enumerate(rows):
        y = height - _HEAD - (row + 1) * _TALL
        fig.text((_LEFT - 0.12) / width, (y + _TALL / 2) / height, plain(name), ha="right", va="center", fontsize=9)
        for column, kind in enumerate(kinds):
            if kind is None:
                continue
            x = _LEFT + column * (_STRIP + _GAP)
            ax = fig.add_axes((x / width, y / height, _STRIP / width, 0.95 * _TALL / height))
            ax.imshow(strip(images, name, kind), vmin=low, vmax=high, cmap="gray_r", interpolation="none")
            ax.set_axis_off()
    for column, heading in enumerate(("test points and reconstructions", "samples")):
        x = _LEFT + column * (_STRIP + _GAP) + _STRIP / 2
        fig.text(x / width, (height - _HEAD + 0.08) / height, heading, ha="center", fontsize=9)
    return fig


def strip(images: pd.DataFrame, method: str, kind: str) -> Array:
    """The images of a kind side by side, (height, images times width)."""
    rows = images[(images["method"] == method) & (images["kind"] == kind)].sort_values("place")
    every = [np.array(each, float).reshape(-1, int(w)) for each, w in zip(rows["pixels"], rows["width"], strict=True)]
    return np.hstack(every)
