"""The rows of the page's tables, as text where a template could not write them."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from bench.common import units
from bench.stats.comparisons import Comparison, Margin
from bench.stats.cost_to_target import TARGET_COSTS, targets
from bench.stats.estimates import aggregate, estimates, ranks
from bench.stats.paired import Match
from bench.stats.summary import PAIR, metric_names, oracle_levels
from bench.store.study_tables import Study

TOO_FEW = "too few seeds"


def groups(study: Study, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a study's summary by dataset, each with the level of the true model and the medians' intervals."""
    levels = oracle_levels(study.measurements, study.runs)
    found = estimates(study.measurements, study.runs, tuple(metric_names(study.measurements)))
    ends = found[["median_low", "median_high"]].to_numpy().tolist()
    known = dict(zip(map(tuple, found[[*PAIR, "metric"]].to_numpy().tolist()), ends, strict=True))
    return [
        {
            "name": name,
            "level": levels.get(str(name)),
            "rows": [{**row, "intervals": _intervals(row, known)} for row in rows.to_dict("records")],
        }
        for name, rows in table.groupby("dataset", sort=False)
    ]


def _intervals(row: Mapping[Hashable, Any], known: Mapping[Any, list[float]]) -> dict[str, str]:
    """What stands below each median of a row: its interval or, for too few seeds, the least and the greatest."""
    names = [str(column).removesuffix("_median") for column in row if str(column).endswith("_median")]
    found = {}
    for name in names:
        bounds = within(*known.get((row["dataset"], row["method"], name), (math.nan, math.nan)))
        found[name] = bounds or units.spread(row[f"{name}_low"], row[f"{name}_high"])
    return found


def within(low: float, high: float, digits: int = 3) -> str:
    """An interval, empty where there is none."""
    return "" if math.isnan(low + high) else f"[{units.number(low, digits)}, {units.number(high, digits)}]"


def reached(study: Study) -> list[dict[str, Any]]:
    """What it costs to come near the true model: a row per dataset and method, with a run for each cost and delta."""
    found = targets(study.measurements, study.runs)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for each in found[found["cost"].isin(TARGET_COSTS)].to_dict("records"):
        pair = (str(each["dataset"]), str(each["method"]))
        rows.setdefault(pair, {"dataset": pair[0], "method": pair[1], "cells": {}})
        rows[pair]["cells"][each["cost"], each["delta"]] = each
    return [rows[d, m] for d in study.datasets for m in study.methods if (d, m) in rows]


def places(study: Study) -> list[dict[Hashable, Any]]:
    """A row for each fitted method, the best first: its mean rank and its interquartile mean gap, with intervals."""
    ranked = ranks(study.measurements, study.runs)
    means = aggregate(study.measurements, study.runs).drop(columns="missing")
    return ranked.merge(means, on="method", suffixes=("_rank", "_iqm")).to_dict("records")


def compared(comparison: Comparison) -> dict[str, Any]:
    """A comparison's table: dataset by dataset, as text."""
    title = f"{comparison.subject} against {comparison.other}"
    named = {"title": title, "subject": comparison.subject, "other": comparison.other}
    return {**named, "rows": [_margin(margin) for margin in comparison.margins]}


def verdict_of(margin: Margin) -> str:
    """The verdict on a dataset, or that there are too few seeds for one."""
    return margin.verdict if margin.interval else TOO_FEW


def _margin(margin: Margin) -> dict[str, str]:
    match = margin.match
    return {
        "dataset": margin.dataset,
        "difference": units.apart(margin.nats, margin.interval),
        "verdict": verdict_of(margin),
        "seeds": str(margin.seeds),
        "wall": units.ratio(margin.wall),
        "flops": units.ratio(margin.flops),
        "match_wall": units.ratio(match.wall),
        "match_flops": units.ratio(match.flops),
        "reached": f"{match.reached}/{match.seeds}",
        "match": _by_seed(match),
    }


def _by_seed(match: Match) -> str:
    """[[seed, ratio of wall times, of FLOPs], ...] as JSON, where null is what was not reached."""
    each = zip(match.of, match.wall_ratios, match.flops_ratios, strict=True)
    return json.dumps([[seed, *(float(f"{v:.8g}") if math.isfinite(v) else None for v in of)] for seed, *of in each])
