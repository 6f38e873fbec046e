"""The tidy tables that the page, the figures and the terminal share.

pandas is imported where it is used, so that importing `bench.report` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.store.schema import COST_NAMES, MEMORY, in_order

if TYPE_CHECKING:
    import pandas as pd

RUN = ["dataset", "method", "seed"]
PAIR = ["dataset", "method"]
ORACLE = "oracle"
UNFITTED = (ORACLE, "untrained")


def fitted(methods: list[str]) -> list[str]:
    """The methods that fit anything: neither the true model nor the untrained floor."""
    return [method for method in methods if method not in UNFITTED]


def finished(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The measurements of the runs whose status is done."""
    done = runs.loc[runs["status"] == "done", RUN].drop_duplicates()
    return measurements.merge(done, on=RUN, how="inner")


def final(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The last look at each finished run: index dataset, method and seed; a column per metric, ratio included."""
    rows = finished(measurements, runs)
    rows = rows[rows["checkpoint"] == rows.groupby(RUN)["checkpoint"].transform("max")]
    rows = rows.drop_duplicates([*RUN, "metric"], keep="last")
    wide = rows.set_index([*RUN, "metric"])["value"].unstack("metric")
    wide = wide.reindex(columns=metric_names(measurements))
    if "index_kl_ratio" in wide:
        wide["index_kl_ratio"] = wide["index_kl"] / wide["index_kl_floor"]
    return wide


def metric_names(measurements: pd.DataFrame) -> list[str]:
    """The metrics that were measured, and the ratio of two of them, in order."""
    names = set(measurements["metric"])
    derived = ["index_kl_ratio"] if {"index_kl", "index_kl_floor"} <= names else []
    return in_order([*measurements["metric"], *derived])


def oracle_levels(measurements: pd.DataFrame, runs: pd.DataFrame) -> dict[str, float]:
    """The true model's mean held-out log-likelihood in nats, by dataset: the median over seeds.

    It is the oracle's own test_ll where the oracle was run, and otherwise test_ll + oracle_gap, which is the
    oracle on the same points whatever the method. Datasets for which neither is known are left out.
    """
    last = final(measurements, runs).reindex(columns=["test_ll", "oracle_gap"])
    own = last.index.get_level_values("method") == ORACLE
    level = last["test_ll"].where(own, last["test_ll"] + last["oracle_gap"]).dropna()
    levels: dict[str, float] = {}
    for dataset, values in level.groupby("dataset"):
        methods = values.index.get_level_values("method")
        chosen = values[methods == ORACLE] if ORACLE in methods else values.groupby("seed").median()
        levels[str(dataset)] = float(chosen.median())
    return levels


def summary(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Where each method ended: one row per dataset and method, each in its order of appearance in `runs`.

    Columns: dataset, method, seeds_done, seeds_total; {metric}_median, _low and _high (the least and the
    greatest seed) for each metric; the median total of each cost, under the cost's own name (seconds, FLOPs,
    passes, megabytes); best, the highest median test_ll of the dataset among fitted methods. Only runs that are done
    count; a seed whose value is NaN makes the median NaN rather than being left out. A method that fits
    nothing has NaN costs.
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
    row: dict[str, object] = {
        "dataset": dataset,
        "method": method,
        "seeds_done": len(done),
        "seeds_total": len(runs),
    }
    chosen = (last.index.get_level_values(0) == dataset) & (last.index.get_level_values(1) == method)
    for metric, values in last[chosen].items():
        row[f"{metric}_median"] = values.median(skipna=False)
        row[f"{metric}_low"] = values.min(skipna=False)
        row[f"{metric}_high"] = values.max(skipna=False)
    totals = [*COST_NAMES, MEMORY.name]
    costs = done.reindex(columns=totals).astype(float)
    for cost in totals:
        row[cost] = float("nan") if method in UNFITTED else costs[cost].median(skipna=False)
    return row


def _best(table: pd.DataFrame) -> pd.Series:
    """Whether each row has its dataset's highest median test_ll among fitted methods; ties share it."""
    median = table.reindex(columns=["test_ll_median"])["test_ll_median"]
    median = median.where(~table["method"].isin(UNFITTED))
    return median.notna() & (median == median.groupby(table["dataset"]).transform("max"))


def work_shares(work: pd.DataFrame) -> pd.DataFrame:
    """Where each method's FLOPs went: one row per method and kind of work, greatest first.

    Columns: method, name, by ('operators' if counted as torch ran them, 'formula' if charged), share: of the FLOPs of
    all of the method's runs.
    """
    total = work.groupby("method", sort=False)["flops"].sum()
    kinds = work.groupby(["method", "name", "by"], sort=False)["flops"].sum().reset_index()
    kinds = kinds[kinds["flops"] > 0]
    kinds["share"] = kinds["flops"] / kinds["method"].map(total).astype(float)  # where there are none, too
    rank = {method: i for i, method in enumerate(total.index)}
    order = kinds.assign(rank=kinds["method"].map(rank)).sort_values(["rank", "share"], ascending=[True, False])
    return order[["method", "name", "by", "share"]].reset_index(drop=True)
