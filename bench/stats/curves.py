"""Quality against cost as step functions: what a method had shown by the time it had spent so much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A method's quality at each cost (n,): the median over seeds, the least and the greatest."""

    method: str
    cost: Array
    median: Array
    low: Array
    high: Array


def step_values(cost: Array, value: Array, at: Array) -> Array:
    """The value at the last checkpoint whose cost is at most `at`, NaN before it. cost is ascending."""
    index = np.searchsorted(cost, at, side="right") - 1
    return np.where(index < 0, np.nan, value[np.maximum(index, 0)])


def curve(method: str, seeds: list[tuple[Array, Array]]) -> Curve | None:
    """The curve of several seeds, each costs and values (k,), at every cost where one of them changes.

    It begins once all seeds have, since earlier the median would be over fewer of them, and a seed that has
    ended keeps its last value. Costs of zero have no place on a logarithmic axis and are dropped. None where
    nothing is left.
    """
    seeds = [(cost, value) for cost, value in seeds if len(cost) and np.isfinite(cost).all()]
    if not seeds:
        return None
    grid = np.unique(np.concatenate([cost for cost, _ in seeds]))
    grid = grid[(grid >= max(cost[0] for cost, _ in seeds)) & (grid > 0)]
    if len(grid) == 0:
        return None
    values = np.stack([step_values(cost, value, grid) for cost, value in seeds])
    return Curve(method, grid, np.median(values, axis=0), values.min(axis=0), values.max(axis=0))


def curves(rows: pd.DataFrame, cost: str) -> list[Curve]:
    """One curve per method from one dataset's finished rows of one metric, in order of appearance."""
    found = (
        curve(str(method), [_ordered(seed, cost) for _, seed in group.groupby("seed")])
        for method, group in rows.groupby("method", sort=False)
    )
    return [each for each in found if each is not None]


def _ordered(rows: pd.DataFrame, cost: str) -> tuple[Array, Array]:
    rows = rows.sort_values("checkpoint")
    return rows[cost].to_numpy(dtype=float), rows["value"].to_numpy(dtype=float)


def limits(values: Array, ends: Array, level: float | None = None) -> tuple[float, float]:
    """Axis limits that a few terrible early values cannot spoil.

    The top is the greatest finite value or the reference level. The bottom is the least value, but no further
    below the upper quartile than three times the way from there to the top; twenty times for `ends`, so that
    where a method ended is shown unless it ended far off.
    """
    values, ends = values[np.isfinite(values)], ends[np.isfinite(ends)]
    if level is not None:
        values = np.append(values, level)
    if len(values) == 0:
        return 0.0, 1.0
    top, good = float(values.max()), float(np.quantile(values, 0.75))
    reach = max(top - good, 1e-3 * max(abs(top), 1.0))
    bottom = max(float(values.min()), good - 3 * reach)
    bottom = min([bottom, *ends[ends >= good - 20 * reach].tolist()])
    margin = 0.06 * max(top - bottom, reach)
    return bottom - margin, top + margin
