"""The cost to come within a few hundredths of a nat of the true model: medians under censoring, and profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.stats.bootstrap import CURVE_RESAMPLES, NEVER, Array, bounds, mean_of_means
from bench.stats.estimates import values_by_dataset
from bench.stats.summary import finished, learners
from bench.store.schema import PAIR, RUN

SOLVED = 0.1  # nats below the true model
DELTAS = (0.05, SOLVED, 0.2)
AXES = ("wall_s", "cpu_s", "flops", "decoder_passes")
TARGET_COSTS = ("flops", "wall_s")  # which the report shows
SHOWN = tuple((cost, delta) for cost in TARGET_COSTS for delta in DELTAS)
TAUS = 50  # grid points of a profile


def first_costs(rows: pd.DataFrame, reached: pd.Series) -> pd.DataFrame:
    """The costs at the first checkpoint of each run that reaches its target, even if it falls below it later.

    Args:
        rows: A row per checkpoint with dataset, method, seed, checkpoint and the costs.
        reached: Whether each row reaches the target.

    Returns:
        Costs by dataset, method and seed, for the runs that reach it.
    """
    first = rows[reached].sort_values("checkpoint", kind="stable").drop_duplicates(RUN)
    return first.set_index(RUN)[[cost for cost in AXES if cost in first]].astype(float)


def censored(measurements: pd.DataFrame, runs: pd.DataFrame, delta: float) -> pd.DataFrame:
    """The cost of each finished run of a fitted method until its oracle gap is at most delta nats.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, a row each.
        delta: The oracle gap to reach, in nats.

    Returns:
        Index dataset, method and seed; a column per cost. A run that never reaches the target is right-censored: it has
        its total cost with a minus sign.

    Raises:
        ValueError: If the table of runs does not say which methods learn.
    """
    rows = finished(measurements, runs)
    rows = rows[(rows["metric"] == "oracle_gap") & rows["method"].isin(learners(runs))]
    reached = first_costs(rows, rows["value"] <= delta)
    totals = rows.sort_values("checkpoint", kind="stable").drop_duplicates(RUN, keep="last").set_index(RUN)
    return reached.reindex(totals.index).fillna(-totals[reached.columns].astype(float))


def survival_median(costs: Array, axis: int = -1) -> Array:
    """The Kaplan-Meier median of costs (Kaplan & Meier 1958). This assumes non-informative censoring.

    It is the cost at which the estimated share of seeds that have not reached the target falls to a half: the middle of
    an interval of such costs, infinite if there is none.

    Args:
        costs: Costs, (..., seeds); those with a minus sign are right-censored.
        axis: The axis of seeds.
    """
    missed, spent = _by_cost(np.moveaxis(costs, axis, -1))
    left = np.arange(spent.shape[-1], 0, -1)
    share = np.cumprod(np.where(missed, 1, 1 - 1 / left), axis=-1)
    tolerance = 1e-9
    return (_first(spent, share < 0.5 + tolerance) + _first(spent, share < 0.5 - tolerance)) / 2


def _by_cost(costs: Array) -> tuple[NDArray[np.bool_], Array]:
    """Which costs (..., seeds) are censored, and their sizes, both by size; at equal cost the censored come last.

    The bits of numbers above zero, read as integers, are in the order of the numbers. With the mark of censored costs
    as the last bit one sort of integers does for both.
    """
    one = np.uint64(1)
    keys = np.sort(np.abs(costs).view(np.uint64) << one | np.signbit(costs), axis=-1)
    return (keys & one).astype(bool), (keys >> one).view(np.float64)


def _first(values: Array, where: NDArray[np.bool_]) -> Array:
    """The first of values (..., n) where the condition holds; infinite if nowhere."""
    return np.where(where, values, np.inf).min(axis=-1)


def targets(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The median cost to come within delta nats of the true model.

    The target is the true model's test_ll on the same points minus delta. Runs that miss it are right-censored at their
    total cost.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, a row each.

    Returns:
        A row per dataset, fitted method, delta and cost of TARGET_COSTS with median, low, high, reached and seeds.
        Medians are Kaplan-Meier medians, infinite if fewer than half of the seeds are observed to reach the target.
        Intervals at 95% resample seeds; they are NaN below six seeds.
    """
    tables = pd.concat({delta: censored(measurements, runs, delta) for delta in DELTAS}, names=["delta"])
    shown = tables[[cost for cost in TARGET_COSTS if cost in tables]]
    wide = shown.rename_axis(columns="cost").unstack("seed").stack("cost")
    found = _alike(pd.DataFrame(wide))
    columns = ["dataset", "method", "delta", "cost", "median", "low", "high", "reached", "seeds"]
    if not found:
        return pd.DataFrame(columns=columns)
    return pd.concat(found).reset_index()[columns].sort_values(PAIR, kind="stable", ignore_index=True)


def _alike(wide: pd.DataFrame) -> list[pd.DataFrame]:
    """Medians of rows of costs by seed; rows with equally many seeds at once."""
    found = []
    for count, rows in wide.groupby(wide.notna().sum(axis=1)):
        values = rows.to_numpy(dtype=float)
        values = values[~np.isnan(values)].reshape(len(rows), -1)
        low, high = _interval(values)
        reached = (~np.signbit(values)).sum(axis=-1)
        rare = 2 * reached < count  # a few seeds that arrive say nothing about many that ended earlier
        columns = {"median": np.where(rare, np.inf, survival_median(values)), "low": low}
        columns |= {"high": np.where(rare & ~np.isnan(high), np.inf, high), "reached": reached, "seeds": count}
        found.append(pd.DataFrame(columns, rows.index))
    return found


def _interval(costs: Array) -> tuple[Array, Array]:
    """The interval of the Kaplan-Meier median of costs (rows, seeds)."""
    return bounds([costs], _finite_median, CURVE_RESAMPLES)


def _finite_median(costs: Array, axis: int = -1) -> Array:
    return np.minimum(survival_median(costs, axis), NEVER)


def profile(measurements: pd.DataFrame, runs: pd.DataFrame, delta: float = SOLVED, cost: str = "flops") -> pd.DataFrame:
    """Performance profiles: the share of problems solved at tau times the lowest cost (Dolan & Moré 2002, eq. 1).

    A problem is a dataset at a seed. A method solves it if it comes within delta nats of the true model; a method that
    does not, or did not finish, has infinite cost. All datasets have the same weight.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, a row each.
        delta: The oracle gap to reach, in nats.
        cost: The cost that is compared, a column of the table of measurements.

    Returns:
        Columns method, tau, rho, low and high; tau is on the same grid for all fitted methods. The pointwise 95% band
        resamples seeds within datasets.
    """
    table = censored(measurements, runs, delta)
    costs = table[cost].where(~np.signbit(table[cost]), np.inf)
    methods, problems = values_by_dataset(costs, runs, np.inf)
    columns = ["method", "tau", "rho", "low", "high"]
    if not methods:
        return pd.DataFrame(columns=columns)
    ratios = [_ratios(problem) for problem in problems]
    finite = np.concatenate([ratio[np.isfinite(ratio)] for ratio in ratios])
    tau = np.geomspace(1, 1.05 * finite.max(initial=1), TAUS)
    solved = [(ratio[:, None] <= tau[:, None]).astype(float) for ratio in ratios]
    low, high = bounds(solved, mean_of_means, CURVE_RESAMPLES)
    values = (np.repeat(methods, TAUS), np.tile(tau, len(methods)), *map(np.ravel, (mean_of_means(*solved), low, high)))
    return pd.DataFrame(dict(zip(columns, values, strict=True)))


def _ratios(costs: Array) -> Array:
    """Costs (methods, seeds) divided by the lowest of each seed; infinite for methods that miss."""
    least = costs.min(axis=0)
    solved = np.isfinite(costs)
    ratios = np.divide(costs, least, out=np.full_like(costs, np.inf), where=solved & (least > 0))
    return np.where(solved & (costs == least), 1.0, ratios)
