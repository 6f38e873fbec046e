"""The effect of varying one factor at a time, drawn from sweep.parquet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.common.units import quantity
from bench.report.figures import style
from bench.store.files import atomic_write

SIZE = "n_train"
GROWTH = {"wall_s": "wall time", "peak_memory_mb": "peak memory"}
FLOOR = 1e-3
WIDE = 4.0


def write(folder: Path) -> Path:
    """Draw figures/sweep.svg and sweep.png from the sweep.parquet of a folder.

    Returns:
        The path of the PNG.
    """
    rows = pd.read_parquet(folder / "sweep.parquet")
    (folder / "figures").mkdir(exist_ok=True)
    with style.figure_style():
        fig = draw(rows)
        for kind in ("svg", "png"):
            path = folder / "figures" / f"sweep.{kind}"
            atomic_write(path, style.image(fig, kind))
    return path


def draw(rows: pd.DataFrame) -> Figure:
    """A panel per factor with the oracle gap against its levels, and for n_train two more with time and memory.

    Lines are the median over finished seeds, one per dataset; bands are the range.

    Args:
        rows: As `bench.study.sweep.table` returns them.
    """
    done = rows[rows["status"] == "done"]
    panels = [
        (factor, column)
        for factor in dict.fromkeys(rows["factor"])
        for column in ("oracle_gap", *(GROWTH if factor == SIZE else ()))
    ]
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    fig = Figure(figsize=(WIDE * columns + 0.5, 2.9 * lines), layout="constrained")
    axes = list(fig.subplots(lines, columns, squeeze=False).flatten())
    for ax, (factor, column) in zip(axes, panels, strict=False):
        each = done[done["factor"] == factor]
        _growth(ax, column, each) if column in GROWTH else _gaps(ax, factor, each)
    for ax in axes[len(panels) :]:
        ax.remove()
    return fig


def _gaps(ax: Axes, factor: str, rows: pd.DataFrame) -> None:
    """The oracle gap against the levels of a factor, on a logarithmic axis that ends at 1e-3."""
    levels = list(dict.fromkeys(rows.sort_values("value", kind="stable")["level"]))
    values = np.array([rows.loc[rows["level"] == level, "value"].iloc[0] for level in levels])
    numeric = bool(np.isfinite(values).all())
    place = dict(zip(levels, values if numeric else np.arange(len(levels)), strict=True))
    at = rows["level"].map(place).to_numpy(dtype=float)
    _lines(ax, at, rows, "oracle_gap", {}, FLOOR)
    ax.set_yscale("log")
    if numeric and values.size and values.min() > 0 and values.max() >= 4 * values.min():
        ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(place.values()), levels)
    ax.set_xlabel("training points N" if factor == SIZE else style.plain(factor))
    ax.set_ylabel("oracle gap (nats)")
    _label(ax, lambda value: f"{value:g}")


def _growth(ax: Axes, cost: str, rows: pd.DataFrame) -> None:
    """A cost against the number of training points, both logarithmic, with the exponent of growth."""
    names = {}
    for dataset, each in rows.groupby("dataset", sort=False):
        middle = each.groupby("value")[cost].median()
        names[str(dataset)] = f"{dataset}: N^{growth(middle.index.to_numpy(dtype=float), middle.to_numpy()):.2f}"
    _lines(ax, rows["value"].to_numpy(dtype=float), rows, cost, names)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    levels = sorted(set(rows["value"]))
    ax.set_xticks(levels, [f"{level:.10g}" for level in levels])
    if (rows[cost] > 0).any():
        ax.set_yscale("log")
        _label(ax, partial(quantity, cost))
    ax.set_xlabel("training points N")
    contended = " (contended)" if cost == "wall_s" and rows["concurrent"].any() else ""
    ax.set_ylabel(GROWTH[cost] + contended)


def _label(ax: Axes, text: Callable[[float], str]) -> None:
    """Label a logarithmic vertical axis, at 1, 2 and 5 where it spans little."""
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(float(f"{value:.3g}"))))
    ax.yaxis.set_minor_locator(NullLocator())


def growth(n_train: np.ndarray, cost: np.ndarray) -> float:
    """The exponent a of the least-squares fit of cost = c n^a on logarithmic axes.

    Args:
        n_train: Numbers of training points, (n,).
        cost: The cost at each, (n,).

    Returns:
        The exponent; NaN if there are fewer than two numbers with a positive cost.
    """
    fit = (n_train > 0) & (cost > 0)
    if len(set(n_train[fit])) < 2:
        return float("nan")
    return float(np.polyfit(np.log(n_train[fit]), np.log(cost[fit]), 1)[0])


def _lines(
    ax: Axes, at: np.ndarray, rows: pd.DataFrame, column: str, names: dict[str, str], floor: float = 0.0
) -> None:
    """A line per dataset through the medians over seeds, with their range, and a legend."""
    datasets = list(dict.fromkeys(rows["dataset"]))
    colors = sns.color_palette("colorblind", max(len(datasets), 1)).as_hex()
    for dataset, color in zip(datasets, colors, strict=False):
        chosen = (rows["dataset"] == dataset).to_numpy()
        by_level = rows.loc[chosen, column].clip(lower=floor).groupby(at[chosen])
        low, middle, high = by_level.min(), by_level.median(), by_level.max()
        x = middle.index.to_numpy(dtype=float)
        ax.fill_between(x, low.to_numpy(), high.to_numpy(), color=color, alpha=0.18, linewidth=0)
        label = style.plain(names.get(str(dataset), str(dataset)))
        ax.plot(x, middle.to_numpy(), color=color, marker="o", markersize=4, label=label)
    if datasets:
        ax.legend(frameon=False, fontsize=8)
    sns.despine(ax=ax)
