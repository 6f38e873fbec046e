"""Final quality: medians and interquartile means over seeds, ranks over datasets, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.stats.bootstrap import Array, bounds, iqm, mean_of_means
from bench.stats.summary import final, fitted
from bench.store.schema import MAIN_METRICS

ESTIMATES = ("median", "median_low", "median_high")


def estimates(measurements: pd.DataFrame, runs: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> pd.DataFrame:
    """The median of final values over finished seeds, with its interval.

    Returns:
        A row per dataset, method and metric with median, median_low, median_high and seeds.
        Intervals are at 95%, and NaN below six seeds. All are NaN if the value of a seed is NaN.
    """
    ends = final(measurements, runs)
    ends = ends[[metric for metric in metrics if metric in ends]]
    groups = [(key, rows.to_numpy(dtype=float).T) for key, rows in ends.groupby(level=[0, 1], sort=False)]
    rows = [
        [*key, metric, *values, seeds]
        for (key, _), (columns, seeds) in zip(groups, _every([values for _, values in groups]), strict=True)
        for metric, values in zip(ends.columns, columns, strict=True)
    ]
    return pd.DataFrame(rows, columns=["dataset", "method", "metric", *ESTIMATES, "seeds"])


def _every(samples: list[Array]) -> list[tuple[list[list[float]], int]]:
    """ESTIMATES of each row of each sample (metrics, seeds), and its seeds; samples with equally many at once."""
    counts = [sample.shape[-1] for sample in samples]
    found = {
        count: iter(_medians(np.stack([sample for sample in samples if sample.shape[-1] == count])).tolist())
        for count in set(counts)
    }
    return [(next(found[count]), count) for count in counts]


def _medians(values: Array) -> Array:
    """ESTIMATES of values (pairs, metrics, seeds): (pairs, metrics, 3)."""
    known = np.nan_to_num(values)  # percentiles refuse NaN
    ends = (np.median(known, axis=-1), *bounds([known], np.median))
    return np.where(np.isnan(values).any(axis=-1), np.nan, np.stack(ends)).transpose(1, 2, 0)


def values_by_dataset(ends: pd.Series, runs: pd.DataFrame, missing: float) -> tuple[list[str], list[Array]]:
    """The values of the fitted methods, dataset by dataset. The seeds of a dataset are those of any fitted method.

    Args:
        ends: Values by dataset, method and seed.
        runs: The table of runs.
        missing: What replaces a value that is absent or NaN.

    Returns:
        The methods, and for each dataset their values, (methods, seeds).
    """
    methods = fitted(runs)
    own = runs[runs["method"].isin(methods)]
    return methods, [
        _grid(ends, dataset, methods, sorted(rows["seed"].unique()), missing)
        for dataset, rows in own.groupby("dataset", sort=False)
    ]


def _grid(ends: pd.Series, dataset: object, methods: list[str], seeds: list[int], missing: float) -> Array:
    index = pd.MultiIndex.from_product([[dataset], methods, seeds])
    values = ends.reindex(index).to_numpy(dtype=float).reshape(len(methods), len(seeds))
    return np.where(np.isnan(values), missing, values)


def aggregate(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The interquartile mean of the final oracle gap over all runs of each fitted method.

    A run that did not finish has an infinite gap and counts as missing. Agarwal et al. 2021, arXiv 2108.13264.

    Returns:
        A row per fitted method with method, iqm, low and high in nats, runs and missing. The interval is a bootstrap
        stratified by dataset.
    """
    ends = final(measurements, runs).reindex(columns=["oracle_gap"])["oracle_gap"]
    methods, gaps = values_by_dataset(ends, runs, np.inf)
    if not methods:
        return pd.DataFrame(columns=["method", "iqm", "low", "high", "runs", "missing"])
    low, high = bounds(gaps, iqm)
    every = np.concatenate(gaps, axis=-1)
    missing = np.isinf(every).sum(axis=-1)
    return pd.DataFrame(
        {"method": methods, "iqm": iqm(every), "low": low, "high": high, "runs": every.shape[-1], "missing": missing}
    )


def ranks(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The mean rank of each fitted method by final test_ll; 1 is the best.

    Ranks are within each dataset and seed; their mean is over seeds, then over datasets. Ties share their mean rank.
    Runs that did not finish share the last ranks and count as missing. Agarwal et al. 2021, arXiv 2108.13264.

    Returns:
        A row per fitted method, the best first, with method, rank, low, high and missing. The interval resamples seeds
        within datasets.
    """
    from scipy.stats import rankdata

    ends = final(measurements, runs).reindex(columns=["test_ll"])["test_ll"]
    methods, values = values_by_dataset(ends, runs, -np.inf)
    if not methods:
        return pd.DataFrame(columns=["method", "rank", "low", "high", "missing"])
    places = [rankdata(-each, axis=0) for each in values]
    low, high = bounds(places, mean_of_means)
    missing = np.isinf(np.concatenate(values, axis=-1)).sum(axis=-1)
    table = pd.DataFrame(
        {"method": methods, "rank": mean_of_means(*places), "low": low, "high": high, "missing": missing}
    )
    return table.sort_values("rank", kind="stable", ignore_index=True)
