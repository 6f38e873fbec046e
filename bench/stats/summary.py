"""Final values and costs per run, and the summary per dataset and method that the page and the terminal share.

pandas is imported where it is used, so that importing this module stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.store.schema import LEARNS, PAIR, RUN, RUN_COSTS, in_order

if TYPE_CHECKING:
    import pandas as pd

JOINT_STEP, ALONE_STEPS = "joint step", ("encoder step", "decoder step")  # kinds of work of the amortised methods


def learners(runs: pd.DataFrame) -> list[str]:
    """The methods that learn, in order of appearance: neither the ceiling nor the floor.

    Args:
        runs: The table of runs, with the column `role`.

    Raises:
        ValueError: If the runs have no column `role`.
    """
    if "role" not in runs:
        raise ValueError(f"the table of runs lacks the column 'role'; it has {list(runs.columns)}")
    return [str(method) for method in runs.loc[runs["role"].isin(LEARNS), "method"].unique()]


def ranked(runs: pd.DataFrame) -> list[str]:
    """The fitted methods that are no reference implementation of another, in order of appearance.

    Args:
        runs: The table of runs, with the column `role`.

    Raises:
        ValueError: If the runs have no column `role`.
    """
    found = learners(runs)
    references = set(runs.loc[runs["role"] == "reference", "method"])
    return [method for method in found if method not in references]


def finished(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The measurements of the runs whose status is done.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, a row each.
    """
    done = runs.loc[runs["status"] == "done", RUN].drop_duplicates()
    return measurements.merge(done, on=RUN, how="inner")


def with_quotable_seconds(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose wall times are NaN where others ran beside the fit, so that no ratio is taken of them.

    Args:
        table: The table of measurements or of runs.
    """
    if "concurrent" not in table:
        return table
    beside = table["concurrent"].fillna(0).astype(bool)
    return table.assign(wall_s=table["wall_s"].mask(beside)) if beside.any() else table


def final(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The values of each finished run at its last checkpoint.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, a row each.

    Returns:
        Index dataset, method and seed; a column per metric, index_kl_ratio included.
    """
    rows = finished(measurements, runs)
    rows = rows[rows["checkpoint"] == rows.groupby(RUN)["checkpoint"].transform("max")]
    rows = rows.drop_duplicates([*RUN, "metric"], keep="last")
    wide = rows.set_index([*RUN, "metric"])["value"].unstack("metric")
    wide = wide.reindex(columns=metric_names(measurements))
    if "index_kl_ratio" in wide:
        wide["index_kl_ratio"] = wide["index_kl"] / wide["index_kl_floor"]
    return wide


def metric_names(measurements: pd.DataFrame) -> list[str]:
    """The metrics that were measured, and the ratio of two of them, in the order of the schema.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.

    Returns:
        Names; index_kl_ratio is one of them if both its parts were measured.
    """
    names = list(measurements["metric"].unique())
    derived = ["index_kl_ratio"] if {"index_kl", "index_kl_floor"} <= set(names) else []
    return in_order([*names, *derived])


def oracle_levels(measurements: pd.DataFrame, runs: pd.DataFrame) -> dict[str, float]:
    """The true model's mean test log-likelihood in nats, by dataset: the median over seeds.

    It is the test_ll of the ceiling if that was run, else test_ll + oracle_gap, which is the same for every method.
    Datasets for which neither is known are left out.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, with the column `role`.

    Raises:
        KeyError: If the runs have no column `role`.
    """
    ceilings = runs.loc[runs["role"] == "ceiling", "method"].unique()
    last = final(measurements, runs).reindex(columns=["test_ll", "oracle_gap"])
    own = last.index.get_level_values("method").isin(ceilings)
    level = last["test_ll"].where(own, last["test_ll"] + last["oracle_gap"]).dropna()
    levels: dict[str, float] = {}
    for dataset, values in level.groupby("dataset"):
        of_ceiling = values.index.get_level_values("method").isin(ceilings)
        chosen = values[of_ceiling] if of_ceiling.any() else values.groupby("seed").median()
        levels[str(dataset)] = float(chosen.median())
    return levels


def summary(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The final values and total costs per dataset and method, each in its order of appearance in `runs`.

    Only finished runs count. A seed whose value is NaN makes the median NaN; it is not left out.

    Args:
        measurements: The table of measurements: a row per run, checkpoint and metric.
        runs: The table of runs, with the column `role`.

    Returns:
        Columns dataset, method, role, seeds_done and seeds_total; for each metric {metric}_median, _low and _high (the
        lowest and the highest seed); for each cost of a run or a query the median total under the cost's own name, NaN
        for a ceiling or floor; best, whether the method has the best test_ll of the dataset, by differences at the same
        seeds (`best`).

    Raises:
        KeyError: If the runs have no column `role`.
    """
    import pandas as pd

    last = final(measurements, runs)
    grouped = dict(iter(runs.groupby(PAIR, sort=False)))
    pairs = [(d, m) for d in runs["dataset"].unique() for m in runs["method"].unique() if (d, m) in grouped]
    table = pd.DataFrame([_row(d, m, grouped[d, m], last) for d, m in pairs])
    ends = last.reindex(columns=["test_ll"])["test_ll"]
    of_each = {d: _best_of(ends[d], learners(runs)) for d in ends.index.unique("dataset")}
    table["best"] = [m in of_each.get(d, ()) for d, m in pairs]
    return table


def best(values: pd.DataFrame) -> list[str]:
    """The best methods on a dataset, by differences at the same seeds; several if they are equal.

    Seeds differ in their data by more than methods do, so that medians over seeds may be in another order than the
    methods at each seed. A method's lead over another is the median of their differences over the seeds that both
    finished. The best method has the largest lead over its closest rival (maximin).

    Args:
        values: A row per method, a column per seed; higher is better, NaN where a run did not finish.
    """
    import numpy as np

    known = values.dropna(how="all")
    if known.empty:
        return []
    each = known.to_numpy(dtype=float)
    leads = np.nanmedian(np.where(np.eye(len(each), dtype=bool)[..., None], np.inf, each[:, None] - each), axis=-1)
    least = np.nan_to_num(leads, nan=np.inf).min(axis=1)
    return [str(method) for method, lead in zip(known.index, least, strict=True) if lead >= least.max() - 1e-12]


def _best_of(last: pd.Series, methods: list[str]) -> list[str]:
    """The best of some methods by their final test_ll on a dataset, by method and seed; a NaN is not left out."""
    wide = last.unstack("seed")
    wrong = last[last.isna()].index.get_level_values("method")
    return best(wide.reindex([method for method in methods if method in wide.index and method not in wrong]))


def _row(dataset: str, method: str, runs: pd.DataFrame, last: pd.DataFrame) -> dict[str, object]:
    done = runs[runs["status"] == "done"]
    role = str(runs["role"].iloc[0])
    row: dict[str, object] = {
        "dataset": dataset,
        "method": method,
        "role": role,
        "seeds_done": len(done),
        "seeds_total": len(runs),
    }
    chosen = (last.index.get_level_values(0) == dataset) & (last.index.get_level_values(1) == method)
    for metric, values in last[chosen].items():
        row[f"{metric}_median"] = values.median(skipna=False)
        row[f"{metric}_low"] = values.min(skipna=False)
        row[f"{metric}_high"] = values.max(skipna=False)
    totals = [cost.name for cost in RUN_COSTS]
    costs = done.reindex(columns=totals).astype(float)
    for cost in totals:
        row[cost] = costs[cost].median(skipna=False) if role in LEARNS else float("nan")
    return row


def work_shares(work: pd.DataFrame) -> pd.DataFrame:
    """The share of each kind of work in the FLOPs of all runs of a method, the largest first.

    Args:
        work: A row per run and kind of work.

    Returns:
        Columns method, name, by ('operators' if counted as torch ran them, 'formula' if charged) and share.
    """
    total = work.groupby("method", sort=False)["flops"].sum()
    kinds = work.groupby(["method", "name", "by"], sort=False)["flops"].sum().reset_index()
    kinds = kinds[kinds["flops"] > 0]
    kinds["share"] = kinds["flops"] / kinds["method"].map(total).astype(float)  # float even if the table is empty
    rank = {method: i for i, method in enumerate(total.index)}
    order = kinds.assign(rank=kinds["method"].map(rank)).sort_values(["rank", "share"], ascending=[True, False])
    return order[["method", "name", "by", "share"]].reset_index(drop=True)


def aggressive_shares(work: pd.DataFrame) -> pd.DataFrame:
    """The share of steps that train the encoder or the decoder alone, over the runs of each method that takes such.

    Args:
        work: A row per run and kind of work.

    Returns:
        Index method; columns median, low and high: over its runs.
    """
    steps = work[work["name"].isin([JOINT_STEP, *ALONE_STEPS])]
    alone = steps["calls"].where(steps["name"].isin(ALONE_STEPS), 0).groupby([steps[name] for name in RUN]).sum()
    share = (alone / steps.groupby(RUN)["calls"].sum()).astype(float)
    found = share.groupby("method", sort=False).agg(median="median", low="min", high="max")
    return found[found["high"] > 0]
