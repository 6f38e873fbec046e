"""The loss of each method against the true model: by generative model, by family of q(z|x), and by amortisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.common.units import number
from bench.report.figures.palette import INK, MUTED, Style
from bench.report.figures.style import LETTER, columns_for, panel_grid, plain
from bench.stats.curves import near
from bench.store.schema import PAIR

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "inference_gap"
PARTS = {
    "oracle_gap": "generative model (oracle gap)",
    "approximation_gap": "family of q (approximation gap)",
    "amortisation_gap": "amortisation gap",
    WHOLE: "inference gap, not separated",
}
_STRENGTH = {"oracle_gap": 1.0, "approximation_gap": 0.5, "amortisation_gap": 0.2, WHOLE: 0.0}
_PANEL, _TOTAL, _ACROSS = 2.3, 0.65, 13.5  # inches: a panel, the number beside a bar, the most for all columns
_TICK = 0.16  # of a row: half a tick


def loss_parts(ends: pd.DataFrame, datasets: list[str], methods: list[str]) -> pd.DataFrame:
    """The parts of the loss of each fitted method.

    Args:
        ends: The values of each finished run at its last checkpoint.
        datasets: The datasets, in order.
        methods: The fitted methods, in order.

    Returns:
        The columns of PARTS in nats, by dataset, method and seed in that order. The inference gap is there only if it
        was not separated. All parts except the oracle gap are NaN for a method without a q(z|x).
    """
    rows = ends[ends.index.get_level_values("method").isin(methods)]
    order = sorted(rows.index, key=lambda run: (datasets.index(run[0]), methods.index(run[1]), run[2]))
    parts = rows.loc[order].reindex(columns=list(PARTS)).astype(float)
    split = parts[["approximation_gap", "amortisation_gap"]].notna().all(axis=1)
    return parts.assign(**{WHOLE: parts[WHOLE].where(~split)}).dropna(subset="oracle_gap")


def decomposition(parts: pd.DataFrame, known: dict[str, Style]) -> Figure:
    """A panel per dataset: for each method the medians of its parts end to end, and the sum of each seed.

    An axis ends with the bars that are comparable; a longer bar is cut and shows its sum.

    Args:
        parts: As `loss_parts` returns them, not empty.
        known: The styles of the methods.
    """
    datasets = list(dict.fromkeys(parts.index.get_level_values("dataset")))
    most = int(parts.groupby(PAIR).size().groupby("dataset").size().max())
    longest = max(len(plain(str(method))) for method in parts.index.get_level_values("method"))
    left = 0.2 + LETTER * longest
    columns = columns_for(len(datasets), max(int(_ACROSS / (left + _PANEL + _TOTAL)), 1))
    seen = [part for part in PARTS if parts[part].notna().any()]
    patches = [Patch(facecolor=(*_grey(), _STRENGTH[p]), edgecolor=MUTED, hatch=_hatch(p)) for p in seen]
    fig, grid = panel_grid(
        -(-len(datasets) // columns),
        columns,
        (_PANEL, 0.22 * most),
        (left + _TOTAL, 0.75),
        (left, _TOTAL, 0.3, 0.5),
        (patches, [PARTS[p] for p in seen]),
    )
    axes = grid.flatten()
    for ax, dataset in zip(axes, datasets, strict=False):
        _panel(ax, parts.loc[parts.index.get_level_values("dataset") == dataset].droplevel("dataset"), known)
        ax.set_title(plain(str(dataset)), loc="left", fontweight="bold")
    for ax in axes[len(datasets) :]:
        ax.remove()
    return fig


def _grey() -> tuple[float, float, float]:
    red, green, blue = (int(MUTED[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def _hatch(part: str) -> str | None:
    return "////" if part == WHOLE else None


def limit(totals: np.ndarray) -> float:
    """Where an axis of such totals ends: at the largest of at most four times the median."""
    return float(max(totals[near(totals)].max(initial=0.0), 1e-9))


def _panel(ax: Axes, parts: pd.DataFrame, known: dict[str, Style]) -> None:
    """The bars of one dataset; parts: by method and seed."""
    medians = parts.groupby("method", sort=False).median().clip(lower=0.0)
    seeds = parts.sum(axis=1)
    end = 1.05 * limit(medians.sum(axis=1).to_numpy())
    for place, (method, row) in enumerate(medians.iterrows()):
        style, left = known[str(method)], 0.0
        for part, value in row.dropna().items():
            _bar(ax, place, left, float(value), str(part), style)
            left += float(value)
        _ticks(ax, seeds.xs(method, level="method").to_numpy(), place, style)
        text = f"{'▸ ' if left > end else ''}{number(left)}"
        ax.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center_baseline", fontsize=7.5)
    ax.set_yticks(range(len(medians)), [plain(str(method)) for method in medians.index])
    ax.set_ylim(len(medians) - 0.5, -0.5)
    ax.set_xlim(0, end)
    ax.set_xlabel("nats lost")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    sns.despine(ax=ax, left=True)


def _ticks(ax: Axes, totals: np.ndarray, place: int, style: Style) -> None:
    """A tick at the total of each seed, all in one line with gaps: thousands of markers would fill the page."""
    across = np.repeat(totals, 3)
    up = np.tile([place - _TICK, place + _TICK, np.nan], len(totals))
    ax.plot(across, up, color=INK, linewidth=1.0, solid_capstyle="butt", alpha=0.6, gid=style.mark)


def _bar(ax: Axes, place: int, left: float, width: float, part: str, style: Style) -> None:
    alpha = _STRENGTH[part]
    ax.barh(place, width, 0.62, left, color=style.color, alpha=alpha, linewidth=0, gid=style.mark)
    if alpha < 1:
        edge: Any = {"edgecolor": style.color, "facecolor": "none", "hatch": _hatch(part), "gid": style.mark}
        ax.barh(place, width, 0.62, left, linewidth=0.7, **edge)
