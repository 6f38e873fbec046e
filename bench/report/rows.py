"""The rows behind each number of the page, compact enough to travel with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.stats.cost_to_target import DELTAS, TOLD, censored
from bench.stats.summary import CELL, PAIR, final, finished, fitted
from bench.store.schema import COSTS, MEMORY, define

if TYPE_CHECKING:
    from bench.store.study_tables import Study

DIGITS = 8
SHOWN_COSTS = (*(cost.name for cost in COSTS), MEMORY.name)


def rows(study: Study) -> dict[str, Any]:
    """What the page's program needs to list the cells behind a number: names, and for each cell what it ended with.

    A cell is [dataset, method, seed, status, checkpoint, key, costs, values, standard errors, costs to come near the
    truth], the first two by their places among the names, the last as `targets.censored` has them. Numbers have eight
    digits; the tables hold them all. Null is what was not measured.
    """
    ends = final(study.measurements, study.cells)
    values, errors, last = _by_cell(ends), _by_cell(_errors(study, list(ends.columns))), _last_looks(study)
    near = _by_cell(_costs_to_come_near(study))
    cells = study.cells.drop_duplicates(CELL)
    places = [list(cells[name].unique()) for name in PAIR]
    costs = cells.reindex(columns=list(SHOWN_COSTS)).astype(float).to_numpy().tolist()
    keys = cells.get("key", cells["dataset"].map(lambda _: ""))
    found = []
    for (*cell, status), key, spent in zip(cells[[*CELL, "status"]].to_numpy().tolist(), keys, costs, strict=True):
        dataset, method, seed = cell
        named = [places[0].index(dataset), places[1].index(method), int(seed), str(status)]
        at = tuple(cell)
        ended = (values.get(at, []), errors.get(at, []), near.get(at, []))
        found.append([*named, last.get(at), str(key), _compact(spent), *ended])
    return {
        "datasets": [str(name) for name in places[0]],
        "methods": [str(name) for name in places[1]],
        "fitted": fitted([str(name) for name in places[1]]),
        "metrics": [[name, define(name).label, define(name).unit] for name in ends.columns],
        "costs": [[name, define(name).label, define(name).unit] for name in SHOWN_COSTS],
        "near": TOLD,
        "cells": found,
    }


def _last_looks(study: Study) -> dict[Any, int]:
    """Which look was the last at each finished cell."""
    last = finished(study.measurements, study.cells).groupby(CELL)["checkpoint"].max()
    return dict(zip(last.index, map(int, last), strict=True))


def _errors(study: Study, metrics: list[str]) -> pd.DataFrame:
    """The standard error of each metric at the last look at each finished cell, in the form of the values."""
    if "stderr" not in study.measurements:
        return study.measurements.iloc[:0].set_index(CELL).reindex(columns=metrics)
    errors = study.measurements.assign(value=study.measurements["stderr"])
    return final(errors, study.cells).drop(columns="index_kl_ratio", errors="ignore").reindex(columns=metrics)


def _costs_to_come_near(study: Study) -> pd.DataFrame:
    """By cell, for each cost and then for each distance from the truth, what was spent until the cell was so near."""
    tables = {delta: censored(study.measurements, study.cells, delta) for delta in DELTAS}
    return pd.concat(tables, axis=1).swaplevel(axis=1)[[*TOLD]]


def _by_cell(table: pd.DataFrame) -> dict[Any, list[float | str | None]]:
    return dict(zip(table.index, map(_compact, table.astype(float).to_numpy().tolist()), strict=True))


def _compact(values: list[float]) -> list[float | str | None]:
    """Numbers as JSON has them: to eight digits, null for NaN, text for infinity."""
    return [None if math.isnan(v) else float(f"{v:.{DIGITS}g}") if math.isfinite(v) else str(v) for v in values]
