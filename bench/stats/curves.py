"""Quality against cost as step functions: the value at the last checkpoint within each cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.stats.bootstrap import bounds, mean_of_medians
from bench.stats.summary import learners

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
FAR = 4.0  # medians, beyond which a value would make all others of a drawing look alike


@dataclass(frozen=True)
class Curve:
    """A method's quality at each cost.

    Args:
        method: The method's label.
        cost: Costs in ascending order, (n,).
        median: The median over seeds at each cost, (n,).
        low: The lowest seed, (n,).
        high: The highest seed, (n,).
    """

    method: str
    cost: Array
    median: Array
    low: Array
    high: Array


def step_values(cost: Array, value: Array, at: Array) -> Array:
    """The value at the last checkpoint whose cost is at most `at`; NaN before the first.

    Args:
        cost: Costs in ascending order, (k,).
        value: The value at each, (k,).
        at: Where to evaluate, (n,).
    """
    index = np.searchsorted(cost, at, side="right") - 1
    return np.where(index < 0, np.nan, value[np.maximum(index, 0)])


def curve(method: str, seeds: list[tuple[Array, Array]]) -> Curve | None:
    """The curve over several seeds, at every cost where one of them changes.

    It begins where all seeds have begun; earlier the median would be over fewer seeds. A seed that has ended keeps its
    last value. Costs of zero are dropped, because the axis is logarithmic.

    Args:
        method: The method's label.
        seeds: Costs and values of each seed, both (k,).

    Returns:
        The curve; None if no cost is left.
    """
    seeds = _begun(seeds)
    if not seeds:
        return None
    grid = np.unique(np.concatenate([cost for cost, _ in seeds]))
    grid = grid[(grid >= max(cost[0] for cost, _ in seeds)) & (grid > 0)]
    if len(grid) == 0:
        return None
    values = np.stack([step_values(cost, value, grid) for cost, value in seeds])
    return Curve(method, grid, np.median(values, axis=0), values.min(axis=0), values.max(axis=0))


def curves(rows: pd.DataFrame, cost: str) -> list[Curve]:
    """One curve per method, in order of appearance, from the finished rows of one dataset and metric.

    Args:
        rows: A row per run and checkpoint, with method, seed, checkpoint, value and the cost.
        cost: The column of the cost, such as `flops`.

    Returns:
        The curves; a method for which `curve` finds none is left out.
    """
    found = (curve(str(method), _by_seed(group, cost)) for method, group in rows.groupby("method", sort=False))
    return [each for each in found if each is not None]


def mean_curves(rows: pd.DataFrame, runs: pd.DataFrame) -> list[Curve]:
    """The mean over datasets of the median over seeds against FLOPs, of each fitted method.

    A run that did not finish has an infinite value. A curve begins where all runs have begun.

    Args:
        rows: The finished measurements of one metric of which less is better.
        runs: The table of runs, which says what is missing.

    Returns:
        Curves whose `median` is the mean. At the last cost, `low` and `high` are its 95% interval, which resamples
        seeds, so it is for these datasets; elsewhere, and below six seeds, they are the mean. A method without a
        finite mean has none.

    Raises:
        ValueError: If the runs have no column `role`.
    """
    methods = learners(runs)
    runs = runs[runs["method"].isin(methods) & runs["dataset"].isin(rows["dataset"].unique())]
    seeds = runs.groupby("dataset", sort=False)["seed"].nunique()
    found = []
    for method in methods:
        own = rows[rows["method"] == method]
        looks = [_begun(_by_seed(own[own["dataset"] == dataset], "flops")) for dataset in seeds.index]
        costs = [cost for each in looks for cost, _ in each]
        grid = np.unique(np.concatenate([np.empty(0), *costs]))
        grid = grid[(grid >= max((cost[0] for cost in costs), default=0.0)) & (grid > 0)]
        if len(grid) == 0:
            continue
        values = [
            np.stack([step_values(*look, grid) for look in each] + [np.full(len(grid), np.inf)] * (count - len(each)))
            for each, count in zip(looks, seeds, strict=True)
        ]
        mean = mean_of_medians(*values, axis=0)
        if np.isfinite(mean[-1]):
            ends = [float(end) for end in bounds([each[:, -1] for each in values], mean_of_medians)]
            low, high = (np.append(mean[:-1], end if np.isfinite(end) else mean[-1]) for end in ends)
            found.append(Curve(method, grid, mean, low, high))
    return found


def _begun(seeds: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    return [(cost, value) for cost, value in seeds if len(cost) and np.isfinite(cost).all()]


def _by_seed(rows: pd.DataFrame, cost: str) -> list[tuple[Array, Array]]:
    """Costs and values of each seed, in the order of its checkpoints."""
    rows = rows.sort_values(["seed", "checkpoint"])
    ends = np.flatnonzero(np.diff(rows["seed"].to_numpy(dtype=float))) + 1
    columns = (np.split(rows[name].to_numpy(dtype=float), ends) for name in (cost, "value"))
    return list(zip(*columns, strict=True))


def limits(values: Array, ends: Array, level: float | None = None) -> tuple[float, float]:
    """Axis limits that a few very low early values do not stretch.

    The top is the highest finite value or the reference level. The bottom is the lowest value, but at most three times
    as far below the upper quartile as the top is above it; twenty times for `ends`, so that the axis shows where a
    method ended unless that is very far off.

    Args:
        values: All values, (n,).
        ends: The final value of each method, (m,).
        level: A reference level to include.
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


def near(values: Array) -> NDArray[np.bool_]:
    """Which values are at most four times their median, so that an axis that ends there tells the others apart.

    Args:
        values: Values, (n,); those that are not finite are not near.
    """
    finite = values[np.isfinite(values)]
    return values <= FAR * max(float(np.median(finite)), 0.0) if len(finite) else np.zeros(len(values), bool)
