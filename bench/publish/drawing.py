"""Quality against each cost as small drawings inside a page, and marks in the colours of the report's figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from bench.common import units
from bench.report.figures.inline import VARIABLES
from bench.report.figures.palette import Style
from bench.stats.bootstrap import Array
from bench.stats.curves import Curve, curves, limits, near
from bench.store.schema import COSTS, LEARNS, Definition, define

if TYPE_CHECKING:
    import pandas as pd

WIDTH, HEIGHT = 720, 420  # of a drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 34, 48  # the margins around the panel
FLOOR = 1e-3  # nats; gaps at or below it, which a good model can have by chance, are drawn at the edge
DECADES = 3  # the most decades of gaps above the largest final one
LEAST = 4  # units by which a line moves; smaller steps are not visible
FEW = 6  # the most ranges over seeds that a reader can distinguish
SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-4-4h8v8h-8z",
    "D": "M0-5l5 5-5 5-5-5z",
    "^": "M0-5l5 9h-10z",
    "v": "M0 5l5-9h-10z",
    "P": "M-2-5h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "X": "M-5-3l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z",
    "*": "M0-6l1.6 4.2h4.4l-3.5 2.7 1.3 4.3-3.8-2.6-3.8 2.6 1.3-4.3-3.5-2.7h4.4z",
}


@dataclass(frozen=True)
class Drawing:
    """The curves of a problem against one cost."""

    cost: Definition
    svg: Markup


def drawings(rows: pd.DataFrame, known: Mapping[str, Style], level: float | None, dataset: str) -> list[Drawing]:
    """The median over seeds against each cost that is not zero throughout, as step functions.

    The oracle gap is drawn where it is known, on a logarithmic axis, else the test log-likelihood.

    Args:
        rows: The finished measurements of the dataset.
        known: The style of each method.
        level: The test_ll of the true model in nats, if known.
        dataset: The dataset's label.
    """
    metric = "oracle_gap" if (rows["metric"] == "oracle_gap").any() else "test_ll"
    learn = [name for name, style in known.items() if style.role in LEARNS]
    chosen = rows[(rows["metric"] == metric) & rows["method"].isin(learn)]
    found = [(cost, curves(chosen, cost.name)) for cost in COSTS]
    scale = _Vertical.of([line for _, lines in found for line in lines], metric, level)
    return [Drawing(cost, _drawn(lines, cost, scale, known, dataset)) for cost, lines in found if lines]


def colour_rules(known: Mapping[str, Style]) -> str:
    """The rules of a style sheet that give the drawings of each method its colour."""
    drawn = {style.mark: VARIABLES[style.color] for style in known.values()}
    return "\n".join(f".{mark} {{ color: var({variable}); }}" for mark, variable in drawn.items())


def swatch(style: Style) -> Markup:
    """A method's line and marker, for a legend."""
    line = f'<path class="line" d="M1 7h32"{_dashes(style)}/>' if style.marker else ""
    mark = f'<path class="end" d="M17 7{SHAPES[style.marker].replace("M", "m")}"/>' if style.marker else ""
    return Markup(f'<svg class="swatch {style.mark}" viewBox="0 0 34 14" aria-hidden="true">{line}{mark}</svg>')


def interval_bar(low: float, middle: float, high: float, most: float) -> Markup:
    """A value and its interval on an axis that begins at zero.

    Args:
        low: The lower end; NaN for none.
        middle: The value.
        high: The upper end.
        most: The end of the axis; an arrowhead there stands for what lies beyond.
    """

    def at(value: float) -> float:
        return round(2 + 156 * min(max(value / most, 0.0), 1.0), 1) if most > 0 else 2.0

    if not math.isfinite(middle):
        return Markup("")
    known = math.isfinite(low + high)
    line = f'<path d="M{at(low):g} 7H{at(high):g}" class="range"/>' if known else ""
    place = f'<circle cx="{at(middle):g}" cy="7" r="4"/>' if middle <= most else '<path d="M152 3l7 4-7 4z"/>'
    return Markup(
        f'<svg class="bar" viewBox="0 0 160 14" aria-hidden="true"><path d="M2 0v14" class="zero"/>{line}{place}</svg>'
    )


def axis_end(means: Sequence[float], highs: Sequence[float]) -> float:
    """Where an axis ends that is shared by values with intervals: the highest end of an interval.

    Values above four times their median are left out, since the others would all look alike.

    Args:
        means: The values.
        highs: The upper ends of their intervals, NaN for none.

    Returns:
        The end; 0 if no value is finite.
    """
    values, upper = np.asarray(means, float), np.asarray(highs, float)
    ends = np.where(np.isfinite(upper), np.fmax(values, upper), values)
    return float(ends[near(values)].max(initial=0.0))


@dataclass(frozen=True)
class _Vertical:
    """The vertical axis that all drawings of a problem share: its ends, in nats or their logarithms."""

    metric: Definition
    bottom: float
    top: float
    level: float | None

    @classmethod
    def of(cls, lines: Sequence[Curve], metric: str, level: float | None) -> _Vertical:
        seen = np.concatenate([np.empty(0), *(line.median for line in lines)])
        ends = np.array([line.median[-1] for line in lines])
        if metric != "oracle_gap":
            return cls(define(metric), *limits(seen, ends, level), level)
        highest = math.log10(max([FLOOR * 10, *ends[np.isfinite(ends)].tolist()]))
        top = min(math.log10(max([FLOOR * 10, *seen[np.isfinite(seen)].tolist()])), highest + DECADES)
        lowest = math.log10(max(FLOOR, min([1.0, *ends[np.isfinite(ends)].tolist()])))
        return cls(define(metric), max(lowest - 0.15, math.log10(FLOOR)), top + 0.05, None)

    @property
    def is_log(self) -> bool:
        return self.metric.name == "oracle_gap"

    def at(self, values: Array) -> Array:
        """Where values lie in the drawing; those outside lie at an edge."""
        shown = np.log10(np.maximum(values, FLOOR / 10)) if self.is_log else values
        inner = HEIGHT - TOP - BOTTOM
        worst = self.top if self.is_log else self.bottom
        share = (np.where(np.isnan(shown), worst, shown) - self.bottom) / (self.top - self.bottom)
        return TOP + inner * (1 - np.clip(share, 0, 1))

    def ticks(self) -> list[float]:
        return _log_ticks(self.bottom, self.top) if self.is_log else _even_ticks(self.bottom, self.top)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within 10^low and 10^high, with twice and five times of each if these are few."""
    steps = (1,) if high - low > 3 else (1, 2, 5)
    found = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    found = [value for value in found if low - 1e-9 <= math.log10(value) <= high + 1e-9]
    return found[:: -(-len(found) // 8)] if found else []


def _even_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
    return [round(step * k, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _drawn(
    lines: Sequence[Curve], cost: Definition, scale: _Vertical, known: Mapping[str, Style], dataset: str
) -> Markup:
    start, end = math.log10(min(line.cost[0] for line in lines)), math.log10(max(line.cost[-1] for line in lines))
    pad = 0.03 * (end - start) + 0.02
    low, high = start - pad, end + pad

    def across(values: Array) -> Array:
        return LEFT + (WIDTH - LEFT - RIGHT) * (np.log10(values) - low) / (high - low)

    words = f"{dataset}: {scale.metric.label} against {cost.label}. The legend and the tables have the final values."
    parts = [_axes(cost, scale, low, high, across), _level(scale)]
    parts += [_curve(line, known[line.method], scale, across(line.cost), len(lines) <= FEW) for line in lines]
    opening = f'<svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">'
    return Markup(opening + "".join(parts) + "</svg>")


def _axes(cost: Definition, scale: _Vertical, low: float, high: float, across: Callable[[Array], Array]) -> str:
    foot, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    up, along = scale.ticks(), _log_ticks(low, high)
    rows = [
        (f"{value:g}".replace("-", "\N{MINUS SIGN}"), y) for value, y in zip(up, scale.at(np.array(up)), strict=True)
    ]
    columns = [
        (units.quantity(cost.name, value).removesuffix("FLOP").strip(), x)
        for value, x in zip(along, across(np.array(along)), strict=True)
    ]
    grid = [f"M{LEFT} {y:.0f}H{right}" for _, y in rows] + [f"M{x:.0f} {TOP}V{foot}" for _, x in columns]
    beside = [f'<text x="{LEFT - 6}" y="{y + 4:.0f}">{escape(text)}</text>' for text, y in rows]
    below = [f'<text x="{x:.0f}" y="{foot + 17}">{escape(text)}</text>' for text, x in columns]
    below.append(f'<text x="{(LEFT + right) / 2:g}" y="{HEIGHT - 8}">{escape(cost.label)}</text>')
    title = f'<text class="title" x="6" y="20">{scale.metric.label} (nats)</text>'
    return (
        f'<path class="grid" d="{"".join(grid)}"/><path class="axis" d="M{LEFT} {TOP}V{foot}H{right}"/>'
        f'<g class="beside">{"".join(beside)}</g><g class="below">{"".join(below)}</g>{title}'
    )


def _level(scale: _Vertical) -> str:
    """The true model, as a dashed line."""
    if scale.level is None or not scale.bottom <= scale.level <= scale.top:
        return ""
    (y,) = scale.at(np.array([scale.level]))
    return f'<path class="level" d="M{LEFT} {y:.0f}H{WIDTH - RIGHT}"><title>true model</title></path>'


def _curve(line: Curve, style: Style, scale: _Vertical, x: Array, band: bool) -> str:
    """The median, a marker where the last seed ended, and the range over seeds: a band, or a bar at the marker."""
    across = np.rint(x).astype(int).tolist()
    low, middle, high = (
        _thinned(np.rint(scale.at(values)).astype(int)) for values in (line.low, line.median, line.high)
    )
    if band:
        back = _steps(across[::-1], low[::-1], backwards=True)
        spread = f'<path class="band" d="M{across[0]} {high[0]}{_steps(across, high)}V{low[-1]}{back}z"/>'
    else:
        spread = f'<path class="range" d="M{across[-1]} {low[-1]}V{high[-1]}"/>'
    return (
        f'<g class="{style.mark}">{spread}'
        f'<path class="line" d="M{across[0]} {middle[0]}{_steps(across, middle)}"{_dashes(style)}/>'
        f'<path class="end" d="M{across[-1]} {middle[-1]}{SHAPES[style.marker].replace("M", "m")}"/></g>'
    )


def _thinned(y: NDArray[np.int_]) -> list[int]:
    """Heights that change only where they move by a few units; the first and the last are exact."""
    kept = [int(y[0])]
    for value in map(int, y[1:]):
        kept.append(value if abs(value - kept[-1]) >= LEAST else kept[-1])
    return [*kept[:-1], int(y[-1])]


def _steps(x: Sequence[int], y: Sequence[int], backwards: bool = False) -> str:
    """The rest of a path through points as a step function, in relative moves; those of no length are left out."""
    moves: list[list[object]] = []
    for (x0, y0), (x1, y1) in pairwise(zip(map(int, x), map(int, y), strict=True)):
        pair = [("v", y1 - y0), ("h", x1 - x0)] if backwards else [("h", x1 - x0), ("v", y1 - y0)]
        for name, length in pair:
            if length and moves and moves[-1][0] == name:
                moves[-1][1] += length  # type: ignore[operator]
            elif length:
                moves.append([name, length])
    return "".join(f"{name}{length}" for name, length in moves if length)


def _dashes(style: Style) -> str:
    """The dashes of a line of width 2 as an attribute."""
    if isinstance(style.dash, str):
        return ""
    return f' stroke-dasharray="{" ".join(f"{2 * length:g}" for length in style.dash[1])}"'
