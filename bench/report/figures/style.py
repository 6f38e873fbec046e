"""Quality against each cost, and the style that all figures share.

Figures are drawn on `Figure` objects without pyplot, which would need global state and perhaps a window system.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from bench.common.units import listed, number, quantity
from bench.report.figures.palette import CEILING, GRID, INK, MUTED, Style
from bench.stats.cost_to_target import AXES
from bench.stats.curves import Curve, curves, limits
from bench.store.schema import define

if TYPE_CHECKING:
    import pandas as pd

TRUE_MODEL = "true model"
LETTER, EDGE = 0.082, 0.12  # inches that a letter may take, and that an edge does
_LEGEND = 7  # the most names in a row of the legend
_HANDLE = 0.75  # inches that an entry of the legend takes beside its name
BANDS = 6  # the most bands that a reader can distinguish
_LEAST = 1e-3  # nats: the least gap on a logarithmic axis
_WIDE = 26  # letters in a line beside a row


@contextmanager
def figure_style() -> Iterator[None]:
    """The settings under which every figure is drawn and saved. Names are never parsed as mathematics."""
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
        "axes.titley": 1.0,  # fixed, because finding room for it measures every label
        "axes.grid": True,
        "grid.linewidth": 0.6,
        "text.parse_math": False,
        "svg.hashsalt": "mapa-bench",
        "svg.fonttype": "none",  # text stays text: small, sharp, and in the page's own type
        "pdf.fonttype": 42,  # TrueType, as publishers require
        "savefig.dpi": 130,
    }
    with sns.axes_style("ticks"), mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def against_cost(rows: pd.DataFrame, known: dict[str, Style], level: float | None, title: str) -> Figure:
    """test_ll of one dataset against each cost, on logarithmic axes: the median and range over seeds.

    Args:
        rows: The finished measurements of test_ll on the dataset.
        known: The styles of the methods.
        level: The test_ll of the true model in nats, if known.
        title: The title.
    """
    present = list(rows["method"].unique())
    methods = [name for name in present if known[name].role == "method"]
    found = [curves(rows[rows["method"].isin(methods)], cost) for cost in AXES]
    every = [line for lines in found for line in lines]
    seen = np.concatenate([np.empty(0), *(line.median for line in every)])
    bottom, top = limits(seen, np.array([line.median[-1] for line in every]), level)
    floors = {name: _median(rows, name) for name in present if known[name].role == "floor"}
    references = {name: value for name, value in floors.items() if value > bottom}
    references |= {TRUE_MODEL: level} if level is not None and level > bottom else {}
    known = {**known, TRUE_MODEL: CEILING}
    hidden = {name: value for name, value in floors.items() if value <= bottom}

    fig, axes = _strip(title, _below(every, hidden, bottom), [*methods, *references], known)
    for ax, cost, lines in zip(axes, AXES, found, strict=True):
        cost_panel(ax, cost, lines, known)
        for name, value in references.items():
            ax.axhline(value, color=known[name].color, linestyle=known[name].dash, linewidth=1.1, zorder=1)
        _crop(ax, lines, [line.high >= bottom for line in lines])
    axes[0].set_ylim(bottom, top)
    axes[0].set_ylabel("test log-likelihood (nats)")
    return fig


def overview(rows: pd.DataFrame, known: dict[str, Style]) -> Figure | None:
    """Oracle gap against FLOPs, both on logarithmic axes that show the ends of the fits, with a panel per dataset.

    Gaps at or below zero, which a good model can have by chance, are drawn at 0.001 nats.

    Args:
        rows: The finished measurements of oracle_gap.
        known: The styles of the methods.

    Returns:
        The figure; None if no method has a cost.
    """
    methods = [name for name in rows["method"].unique() if known[name].role == "method"]
    chosen = rows[rows["method"].isin(methods)]
    found = ((str(name), curves(each, "flops")) for name, each in chosen.groupby("dataset", sort=False))
    panels = [(name, above_zero(lines)) for name, lines in found if lines]
    if not panels:
        return None
    columns = columns_for(len(panels), 5)
    legend = entries(methods, known)
    fig, grid = panel_grid(
        -(-len(panels) // columns), columns, (2.0, 1.85), (0.55, 0.75), (0.7, EDGE, 0.3, 0.5), legend
    )
    axes = list(grid.flatten())
    for ax, (name, lines) in zip(axes, panels, strict=False):
        cost_panel(ax, "flops", lines, known)
        show_ends(ax, lines)
        ax.set_title(plain(name))
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in grid[:, 0]:
        ax.set_ylabel("oracle gap (nats)")
    return fig


def columns_for(panels: int, most: int) -> int:
    """The number of columns, at most `most`, that leaves the fewest places of a grid empty."""
    return min(range(1 + most // 2, most + 1), key=lambda n: (-panels % n, -n)) if panels > most else max(panels, 1)


def show_ends(ax: Axes, lines: Sequence[Curve]) -> None:
    """Make the vertical axis logarithmic, from below the best end of the lines to well above the worst."""
    ends = np.array([(line.low[-1], line.high[-1]) for line in lines])
    ends = ends[np.isfinite(ends)]
    bottom, top = ends.min(initial=np.inf if ends.size else _LEAST) / 1.3, ends.max(initial=_LEAST) * 4
    _crop(ax, lines, [line.low <= top for line in lines])
    ax.set_yscale("log")
    ax.set_ylim(bottom, top)
    label_logarithmic(ax.yaxis, lambda value: f"{value:g}")


def label_logarithmic(axis: Axis, text: Callable[[float], str]) -> None:
    """Label a logarithmic axis at powers of ten, and between them where it spans little."""
    axis.set_major_locator(_located(axis))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(float(f"{value:.3g}"))))
    axis.set_minor_locator(NullLocator())


def _located(axis: Axis) -> LogLocator:
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 30 * low else (1, 3) if high < 300 * low else (1,)
    return LogLocator(subs=subs, numticks=6)


def above_zero(lines: Sequence[Curve]) -> list[Curve]:
    """Curves of gaps as a logarithmic axis can show them, at 0.001 nats or more."""
    return [
        replace(each, median=each.median.clip(_LEAST), low=each.low.clip(_LEAST), high=each.high.clip(_LEAST))
        for each in lines
    ]


def panel_grid(
    rows: int,
    columns: int,
    panel: tuple[float, float],
    gap: tuple[float, float],
    margins: tuple[float, float, float, float],
    legend: tuple[Sequence[Artist], Sequence[str]],
    sharey: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """A figure with a grid of panels, wide enough for the legend below it. Lengths are in inches.

    Places are computed from the length of texts, because layouts that measure texts take half of all drawing time.

    Args:
        rows: Number of rows of panels.
        columns: Number of columns of panels.
        panel: Width and height of each panel.
        gap: Between columns, and between rows.
        margins: Left, right, above and below; the last without the legend.
        legend: Handles and names.
        sharey: Whether all panels have the same vertical axis.

    Returns:
        The figure, and its axes, (rows, columns).
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
    """The number of columns of a legend that fit a width in inches; names fill one column after the other."""
    widths = [_entry(name) for name in names]
    fits = (n for n in range(min(len(names), _LEGEND), 1, -1) if sum(map(max, np.array_split(widths, n))) <= width)
    return next(fits, 1)


def _entry(name: str) -> float:
    return _HANDLE + LETTER * len(name)


def set_title(fig: Figure, title: str, note: str = "") -> None:
    """Write a title at the upper left of a figure, and a note at the upper right."""
    width, height = fig.get_size_inches()
    fig.text(0.06 / width, 1 - 0.22 / height, plain(title), fontsize=11, fontweight="bold")
    fig.text(1 - EDGE / width, 1 - 0.22 / height, note, ha="right", color=MUTED, fontsize=8.5)


def name_row(ax: Axes, name: str) -> None:
    """Write a name to the left of a row of panels."""
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
    """A row of panels, one per cost, with a title and a note above and a legend below."""
    legend = entries(names, known)
    fig, axes = panel_grid(1, len(AXES), (2.6, 2.3), (0.24, 0), (0.9, EDGE, 0.35, 0.5), legend, sharey=True)
    set_title(fig, title, note)
    return fig, list(axes[0])


def _crop(ax: Axes, lines: Sequence[Curve], inside: Sequence[NDArray[np.bool_]]) -> None:
    """Start the axis of costs where the first line comes inside the vertical axis."""
    starts = [line.cost[seen][0] for line, seen in zip(lines, inside, strict=True) if seen.any()]
    if starts:
        low, high = min(starts), max(line.cost[-1] for line in lines)
        pad = (high / low) ** 0.05 if high > low else 2.0
        ax.set_xlim(low / pad, high * pad)
    ax.xaxis.set_major_locator(_located(ax.xaxis))


def _median(rows: pd.DataFrame, method: str) -> float:
    return float(rows.loc[rows["method"] == method, "value"].dropna().median())


def _below(lines: list[Curve], hidden: dict[str, float], bottom: float) -> str:
    """What is below the axis, in words. hidden: the references there."""
    ends = {plain(line.method): line.median[-1] for line in lines if line.median[-1] < bottom} | hidden
    parts = [f"{name} ({number(end, 2)})" for name, end in ends.items()]
    early = ["early values"] if any((line.median < bottom).any() for line in lines) else []
    return f"below the axis: {listed([*early, *parts])}" if early or parts else ""


def cost_panel(
    ax: Axes, cost: str, lines: Sequence[Curve], known: Mapping[str, Style], most_bands: int = BANDS
) -> None:
    """Draw curves against a cost on a logarithmic axis, with bands, or with bars at their ends if there are more."""
    for line in lines:
        _line(ax, line, known[line.method], opacity(len(lines)) if len(lines) <= most_bands else 0.0)
    ax.set_xscale("log")
    ax.set_xlabel(define(cost).label)
    label_logarithmic(ax.xaxis, lambda value: quantity(cost, value).removesuffix("FLOP"))
    sns.despine(ax=ax)
    if not lines:
        ax.text(0.5, 0.5, "nothing measured", transform=ax.transAxes, ha="center", color=MUTED)
        ax.set_xticks([])


def opacity(bands: int) -> float:
    """The opacity of each of so many bands that lie over each other: lines must show through all of them."""
    return min(0.3 / bands, 0.16)


def _line(ax: Axes, line: Curve, style: Style, shade: float) -> None:
    """The median, with the range over seeds as a band of an opacity, or as a bar at its end if that is zero."""
    look: Any = {"color": style.color, "gid": style.mark}
    if shade:
        ax.fill_between(line.cost, line.low, line.high, step="post", alpha=shade, linewidth=0, **look)
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
    """The handles and names of methods in a legend."""
    lines = [
        Line2D([], [], color=s.color, linestyle=s.dash, marker=s.marker, markersize=5, linewidth=1.5, gid=s.mark)
        for s in (known[name] for name in names)
    ]
    return lines, [plain(n) for n in names]


def plain(name: str) -> str:
    """A name as matplotlib can draw it: one line of at most 40 characters that no leading underscore hides."""
    name = " ".join(name.split())
    name = name if len(name) <= 40 else name[:39] + "…"
    return f" {name}" if name.startswith("_") else name


def image(fig: Figure, kind: str) -> bytes:
    """A figure as a file.

    Args:
        fig: The figure.
        kind: 'png' or 'svg', which are on white, or 'pdf', which is transparent. The white of an SVG is a style of its
            root, so that the page can drop it.
    """
    stream = BytesIO()
    if kind == "png":
        fig.savefig(stream, format="png", facecolor="white")
    else:
        dated = {"svg": "Date", "pdf": "CreationDate"}[kind]
        fig.savefig(stream, format=kind, transparent=True, metadata={dated: None})
    fig.set_layout_engine("none")  # the layout is done; the next kind can use it
    made = stream.getvalue()
    return made.replace(b"<svg ", b'<svg style="background: white" ', 1) if kind == "svg" else made
