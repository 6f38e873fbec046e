"""Reconstructions and samples of methods, for data whose points are images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from bench.report.figures.style import plain, set_title
from bench.stats.curves import Array
from bench.store.schema import DATA, POINT, RECONSTRUCTION, SAMPLE

if TYPE_CHECKING:
    import pandas as pd

_STRIP, _TALL, _HEAD, _GAP = 4.2, 0.46, 0.72, 0.25  # inches
_SIZE = 9  # points


def beside_data(images: pd.DataFrame, methods: list[str], title: str) -> Figure:
    """A row per method: on the left its reconstructions below the test points, on the right its samples.

    Args:
        images: The rows of one dataset and seed.
        methods: The methods to draw, in order.
        title: The title.
    """
    points = strip(images, DATA, POINT)
    low, high = float(points.min()), float(points.max())
    widths = [TextPath((0, 0), plain(name), _SIZE).get_extents().width for name in (DATA, *methods)]
    left = max(widths) / 72 + 2 * _GAP
    width, height = left + 2 * _STRIP + 2 * _GAP, _HEAD + (1 + len(methods)) * _TALL + 0.1
    fig = Figure(figsize=(width, height))
    set_title(fig, title)
    rows = [(DATA, (POINT, None)), *((name, (RECONSTRUCTION, SAMPLE)) for name in methods)]
    for row, (name, kinds) in enumerate(rows):
        y = height - _HEAD - (row + 1) * _TALL
        fig.text((left - 0.12) / width, (y + _TALL / 2) / height, plain(name), ha="right", va="center", fontsize=_SIZE)
        for column, kind in enumerate(kinds):
            if kind is None:
                continue
            x = left + column * (_STRIP + _GAP)
            ax = fig.add_axes((x / width, y / height, _STRIP / width, 0.95 * _TALL / height))
            ax.imshow(strip(images, name, kind), vmin=low, vmax=high, cmap="gray_r", interpolation="none")
            ax.set_axis_off()
    for column, heading in enumerate(("test points and reconstructions", "samples")):
        x = left + column * (_STRIP + _GAP) + _STRIP / 2
        fig.text(x / width, (height - _HEAD + 0.08) / height, heading, ha="center", fontsize=_SIZE)
    return fig


def strip(images: pd.DataFrame, method: str, kind: str) -> Array:
    """The images of a kind side by side, (height, images times width)."""
    rows = images[(images["method"] == method) & (images["kind"] == kind)].sort_values("place")
    every = [np.array(each, float).reshape(-1, int(w)) for each, w in zip(rows["pixels"], rows["width"], strict=True)]
    return np.hstack(every)
