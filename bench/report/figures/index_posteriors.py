"""The index posterior of each method over the true one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.report.figures.palette import INK, MUTED, Style
from bench.report.figures.style import EDGE, name_row, panel_grid, plain, set_title
from bench.store.schema import FLOOR, LEAST_INDEX_PROBABILITY, TRUTH

if TYPE_CHECKING:
    import pandas as pd

NEIGHBOURS = 9
_SHADE: dict[str, Any] = {"color": "#5f83ab", "alpha": 0.5, "linewidth": 0}  # so that a dark ground shows through
_BADGE = "#57606a"
_NEGLIGIBLE = 0.02


def over_truth(posteriors: pd.DataFrame, names: list[str], known: dict[str, Style], title: str) -> Figure:
    """A row per method: the training points with four x marked, and for each x the probability of each training code.

    Lines and shade are means over nine neighbours along the code; dots are single training points.

    Args:
        posteriors: The rows of one dataset and seed; an absent probability is negligible.
        names: The methods to draw.
        known: The styles of the methods.
        title: The title.
    """
    own = posteriors[posteriors["index"] == posteriors["point"]].drop_duplicates("point").sort_values("code")
    plane = int(len(own["x"].iloc[0]) == 2)
    legend = _entries(names, known)
    fig, axes = panel_grid(len(names), len(own) + plane, (2.0, 1.5), (0.72, 0.85), (1.2, EDGE, 0.75, 0.5), legend)
    set_title(fig, title)
    for row, name in zip(axes, names, strict=True):
        if plane:
            _plane(row[0], posteriors, own)
        for number, (ax, (point, code)) in enumerate(zip(row[plane:], own[["point", "code"]].values, strict=True), 1):
            _panel(ax, probabilities(posteriors[posteriors["point"] == point], name), code, known[name], number)
        row[plane].set_ylabel("probability")
        name_row(row[0], name)
    return fig


def probabilities(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The probabilities of each training code for one x, in the order of codes: truth, floor and `name`."""
    table = rows.pivot_table(index=["code", "index"], columns="method", values="probability", fill_value=0.0)
    return table.reindex(columns=[TRUTH, FLOOR, name]).droplevel("index")


def divergences(table: pd.DataFrame) -> pd.DataFrame:
    """KL divergence from the truth in nats, and total variation distance, of the floor and of the method.

    KL leaves out codes whose true probability is below 1e-6, because the table may lack them.
    """
    truth, others = table[TRUTH], table.drop(columns=TRUTH)
    seen = truth > LEAST_INDEX_PROBABILITY
    ratio = others[seen].clip(lower=np.finfo(float).tiny).rdiv(truth[seen], axis=0).to_numpy()
    kl = (truth[seen].to_numpy()[:, None] * np.log(ratio)).sum(0)
    tv = others.sub(truth, axis=0).abs().sum() / 2
    return tv.to_frame("tv").assign(kl=kl)


def _plane(ax: Axes, posteriors: pd.DataFrame, own: pd.DataFrame) -> None:
    """The training points, with the four x marked."""
    x1, x2 = np.stack(posteriors.drop_duplicates("index")["x"].to_list()).T
    ax.scatter(x1, x2, s=4, color=MUTED, alpha=0.45, linewidths=0, rasterized=True)
    for number, (left, up) in enumerate(own["x"], 1):
        ax.plot(left, up, "o", markersize=12, color=_BADGE)
        ax.text(left, up, str(number), color="white", ha="center", va="center_baseline", fontsize=8, fontweight="bold")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title("training points")
    sns.despine(ax=ax)


def _panel(ax: Axes, table: pd.DataFrame, code: float, style: Style, number: int) -> None:
    name = str(table.columns[-1])
    codes = table.index.to_numpy(float)
    trend = table.rolling(NEIGHBOURS, center=True, min_periods=1).mean()
    ax.fill_between(codes, trend[TRUTH], **_SHADE)
    ax.plot(codes, table[name], ".", color=style.color, markersize=4, alpha=0.55, markeredgewidth=0, gid=style.mark)
    ax.plot(codes, trend[FLOOR], color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    ax.plot(codes, trend[name], color=style.color, linewidth=1.8, linestyle=style.dash, gid=style.mark)
    ax.plot(code, 0, "^", color=INK, markersize=6, clip_on=False, zorder=5)
    seen = codes[(trend > _NEGLIGIBLE * trend.max().max()).any(axis=1)]
    margin = 0.04 * (np.ptp(seen) or 1.0)  # all codes may be equal
    ax.set_xlim(seen.min() - margin, seen.max() + margin)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("true code z")
    of = divergences(table)
    kl, tv = (f"{of[by][name]:.2f} (floor {of[by][FLOOR]:.2f})" for by in ("kl", "tv"))
    ax.set_title(f"x{number}: KL {kl}\nTV {tv}", fontsize=8.5)
    sns.despine(ax=ax)


def _entries(names: list[str], known: dict[str, Style]) -> tuple[list[Line2D | Patch], list[str]]:
    lines = [
        Line2D([], [], color=known[n].color, linewidth=1.8, linestyle=known[n].dash, marker=".", markersize=6)
        for n in names
    ]
    floor = Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    own = Line2D([], [], color=INK, linestyle="", marker="^", markersize=6)
    names = ["true posterior", *(plain(name) for name in names), "floor: the true model without the codes", "code of x"]
    return [Patch(**_SHADE), *lines, floor, own], names
