"""The effect of varying one factor at a time, drawn from sweep.parquet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.common.units import quantity
from bench.report.figures import style
from bench.report.figures.palette import Style, styles
from bench.store.files import atomic_write

SIZE = "n_train"
GROWTH = {"wall_s": "wall time", "peak_memory_mb": "peak memory"}
FLOOR = 1e-3
WIDE, LETTERS = 4.0, 62  # a panel in inches, and in letters of its title


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
    columns = style.columns_for(len(panels), 3)
    lines = -(-len(panels) // columns)
    fig = Figure(figsize=(WIDE * columns + 0.5, 2.9 * lines + 0.3), layout="constrained")
    axes = list(fig.subplots(lines, columns, squeeze=False).flatten())
    known = styles(dict.fromkeys(rows["dataset"].astype(str), "method"))
    for ax, (factor, column) in zip(axes, panels, strict=False):
        each = done[done["factor"] == factor]
        _growth(ax, column, each, known) if column in GROWTH else _gaps(ax, factor, each, known)
    for ax in axes[len(panels) :]:
        ax.remove()
    legend = style.entries(list(known), known)
    ncols = style.abreast(legend[1], WIDE * columns)
    fig.legend(*legend, loc="outside lower center", ncols=ncols, frameon=False, handlelength=3)
    return fig


def _gaps(ax: Axes, factor: str, rows: pd.DataFrame, known: Mapping[str, Style]) -> None:
    """The oracle gap against the levels of a factor, on a logarithmic axis that ends at 1e-3."""
    levels = list(dict.fromkeys(rows.sort_values("value", kind="stable")["level"]))
    values = np.array([rows.loc[rows["level"] == level, "value"].iloc[0] for level in levels])
    numeric = bool(np.isfinite(values).all())
    place = dict(zip(levels, values if numeric else np.arange(len(levels)), strict=True))
    at = rows["level"].map(place).to_numpy(dtype=float)
    _lines(ax, at, rows, "oracle_gap", known, FLOOR)
    ax.set_yscale("log")
    if numeric and values.size and values.min() > 0 and values.max() >= 4 * values.min():
        ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(place.values()), levels)
    ax.set_xlabel("training points N" if factor == SIZE else style.plain(factor))
    ax.set_ylabel("oracle gap (nats)")
    style.label_logarithmic(ax.yaxis, lambda value: f"{value:g}")


def _growth(ax: Axes, cost: str, rows: pd.DataFrame, known: Mapping[str, Style]) -> None:
    """A cost against the number of training points, both logarithmic, with the exponents of growth above."""
    _lines(ax, rows["value"].to_numpy(dtype=float), rows, cost, known)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    sizes = rows.drop_duplicates("value")
    ax.set_xticks(sizes["value"].to_list(), sizes["level"].to_list())
    if (rows[cost] > 0).any():
        ax.set_yscale("log")
        style.label_logarithmic(ax.yaxis, partial(quantity, cost))
    ax.set_xlabel("training points N")
    contended = " (contended)" if cost == "wall_s" and rows["concurrent"].any() else ""
    ax.set_ylabel(GROWTH[cost] + contended)
    middles = {str(name): each.groupby("value")[cost].median() for name, each in rows.groupby("dataset", sort=False)}
    texts = [
        f"{style.plain(name)}: N^{growth(middle.index.to_numpy(dtype=float), middle.to_numpy()):.2f}"
        for name, middle in middles.items()
    ]
    ax.set_title(fill(", ".join(texts), LETTERS), fontsize=8)


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
    ax: Axes, at: np.ndarray, rows: pd.DataFrame, column: str, known: Mapping[str, Style], floor: float = 0.0
) -> None:
    """A line per dataset through the medians over seeds, with their range."""
    datasets = list(dict.fromkeys(rows["dataset"]))
    for dataset in datasets:
        look = known[str(dataset)]
        chosen = (rows["dataset"] == dataset).to_numpy()
        by_level = rows.loc[chosen, column].clip(lower=floor).groupby(at[chosen])
        low, middle, high = (each.to_numpy() for each in (by_level.min(), by_level.median(), by_level.max()))
        x = by_level.median().index.to_numpy(dtype=float)
        ax.fill_between(x, low, high, color=look.color, alpha=style.opacity(len(datasets)), linewidth=0)
        ax.plot(x, middle, color=look.color, linestyle=look.dash, marker=look.marker, markersize=4)
    sns.despine(ax=ax)
