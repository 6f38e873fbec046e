"""Final quality: medians over seeds, mean gaps and ranks over datasets, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.stats.bootstrap import Array, bounds, bounds_over_problems, mean_of_means, mean_of_medians
from bench.stats.summary import final, learners, ranked
from bench.store.schema import MAIN_METRICS

ESTIMATES = ("median", "median_low", "median_high")


def estimates(measurements: pd.DataFrame, runs: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> pd.DataFrame:
    """The median of final values over finished seeds, with its interval.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, a row each.
        metrics: The names of the metrics; those that were not measured are left out.

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


def values_by_dataset(
    ends: pd.Series, runs: pd.DataFrame, missing: float, methods: list[str] | None = None
) -> tuple[list[str], list[Array]]:
    """The values of methods, dataset by dataset. The seeds of a dataset are those of any of them.

    Args:
        ends: Values by dataset, method and seed.
        runs: The table of runs.
        missing: What replaces a value that is absent or NaN.
        methods: The methods; by default all fitted ones.

    Returns:
        The methods, and for each dataset their values, (methods, seeds).

    Raises:
        ValueError: If no methods are given and the runs have no column `role`.
    """
    methods = learners(runs) if methods is None else methods
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
    """The mean over datasets of the median final oracle gap of each fitted method; every dataset has the same weight.

    A run that did not finish has an infinite gap and counts as missing. Datasets whose true model is unknown, on which
    runs have a test_ll but no gap, take no part; without others the mean is NaN.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, with the column `role`.

    Returns:
        A row per fitted method with method, mean, low and high in nats, runs and missing. The interval resamples
        datasets and seeds; it is NaN for fewer than five datasets or six seeds.

    Raises:
        ValueError: If the runs have no column `role`.
    """
    ends = final(measurements, runs).reindex(columns=["oracle_gap", "test_ll"])
    known = ends.notna().groupby("dataset").any()
    unknown = known.index[known["test_ll"] & ~known["oracle_gap"]]
    methods, gaps = values_by_dataset(ends["oracle_gap"], runs[~runs["dataset"].isin(unknown)], np.inf, learners(runs))
    rows = []
    for place, method in enumerate(methods):
        samples = [each[place] for each in gaps]
        low, high = bounds_over_problems(samples, np.median, np.mean)
        mean = float(mean_of_medians(*samples)) if samples else np.nan
        missing = int(sum(np.isinf(sample).sum() for sample in samples))
        rows.append([method, mean, low, high, sum(map(len, samples)), missing])
    return pd.DataFrame(rows, columns=["method", "mean", "low", "high", "runs", "missing"])


def ranks(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The mean rank of each fitted method by final test_ll; 1 is the best. Reference implementations take no part.

    Ranks are within each dataset and seed; their mean is over seeds, then over datasets. Ties share their mean rank.
    Runs that did not finish share the last ranks and count as missing. A rank depends on the other methods.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, with the column `role`.

    Returns:
        A row per method, the best first, with method, rank, low, high and missing. The interval resamples datasets and
        seeds, as that of `aggregate`.

    Raises:
        ValueError: If the runs have no column `role`.
    """
    from scipy.stats import rankdata

    ends = final(measurements, runs).reindex(columns=["test_ll"])["test_ll"]
    methods, values = values_by_dataset(ends, runs, -np.inf, ranked(runs))
    if not methods:
        return pd.DataFrame(columns=["method", "rank", "low", "high", "missing"])
    places = [rankdata(-each, axis=0) for each in values]
    ends_of = [bounds_over_problems([each[k] for each in places], np.mean, np.mean) for k in range(len(methods))]
    low, high = map(list, zip(*ends_of, strict=True))
    missing = np.isinf(np.concatenate(values, axis=-1)).sum(axis=-1)
    table = pd.DataFrame(
        {"method": methods, "rank": mean_of_means(*places), "low": low, "high": high, "missing": missing}
    )
    return table.sort_values("rank", kind="stable", ignore_index=True)
