"""Methods over all datasets: mean oracle gaps against cost, performance profiles and mean ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from bench.report.figures.palette import MUTED, Style
from bench.report.figures.style import (
    BANDS,
    LETTER,
    above_zero,
    abreast,
    cost_panel,
    entries,
    label_logarithmic,
    opacity,
    plain,
    show_ends,
)
from bench.stats.cost_to_target import SOLVED
from bench.stats.curves import Curve

if TYPE_CHECKING:
    import pandas as pd

_WIDTH = 12.0  # inches
_INTERVAL = ", 95% interval"


def progress(
    panels: Mapping[str, Sequence[Curve]], ranks: pd.DataFrame, known: dict[str, Style], budget: float | None = None
) -> Figure:
    """Mean oracle gaps against FLOPs, a panel for each kind of dataset, and mean ranks over all of them.

    Args:
        panels: The curves of each kind of dataset, as `bench.stats.curves.mean_curves` returns them, by title.
        ranks: As `bench.stats.estimates.ranks` returns it, not empty.
        known: The styles of the methods.
        budget: The most FLOPs of a fit, if all fits have the same; drawn where a method comes near it.
    """
    ranked = [str(method) for method in ranks["method"]]
    order = list(dict.fromkeys([*ranked, *(line.method for lines in panels.values() for line in lines)]))
    legend = entries(order, known)
    wide, narrow = 3.4, 1.9  # small, so that all is legible on a page of text
    width = wide * len(panels) + narrow + LETTER * max(map(len, legend[1]))
    ncols = abreast(legend[1], width)
    height = max(0.24 * len(ranks) + 0.8, 3.1) + 0.21 * -(-len(order) // ncols)
    fig = Figure(figsize=(width, height), layout="constrained")
    *axes, right = fig.subplots(1, len(panels) + 1, width_ratios=[*[wide] * len(panels), narrow])
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        shown = above_zero(lines)
        cost_panel(ax, "flops", shown, known, most_bands=0)
        show_ends(ax, shown)
        ax.set_title(title)
        if budget is not None and budget < ax.get_xlim()[1]:
            ax.axvline(budget, color=MUTED, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=0)
            ax.annotate("budget", (budget, 1), (-3, -2), xycoords=ax.get_xaxis_transform(), textcoords="offset points",
                        ha="right", va="top", color=MUTED, fontsize=8)  # fmt: skip
    sure = any(line.low[-1] < line.high[-1] for lines in panels.values() for line in lines)
    axes[0].set_ylabel("mean oracle gap (nats)" + _INTERVAL * sure)
    _dots(right, ranks.set_index("method"), "rank", known)
    right.set_xlim(0.5, len(ranks) + 0.5)
    right.set_title("all datasets")
    right.set_xlabel("mean rank" + _INTERVAL * bool((ranks["low"] < ranks["high"]).any()))
    fig.legend(*legend, loc="outside lower center", ncols=ncols, frameon=False, handlelength=3)
    return fig


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
    left.set_title("performance profiles")
    _dots(middle, aggregate.set_index("method"), "mean", known)
    if (aggregate["mean"] > 0).all():
        middle.set_xscale("log")
        label_logarithmic(middle.xaxis, lambda value: f"{value:g}")
    middle.set_title("oracle gap")
    middle.set_xlabel("nats, mean over datasets")
    _dots(right, ranks.set_index("method").reindex(order), "rank", known)
    right.set_yticklabels([])
    right.set_xlim(0.5, len(ranks) + 0.5)
    right.set_title("rank by test log-likelihood")
    right.set_xlabel("mean over datasets and seeds (1 is best)")
    fig.legend(*legend, loc="outside lower center", ncols=ncols, frameon=False, handlelength=3)
    return fig


def _profiles(ax: Axes, profile: pd.DataFrame, methods: list[str], known: dict[str, Style]) -> None:
    for method in methods:
        rows, style = profile[profile["method"] == method], known[method]
        look: Any = {"color": style.color, "gid": style.mark}
        if len(methods) <= BANDS:
            shade = opacity(len(methods))
            ax.fill_between(rows["tau"], rows["low"], rows["high"], step="post", alpha=shade, linewidth=0, **look)
        ax.plot(rows["tau"], rows["rho"], drawstyle="steps-post", linestyle=style.dash, marker=style.marker,
                markevery=[-1], markersize=5, linewidth=1.5, clip_on=False, **look)  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylim(0, max(0.1, 1.05 * profile[["rho", "high"]].max().max()))
    ax.set_xlabel("FLOPs, relative to the cheapest method")
    ax.set_ylabel(f"datasets and seeds solved:\nwithin {SOLVED:g} nats of the truth")
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
