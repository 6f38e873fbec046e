"""Final values and costs per run, and the summary per dataset and method that the page and the terminal share.

pandas is imported where it is used, so that importing this module stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.store.schema import PAIR, RUN, RUN_COSTS, in_order

if TYPE_CHECKING:
    import pandas as pd

JOINT_STEP, ALONE_STEPS = "joint step", ("encoder step", "decoder step")  # kinds of work of the amortised methods


def fitted(runs: pd.DataFrame) -> list[str]:
    """The methods whose role is "method", in order of appearance: neither the ceiling nor the floor.

    Raises:
        ValueError: If the runs have no column `role`.
    """
    if "role" not in runs:
        raise ValueError(f"the table of runs lacks the column 'role'; it has {list(runs.columns)}")
    return [str(method) for method in runs.loc[runs["role"] == "method", "method"].unique()]


def finished(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The measurements of the runs whose status is done."""
    done = runs.loc[runs["status"] == "done", RUN].drop_duplicates()
    return measurements.merge(done, on=RUN, how="inner")


def final(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The values of each finished run at its last checkpoint.

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
    """The metrics that were measured, and the ratio of two of them, in the order of the schema."""
    names = list(measurements["metric"].unique())
    derived = ["index_kl_ratio"] if {"index_kl", "index_kl_floor"} <= set(names) else []
    return in_order([*names, *derived])


def oracle_levels(measurements: pd.DataFrame, runs: pd.DataFrame) -> dict[str, float]:
    """The true model's mean test log-likelihood in nats, by dataset: the median over seeds.

    It is the test_ll of the ceiling if that was run, else test_ll + oracle_gap, which is the same for every method.
    Datasets for which neither is known are left out.
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

    Returns:
        Columns dataset, method, role, seeds_done and seeds_total; for each metric {metric}_median, _low and _high (the
        lowest and the highest seed); for each cost of a run or a query the median total under the cost's own name, NaN
        for a ceiling or floor; best, whether the median test_ll is the highest of the dataset among the fitted methods.
    """
    import pandas as pd

    last = final(measurements, runs)
    grouped = dict(iter(runs.groupby(PAIR, sort=False)))
    pairs = [(d, m) for d in runs["dataset"].unique() for m in runs["method"].unique() if (d, m) in grouped]
    table = pd.DataFrame([_row(d, m, grouped[d, m], last) for d, m in pairs])
    table["best"] = _best(table)
    return table


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
        row[cost] = costs[cost].median(skipna=False) if role == "method" else float("nan")
    return row


def _best(table: pd.DataFrame) -> pd.Series:
    """Whether each row has its dataset's highest median test_ll among fitted methods; ties share it."""
    median = table.reindex(columns=["test_ll_median"])["test_ll_median"]
    median = median.where(table["role"] == "method")
    return median.notna() & (median == median.groupby(table["dataset"]).transform("max"))


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
