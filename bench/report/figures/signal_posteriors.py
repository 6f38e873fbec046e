"""The posterior of the noiseless signal of each method over the true one, in data space, where all are comparable."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.optimize import linear_sum_assignment

from bench.common.units import number
from bench.report.figures.palette import INK, MUTED, Style
from bench.report.figures.style import EDGE, name_row, panel_grid, set_title
from bench.stats.curves import Array
from bench.store.schema import TRUTH

if TYPE_CHECKING:
    import pandas as pd

MOST = 5
_MARGIN = 0.18
_TRUE: dict[str, Any] = {"color": MUTED, "alpha": 0.22, "markersize": 8.5, "markeredgewidth": 0}
_LEARNED: dict[str, Any] = {"markersize": 3.4, "alpha": 0.9, "markeredgewidth": 0}
_GIVEN: dict[str, Any] = {"color": INK, "marker": "x", "markersize": 8, "markeredgewidth": 1.6}


def overlaid(
    signals: pd.DataFrame, methods: list[str], groups: Mapping[str, str], baseline: Collection[str]
) -> list[str]:
    """The methods to draw: the baselines, then the first method of each other colour group, five at most.

    Args:
        signals: The rows of one dataset and seed.
        methods: The fitted methods, in order.
        groups: The colour group of each method.
        baseline: The methods that are compared with every other one.
    """
    present = set(signals["method"].unique())
    known = [name for name in methods if name in present]
    found = [name for name in known if name in baseline]
    seen = {groups[name] for name in found}
    for name in known:
        if groups[name] not in seen:
            seen.add(groups[name])
            found.append(name)
    return found[:MOST]


def over_truth(signals: pd.DataFrame, names: list[str], known: dict[str, Style], title: str) -> Figure:
    """A row per method and a column per x: equally weighted points of f(z) given x, over the true ones.

    Args:
        signals: The rows of one dataset and seed, of two or three data dimensions, of which two are drawn.
        names: The methods to draw.
        known: The styles of the methods.
        title: The title.
    """
    asked = signals.drop_duplicates("point")[["point", "x"]]
    asked = asked.sort_values("x", key=lambda each: each.map(lambda x: x[0]))
    legend = _entries()
    labels = [str(line.get_label()) for line in legend]
    fig, axes = panel_grid(len(names), len(asked), (1.9, 1.9), (0.72, 0.34), (1.15, EDGE, 0.65, 0.5), (legend, labels))
    set_title(fig, title)
    for column, (point, x) in zip(axes.T, asked.to_numpy(), strict=True):
        _column(column, signals[signals["point"] == point], np.array(x, float), {name: known[name] for name in names})
    for ax, name in zip(axes[:, 0], names, strict=True):
        name_row(ax, name)
    return fig


def distance(first: Array, second: Array) -> float:
    """The 2-Wasserstein distance of two sets of m equally weighted points, (m, D); NaN unless all are finite.

    It is exact: the best transport plan between sets of equal size is an assignment (Peyré & Cuturi 2019, prop. 2.1).
    """
    cost = np.square(first[:, None] - second).sum(-1)
    if not np.isfinite(cost).all():
        return float("nan")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def plane(true: Array, x: Array) -> Array:
    """The two coordinates, in ascending order, in which the true signals (m, D) and x (D,) vary most."""
    spread = np.vstack([true, x]).var(0)
    return np.sort(np.argsort(-spread, kind="stable")[:2])


def window(true: Array, x: Array) -> Array:
    """A square around points (m, 2) and x (2,) with a margin: the lower and upper limit of each coordinate, (2, 2)."""
    seen = np.vstack([true, x])
    low, high = seen.min(0), seen.max(0)
    half = (0.5 + _MARGIN) * (float((high - low).max()) or 1.0)
    centre = (low + high) / 2
    return np.stack([centre - half, centre + half], 1)


def outside(points: Array, limits: Array) -> float:
    """The share of points (m, 2) outside a window."""
    return float(1 - ((points >= limits[:, 0]) & (points <= limits[:, 1])).all(1).mean())


def _column(axes: Array, rows: pd.DataFrame, x: Array, known: dict[str, Style]) -> None:
    """All methods for one x, within the same limits."""
    true = _points(rows, TRUTH)
    shown = plane(true, x)
    limits = window(true[:, shown], x[shown])
    for ax, (name, style) in zip(axes, known.items(), strict=True):
        learned = _points(rows, name)
        ax.plot(*true[:, shown].T, "o", **_TRUE)
        ax.plot(*learned[:, shown].T, "o", color=style.color, gid=style.mark, **_LEARNED)
        ax.plot(*x[shown], **_GIVEN)
        clipped = outside(learned[:, shown], limits)
        beyond = f", {100 * clipped:.0f} % outside" if clipped else ""
        ax.set_title(f"W2 {number(distance(true, learned))}{beyond}", fontsize=8.5)
        _framed(ax, limits, shown)
        ax.tick_params(labelbottom=ax is axes[-1])
    axes[-1].set_xlabel(f"x{shown[0] + 1}")


def _points(rows: pd.DataFrame, name: str) -> Array:
    """The signals of one x under a model: (m, D)."""
    return np.array(rows.loc[rows["method"] == name, "signal"].map(list).to_list(), float)


def _framed(ax: Axes, limits: Array, shown: Array) -> None:
    ax.set(xlim=limits[0], ylim=limits[1], ylabel=f"x{shown[1] + 1}")
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(3))
    sns.despine(ax=ax)


def _entries() -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", marker="o", label="true posterior", **_TRUE),
        Line2D([], [], linestyle="", marker="o", label="the method's", color=INK, **_LEARNED),
        Line2D([], [], linestyle="", label="x", **_GIVEN),
    ]
