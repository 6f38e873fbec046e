"""The ranking of methods over all datasets: performance profiles, mean oracle gaps and mean ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from bench.report.figures.palette import MUTED, Style
from bench.report.figures.style import abreast, entries, plain

if TYPE_CHECKING:
    import pandas as pd

_WIDTH = 12.0  # inches
_BANDS = 6  # the most that a reader can distinguish


def ranking(profile: pd.DataFrame, aggregate: pd.DataFrame, ranks: pd.DataFrame, known: dict[str, Style]) -> Figure:
    """Performance profiles, mean gaps and mean ranks, the last two with 95% intervals.

    Methods are in the order of their gaps, the smallest on top.

    Args:
        profile: As `bench.stats.cost_to_target.profile` returns it.
        aggregate: As `bench.stats.estimates.aggregate` returns it.
        ranks: As `bench.stats.estimates.ranks` returns it, not empty.
        known: The styles of the methods.
    """
    aggregate = aggregate.sort_values("mean", kind="stable")
    order = [str(method) for method in aggregate["method"]]
    legend = entries(order, known)
    ncols = abreast(legend[1], _WIDTH)
    height = max(0.24 * len(order) + 0.6, 2.7) + 0.21 * -(-len(order) // ncols)
    fig = Figure(figsize=(_WIDTH, height), layout="constrained")
    left, middle, right = fig.subplots(1, 3, width_ratios=(1.35, 1, 0.8))
    _profiles(left, profile, order, known)
    _dots(middle, aggregate.set_index("method"), "mean", known)
    if (aggregate["mean"] > 0).all():
        _logarithmic(middle)
    middle.set_xlabel("oracle gap (nats), mean over datasets")
    _dots(right, ranks.set_index("method").reindex(order), "rank", known)
    right.set_yticklabels([])
    right.set_xlim(0.5, len(ranks) + 0.5)
    right.set_xlabel("mean rank by test log-likelihood")
    fig.legend(*legend, loc="outside lower center", ncols=ncols, frameon=False, handlelength=3)
    return fig


def _logarithmic(ax: Axes) -> None:
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6) if high > 5 * low else MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _profiles(ax: Axes, profile: pd.DataFrame, methods: list[str], known: dict[str, Style]) -> None:
    for method in methods:
        rows, style = profile[profile["method"] == method], known[method]
        look: Any = {"color": style.color, "gid": style.mark}
        if len(methods) <= _BANDS:
            ax.fill_between(rows["tau"], rows["low"], rows["high"], step="post", alpha=0.16, linewidth=0, **look)
        ax.plot(rows["tau"], rows["rho"], drawstyle="steps-post", linestyle=style.dash, marker=style.marker,
                markevery=[-1], markersize=5, linewidth=1.5, clip_on=False, **look)  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylim(0, 1)
    ax.set_xlabel("FLOPs, relative to the cheapest method")
    ax.set_ylabel("datasets and seeds solved")
    sns.despine(ax=ax)


def _dots(ax: Axes, table: pd.DataFrame, column: str, known: dict[str, Style]) -> None:
    """A dot and an interval per method; the number of unfinished runs is beside the name."""
    labels = []
    for place, (method, row) in enumerate(table.iterrows()):
        style = known[str(method)]
        missing = int(row["missing"]) if row["missing"] > 0 else 0
        labels.append(plain(str(method)) + (f" ({missing} missing)" if missing else ""))
        if np.isfinite(row[column]):
            ends = [row[side] if np.isfinite(row[side]) else row[column] for side in ("low", "high")]
            ax.plot(ends, [place, place], color=style.color, linewidth=1.5, gid=style.mark)
            ax.plot(row[column], place, style.marker, color=style.color, markersize=6, gid=style.mark)
        elif not np.isnan(row[column]):
            ax.text(1, place, "infinite ", transform=ax.get_yaxis_transform(), ha="right", va="center", color=MUTED)
    ax.set_yticks(range(len(table)), labels)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    sns.despine(ax=ax, left=True)
