"""The posterior of the noiseless signal over the true one, in data space, where every method can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.optimize import linear_sum_assignment

from bench.common.units import number
from bench.report.figures.palette import INK, MUTED, Style, family
from bench.report.figures.style import EDGE, named, placed, titled
from bench.stats.curves import Array
from bench.stats.summary import fitted

if TYPE_CHECKING:
    import pandas as pd

TRUTH = "truth"
MOST = 5
POLISHED = "mapa-polished"
_ORDER = ("mapa", POLISHED, "vae", "iwae", "iterative", "flow")
_MARGIN = 0.18
_TRUE: dict[str, Any] = {"color": MUTED, "alpha": 0.22, "markersize": 8.5, "markeredgewidth": 0}
_LEARNED: dict[str, Any] = {"markersize": 3.4, "alpha": 0.9, "markeredgewidth": 0}
_GIVEN: dict[str, Any] = {"color": INK, "marker": "x", "markersize": 8, "markeredgewidth": 1.6}


def overlaid(signals: pd.DataFrame, methods: list[str]) -> list[str]:
    """The methods to draw over the truth: the first of each family, five at most, those that are best known first."""
    present = set(signals["method"].unique())
    first: dict[str, str] = {}
    for name in fitted(methods):
        if name in present:
            first.setdefault(_kind(name), name)
    kinds = [kind for kind in _ORDER if kind in first] + [kind for kind in first if kind not in _ORDER]
    return [first[kind] for kind in kinds[:MOST]]


def _kind(name: str) -> str:
    """The family of a method, of which the polished MAPA is one of its own."""
    return POLISHED if name.partition("[")[0] == POLISHED else family(name)


def over_truth(signals: pd.DataFrame, names: list[str], known: dict[str, Style], title: str) -> Figure:
    """A row for each method and a column for each x: equally weighted points of f(z) given x, over the true ones.

    signals: one dataset and seed, long form, of two or three data dimensions, of which two are drawn.
    """
    asked = signals.drop_duplicates("point")[["point", "x"]]
    asked = asked.sort_values("x", key=lambda each: each.map(lambda x: x[0]))
    legend = _entries()
    labels = [str(line.get_label()) for line in legend]
    fig, axes = placed(len(names), len(asked), (1.9, 1.9), (0.72, 0.34), (1.15, EDGE, 0.65, 0.5), (legend, labels))
    titled(fig, title)
    for column, (point, x) in zip(axes.T, asked.to_numpy(), strict=True):
        _column(column, signals[signals["point"] == point], np.array(x, float), {name: known[name] for name in names})
    for ax, name in zip(axes[:, 0], names, strict=True):
        named(ax, name)
    return fig


def distance(first: Array, second: Array) -> float:
    """The 2-Wasserstein distance of two sets of m equally weighted points (m, D); nan unless all are finite.

    Exact, since the best transport plan between sets of equal size is an assignment (Peyre & Cuturi 2019, prop. 2.1).
    """
    cost = np.square(first[:, None] - second).sum(-1)
    if not np.isfinite(cost).all():
        return float("nan")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def plane(true: Array, x: Array) -> Array:
    """The two coordinates, in their order, in which the true signals (m, D) and x (D,) spread most."""
    spread = np.vstack([true, x]).var(0)
    return np.sort(np.argsort(-spread, kind="stable")[:2])


def window(true: Array, x: Array) -> Array:
    """A square about points (m, 2) and x (2,) with a margin on each side: rows low and high of each coordinate."""
    seen = np.vstack([true, x])
    low, high = seen.min(0), seen.max(0)
    half = (0.5 + _MARGIN) * (float((high - low).max()) or 1.0)
    centre = (low + high) / 2
    return np.stack([centre - half, centre + half], 1)


def outside(points: Array, limits: Array) -> float:
    """The share of points (m, 2) that a window does not show."""
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
