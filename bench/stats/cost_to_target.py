"""What it costs to come within a few hundredths of a nat of the truth: medians under censoring, and profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.stats.bootstrap import NEVER, Array, bounds, mean_of_means
from bench.stats.estimates import values_by_dataset
from bench.stats.summary import PAIR, RUN, finished, fitted

DELTAS = (0.05, 0.1, 0.2)
AXES = ("wall_s", "cpu_s", "flops", "decoder_passes")
TARGET_COSTS = ("flops", "wall_s")  # which the report tells of
TOLD = tuple((cost, delta) for cost in TARGET_COSTS for delta in DELTAS)
RESAMPLES = 999  # of the many curves and medians here; their ends vary by less than one seed's worth
TAUS = 50


def first_costs(looks: pd.DataFrame, reached: pd.Series) -> pd.DataFrame:
    """The costs of the first look at each run that has reached its target, whatever later looks show.

    looks: rows with dataset, method, seed, checkpoint and the costs. By dataset, method and seed, of runs that do.
    """
    first = looks[reached].sort_values("checkpoint", kind="stable").drop_duplicates(RUN)
    return first.set_index(RUN)[[cost for cost in AXES if cost in first]].astype(float)


def censored(measurements: pd.DataFrame, runs: pd.DataFrame, delta: float) -> pd.DataFrame:
    """What each finished run of a fitted method spent until its oracle gap was at most delta nats.

    Index dataset, method and seed; a column per cost. A run that never gets there has its total with a minus sign:
    the cost is right-censored there.
    """
    looks = finished(measurements, runs)
    looks = looks[(looks["metric"] == "oracle_gap") & looks["method"].isin(fitted(list(runs["method"].unique())))]
    reached = first_costs(looks, looks["value"] <= delta)
    totals = looks.sort_values("checkpoint", kind="stable").drop_duplicates(RUN, keep="last").set_index(RUN)
    return reached.reindex(totals.index).fillna(-totals[reached.columns].astype(float))


def survival_median(costs: Array, axis: int = -1) -> Array:
    """The Kaplan-Meier median of costs (..., seeds) of which those with a minus sign are right-censored.

    It is where the estimated share of seeds still short of the target falls to a half: where that is over a stretch,
    its middle, and infinite where it never is (Kaplan & Meier 1958). It takes the cost at which a seed ended for no
    sign of what it would have needed.
    """
    costs = np.moveaxis(costs, axis, -1)
    missed, spent = np.signbit(costs), np.abs(costs)
    order = np.lexsort((missed, spent), axis=-1)  # at the same cost, who reaches it comes before who is censored there
    missed, spent = np.take_along_axis(missed, order, -1), np.take_along_axis(spent, order, -1)
    left = np.arange(costs.shape[-1], 0, -1)
    share = np.cumprod(np.where(missed, 1, 1 - 1 / left), axis=-1)
    tolerance = 1e-9
    return (_first(spent, share < 0.5 + tolerance) + _first(spent, share < 0.5 - tolerance)) / 2


def _first(values: Array, where: NDArray[np.bool_]) -> Array:
    """The first of values (..., n) where it holds, infinite if nowhere."""
    return np.where(where, values, np.inf).min(axis=-1)


def targets(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The median cost to come within delta nats of the truth: a row per dataset, fitted method, delta and cost.

    Columns: dataset, method, delta, cost, median, low, high, reached, seeds. The target is the true model's test_ll on
    the same points less delta; runs that miss it are right-censored at their total. Medians are Kaplan-Meier's,
    infinite where half of the seeds are not seen to get there; intervals at 95% resample seeds, NaN below six.
    """
    tables = {delta: censored(measurements, runs, delta) for delta in DELTAS}
    wide = pd.concat(tables, names=["delta"]).rename_axis(columns="cost").unstack("seed").stack("cost")
    found = _alike(pd.DataFrame(wide))
    columns = ["dataset", "method", "delta", "cost", "median", "low", "high", "reached", "seeds"]
    if not found:
        return pd.DataFrame(columns=columns)
    return pd.concat(found).reset_index()[columns].sort_values(PAIR, kind="stable", ignore_index=True)


def _alike(wide: pd.DataFrame) -> list[pd.DataFrame]:
    """Medians of rows of costs by seed, those with equally many seeds at once."""
    found = []
    for count, rows in wide.groupby(wide.notna().sum(axis=1)):
        values = rows.to_numpy(dtype=float)
        values = values[~np.isnan(values)].reshape(len(rows), -1)
        low, high = _interval(values)
        reached = (~np.signbit(values)).sum(axis=-1)
        rare = 2 * reached < count  # a few that arrive say nothing of many that ended earlier
        columns = {"median": np.where(rare, np.inf, survival_median(values)), "low": low}
        columns |= {"high": np.where(rare & ~np.isnan(high), np.inf, high), "reached": reached, "seeds": count}
        found.append(pd.DataFrame(columns, rows.index))
    return found


def _interval(costs: Array) -> tuple[Array, Array]:
    """The interval of the Kaplan-Meier median of costs (rows, seeds)."""
    return bounds([costs], _finite_median, RESAMPLES)


def _finite_median(costs: Array, axis: int = -1) -> Array:
    return np.minimum(survival_median(costs, axis), NEVER)


def profile(measurements: pd.DataFrame, runs: pd.DataFrame, delta: float = 0.1, cost: str = "flops") -> pd.DataFrame:
    """Performance profiles (Dolan & More 2002, eq. 1): rho, the share of problems solved at tau times the least cost.

    A problem is a dataset at a seed, and solving it is to come within delta nats of the truth; a method that does not,
    or did not finish, needs infinitely much. Columns: method, tau, rho, low, high; tau is on one grid for all fitted
    methods. Datasets count the same; the pointwise 95% band resamples seeds within datasets.
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
    low, high = bounds(solved, mean_of_means, RESAMPLES)
    values = (np.repeat(methods, TAUS), np.tile(tau, len(methods)), *map(np.ravel, (mean_of_means(*solved), low, high)))
    return pd.DataFrame(dict(zip(columns, values, strict=True)))


def _ratios(costs: Array) -> Array:
    """Costs (methods, seeds) over the least of each seed; infinite for whoever misses."""
    least = costs.min(axis=0)
    solved = np.isfinite(costs)
    ratios = np.divide(costs, least, out=np.full_like(costs, np.inf), where=solved & (least > 0))
    return np.where(solved & (costs == least), 1.0, ratios)
