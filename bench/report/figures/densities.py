"""Learned densities beside the true one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.figures.style import plain
from bench.stats.curves import Array
from bench.store.schema import TRUTH

if TYPE_CHECKING:
    import pandas as pd

_COLORS = sns.color_palette("mako", as_cmap=True)


def seed_shown(densities: pd.DataFrame) -> int:
    """The seed to show of one dataset: the lowest of those with the most methods."""
    methods = densities.groupby("seed")["method"].nunique()
    return int(methods.index[methods == methods.max()].min())


def beside_truth(densities: pd.DataFrame, methods: list[str], title: str) -> Figure:
    """Densities of one dataset and seed, the true one first, on one colour scale that ends at the true peak.

    Args:
        densities: A row per method and point of its rectangular grid, with log_density in nats.
        methods: The methods to draw, in order; those without a density are left out.
        title: The title.
    """
    present = set(densities["method"].unique())
    names = [name for name in (TRUTH, *methods) if name in present]
    grids = {name: _grid(densities[densities["method"] == name]) for name in names}
    peak = max(float(np.nanmax(grids[name][2])) for name in (names[:1] if names[0] == TRUTH else names))
    fig, axes, bar = _mosaic(len(names), grids[names[0]])
    for ax, name in zip(axes, names, strict=True):
        x, y, density = grids[name]
        mesh = ax.imshow(
            density,
            extent=(*_edges(x), *_edges(y)),
            origin="lower",
            interpolation="none",
            vmin=0,
            vmax=peak,
            cmap=_COLORS,
            aspect="equal",
        )
        ax.set_title("true model" if name == TRUTH else plain(name))
        ax.grid(visible=False)
    fig.colorbar(mesh, cax=bar, extend="max", label="density")
    fig.text(0.02, 1 - 0.22 / fig.get_figheight(), plain(title), fontsize=11, fontweight="bold")
    return fig


def _mosaic(n: int, grid: tuple[Array, Array, Array]) -> tuple[Figure, list[Axes], Axes]:
    """n panels of the grid's proportions, up to six a row, and the axis of a colour bar; inches."""
    columns = min(n, 6)
    rows = -(-n // columns)
    wide, gap, left, right, head, foot = 2.1, 0.18, 0.45, 0.95, 0.62, 0.32
    across, up = (float(np.ptp(axis)) for axis in grid[:2])
    tall = wide * (min(max(up / across, 0.4), 2.0) if across and up else 1.0)
    width = left + columns * wide + (columns - 1) * gap + right
    height = head + rows * tall + (rows - 1) * (gap + 0.4) + foot
    fig = Figure(figsize=(width, height))
    axes: list[Axes] = []
    for i in range(n):
        x, y = left + (i % columns) * (wide + gap), height - head - tall - (i // columns) * (tall + gap + 0.4)
        axes.append(fig.add_axes((x / width, y / height, wide / width, tall / height)))
        axes[i].tick_params(labelleft=i % columns == 0)
    bar = ((width - right + gap) / width, (height - head - tall) / height, 0.13 / width, tall / height)
    return fig, axes, fig.add_axes(bar)


def _grid(rows: pd.DataFrame) -> tuple[Array, Array, Array]:
    """x1 (n,), x2 (m,) and the density (m, n)."""
    table = rows.pivot_table(index="x2", columns="x1", values="log_density")
    return table.columns.to_numpy(float), table.index.to_numpy(float), np.exp(table.to_numpy(float))


def _edges(centres: Array) -> tuple[float, float]:
    """The outer edges of evenly spaced cells, given their centres."""
    half = float(np.ptp(centres)) / max(len(centres) - 1, 1) / 2 or 0.5
    return float(centres[0]) - half, float(centres[-1]) + half
