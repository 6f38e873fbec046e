"""Quality against each cost, and the looks that every figure shares.

Drawn on `Figure` objects without pyplot, so that no window system and no global state take part.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from bench.common.units import listed, number, quantity
from bench.report.figures.palette import FLOOR, GRID, INK, MUTED, Style
from bench.stats.curves import Curve, curves, limits
from bench.stats.summary import ORACLE, fitted
from bench.store.schema import define

if TYPE_CHECKING:
    import pandas as pd

AXES = ("wall_s", "cpu_s", "flops", "decoder_passes")
LETTER, EDGE = 0.082, 0.12  # inches that a letter may take, and that an edge does
_LEGEND = 7  # the most names in a row of the legend
_HANDLE = 0.75  # inches that an entry of the legend takes beside its name
_BANDS = 6  # the most bands that one can tell apart
_WIDE = 26  # letters in a line beside a row


@contextmanager
def look() -> Iterator[None]:
    """The settings under which every figure is drawn and saved; names are never read as mathematics."""
    settings: Any = {
        "font.size": 9,
        "axes.titlesize": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.titlecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
        "axes.titley": 1.0,  # placed, as finding room for it measures every label
        "axes.grid": True,
        "grid.linewidth": 0.6,
        "text.parse_math": False,
        "svg.hashsalt": "mapa-bench",
        "svg.fonttype": "none",  # text stays text: small, sharp, and in the page's own type
        "pdf.fonttype": 42,  # TrueType, which publishers ask for
        "savefig.dpi": 130,
    }
    with sns.axes_style("ticks"), mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def against_cost(rows: pd.DataFrame, known: dict[str, Style], level: float | None, title: str) -> Figure:
    """test_ll of one dataset against each cost, on logarithmic axes: median and range over seeds.

    rows: the finished measurements of test_ll on that dataset. level: the oracle's, in nats, if known.
    """
    methods = fitted(list(rows["method"].unique()))
    found = [curves(rows[rows["method"].isin(methods)], cost) for cost in AXES]
    every = [line for lines in found for line in lines]
    seen = np.concatenate([np.empty(0), *(line.median for line in every)])
    bottom, top = limits(seen, np.array([line.median[-1] for line in every]), level)
    references = {ORACLE: level, FLOOR: _floor(rows)}
    shown = {name: value for name, value in references.items() if value is not None and value > bottom}

    fig, axes = _strip(title, _below(every, references[FLOOR], bottom), [*methods, *shown], known)
    for ax, cost, lines in zip(axes, AXES, found, strict=True):
        _panel(ax, cost, lines, known)
        for name, value in shown.items():
            ax.axhline(value, color=known[name].color, linestyle=known[name].dash, linewidth=1.1, zorder=1)
        _crop(ax, lines, bottom)
    axes[0].set_ylim(bottom, top)
    axes[0].set_ylabel("test log-likelihood (nats)")
    return fig


def overview(rows: pd.DataFrame, known: dict[str, Style]) -> Figure | None:
    """Oracle gap against FLOPs, both logarithmic, a panel per dataset: the answer at a glance.

    rows: the finished measurements of oracle_gap. Gaps at or below zero, which chance allows a good model, lie on the
    panel's floor. None where no method has a cost.
    """
    methods = fitted(list(rows["method"].unique()))
    chosen = rows[rows["method"].isin(methods)]
    panels = [(str(name), curves(each, "flops")) for name, each in chosen.groupby("dataset", sort=False)]
    panels = [(name, lines) for name, lines in panels if lines]
    if not panels:
        return None
    columns = min(len(panels), 5)
    legend = entries(methods, known)
    fig, grid = placed(-(-len(panels) // columns), columns, (1.9, 1.85), (0.55, 0.75), (0.7, EDGE, 0.3, 0.5), legend)
    axes = list(grid.flatten())
    for ax, (name, lines) in zip(axes, panels, strict=False):
        _panel(ax, "flops", [_above_zero(line) for line in lines], known)
        ax.set_yscale("log")
        ax.set_title(plain(name))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_locator(LogLocator(base=100))
        ax.set_ylabel("")
    for ax in axes[len(panels) :]:
        ax.remove()
    axes[0].set_ylabel("oracle gap (nats)")
    return fig


def _above_zero(line: Curve) -> Curve:
    floor = 1e-3
    return replace(line, median=line.median.clip(floor), low=line.low.clip(floor), high=line.high.clip(floor))


def placed(
    rows: int,
    columns: int,
    panel: tuple[float, float],
    gap: tuple[float, float],
    margins: tuple[float, float, float, float],
    legend: tuple[Sequence[Artist], Sequence[str]],
    sharey: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """A figure, wide enough for the legend at its foot, and its axes (rows, columns); in inches.

    It is placed by what texts may take, since layouts that measure them take half of all drawing time.

    panel: width and height of each. gap: between columns, and between rows. margins: left, right, above and below, the
    last without the legend. legend: its handles and names.
    """
    (wide, tall), (across, down), (left, right, head, foot) = panel, gap, margins
    inner = left + columns * (wide + across) - across
    width = max(inner + right, EDGE + max(map(_entry, legend[1]), default=0))
    ncols = abreast(legend[1], width - EDGE)
    foot += 0.1 + 0.21 * -(-len(legend[1]) // ncols)
    height = head + rows * (tall + down) - down + foot
    fig = Figure(figsize=(width, height))
    fig.subplots_adjust(left / width, foot / height, inner / width, 1 - head / height, across / wide, down / tall)
    fig.legend(*legend, loc="lower center", ncols=ncols, frameon=False, handlelength=3, borderpad=0.2)
    return fig, fig.subplots(rows, columns, squeeze=False, sharey=sharey)


def abreast(names: Sequence[str], width: float) -> int:
    """How many columns of a legend are no wider than so many inches; names fill one after the other."""
    widths = [_entry(name) for name in names]
    fits = (n for n in range(min(len(names), _LEGEND), 1, -1) if sum(map(max, np.array_split(widths, n))) <= width)
    return next(fits, 1)


def _entry(name: str) -> float:
    return _HANDLE + LETTER * len(name)


def titled(fig: Figure, title: str, note: str = "") -> None:
    """Name a figure at its upper left, and note something at its upper right."""
    width, height = fig.get_size_inches()
    fig.text(0.06 / width, 1 - 0.22 / height, plain(title), fontsize=11, fontweight="bold")
    fig.text(1 - EDGE / width, 1 - 0.22 / height, note, ha="right", color=MUTED, fontsize=8.5)


def named(ax: Axes, name: str) -> None:
    """Name a row at its left."""
    ax.annotate(
        fill(plain(name), _WIDE),
        (0, 0.5),
        (-5, 0),
        xycoords=ax.yaxis.label,
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="center",
        multialignment="center",
        fontweight="bold",
    )


def _strip(title: str, note: str, names: list[str], known: dict[str, Style]) -> tuple[Figure, list[Axes]]:
    """A row of panels, with a title and a note above and a legend of so many names below; inches."""
    legend = entries(names, known)
    fig, axes = placed(1, len(AXES), (2.6, 2.3), (0.24, 0), (0.9, EDGE, 0.35, 0.5), legend, sharey=True)
    titled(fig, title, note)
    return fig, list(axes[0])


def _crop(ax: Axes, lines: list[Curve], bottom: float) -> None:
    """Begin the axis of costs where something first rises above the bottom."""
    starts = [line.cost[line.high >= bottom][0] for line in lines if (line.high >= bottom).any()]
    if starts:
        low, high = min(starts), max(line.cost[-1] for line in lines)
        pad = (high / low) ** 0.05 if high > low else 2.0
        ax.set_xlim(low / pad, high * pad)
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))


def _floor(rows: pd.DataFrame) -> float | None:
    values = rows.loc[rows["method"] == FLOOR, "value"].dropna()
    return float(values.median()) if len(values) else None


def _below(lines: list[Curve], floor: float | None, bottom: float) -> str:
    """What the axis leaves out, in words."""
    ends = {plain(line.method): line.median[-1] for line in lines if line.median[-1] < bottom}
    if floor is not None and floor <= bottom:
        ends[FLOOR] = floor
    parts = [f"{name} ({number(end, 2)})" for name, end in ends.items()]
    early = ["early values"] if any((line.median < bottom).any() for line in lines) else []
    return f"below the axis: {listed([*early, *parts])}" if early or parts else ""


def _panel(ax: Axes, cost: str, lines: list[Curve], known: dict[str, Style]) -> None:
    for line in lines:
        _line(ax, line, known[line.method], band=len(lines) <= _BANDS)
    ax.set_xscale("log")
    ax.set_xlabel(define(cost).label)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(cost, value).removesuffix("FLOP")))
    ax.xaxis.set_minor_locator(NullLocator())
    sns.despine(ax=ax)
    if not lines:
        ax.text(0.5, 0.5, "nothing measured", transform=ax.transAxes, ha="center", color=MUTED)
        ax.set_xticks([])


def _line(ax: Axes, line: Curve, style: Style, band: bool) -> None:
    """The median, with the range over seeds as a band or else as a bar where it ends."""
    look: Any = {"color": style.color, "gid": style.mark}
    if band:
        ax.fill_between(line.cost, line.low, line.high, step="post", alpha=0.16, linewidth=0, **look)
    else:
        ax.plot(line.cost[[-1, -1]], [line.low[-1], line.high[-1]], linewidth=1.0, **look)
    kept = np.flatnonzero(np.diff(line.median, prepend=np.nan, append=np.nan)[:-1] != 0)
    kept = np.union1d(kept, len(line.cost) - 1)
    ax.plot(
        line.cost[kept],
        line.median[kept],
        drawstyle="steps-post",
        linestyle=style.dash,
        linewidth=1.5,
        marker=style.marker,
        markersize=5,
        markevery=[-1],
        **look,
    )


def entries(names: list[str], known: dict[str, Style]) -> tuple[list[Line2D], list[str]]:
    """What a legend shows of methods: their lines, and their names."""
    lines = [
        Line2D([], [], color=s.color, linestyle=s.dash, marker=s.marker, markersize=5, linewidth=1.5, gid=s.mark)
        for s in (known[name] for name in names)
    ]
    return lines, [plain(n) for n in names]


def plain(name: str) -> str:
    """A name as matplotlib will draw it: one line, not too long, and not hidden for a leading underscore."""
    name = " ".join(name.split())
    name = name if len(name) <= 40 else name[:39] + "…"
    return f" {name}" if name.startswith("_") else name


def image(fig: Figure, kind: str) -> bytes:
    """The figure as 'png' or 'svg' on white, or as 'pdf' on nothing.

    White is a style of the SVG's root, and so not part of what a page takes from within it.
    """
    stream = BytesIO()
    if kind == "png":
        fig.savefig(stream, format="png", facecolor="white")
    else:
        dated = {"svg": "Date", "pdf": "CreationDate"}[kind]
        fig.savefig(stream, format=kind, transparent=True, metadata={dated: None})
    fig.set_layout_engine("none")  # what it has laid out stays, and need not be laid out again for the next kind
    made = stream.getvalue()
    return made.replace(b"<svg ", b'<svg style="background: white" ', 1) if kind == "svg" else made
