"""The rows behind each number of the page, compact enough to travel with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.stats.cost_to_target import DELTAS, TOLD, censored
from bench.stats.summary import PAIR, RUN, final, finished, fitted
from bench.store.schema import COSTS, MEMORY, define

if TYPE_CHECKING:
    from bench.store.study_tables import Study

DIGITS = 8
SHOWN_COSTS = (*(cost.name for cost in COSTS), MEMORY.name)


def rows(study: Study) -> dict[str, Any]:
    """What the page's program needs to list the runs behind a number: names, and for each run what it ended with.

    A run is [dataset, method, seed, status, checkpoint, key, costs, values, standard errors, costs to come near the
    truth], the first two by their places among the names, the last as `targets.censored` has them. Numbers have eight
    digits; the tables hold them all. Null is what was not measured.
    """
    ends = final(study.measurements, study.runs)
    values, errors, last = _by_run(ends), _by_run(_errors(study, list(ends.columns))), _last_looks(study)
    near = _by_run(_costs_to_come_near(study))
    runs = study.runs.drop_duplicates(RUN)
    places = [list(runs[name].unique()) for name in PAIR]
    costs = runs.reindex(columns=list(SHOWN_COSTS)).astype(float).to_numpy().tolist()
    keys = runs.get("key", runs["dataset"].map(lambda _: ""))
    found = []
    for (*run, status), key, spent in zip(runs[[*RUN, "status"]].to_numpy().tolist(), keys, costs, strict=True):
        dataset, method, seed = run
        named = [places[0].index(dataset), places[1].index(method), int(seed), str(status)]
        at = tuple(run)
        ended = (values.get(at, []), errors.get(at, []), near.get(at, []))
        found.append([*named, last.get(at), str(key), _compact(spent), *ended])
    return {
        "datasets": [str(name) for name in places[0]],
        "methods": [str(name) for name in places[1]],
        "fitted": fitted([str(name) for name in places[1]]),
        "metrics": [[name, define(name).label, define(name).unit] for name in ends.columns],
        "costs": [[name, define(name).label, define(name).unit] for name in SHOWN_COSTS],
        "near": TOLD,
        "runs": found,
    }


def _last_looks(study: Study) -> dict[Any, int]:
    """Which look was the last at each finished run."""
    last = finished(study.measurements, study.runs).groupby(RUN)["checkpoint"].max()
    return dict(zip(last.index, map(int, last), strict=True))


def _errors(study: Study, metrics: list[str]) -> pd.DataFrame:
    """The standard error of each metric at the last look at each finished run, in the form of the values."""
    if "stderr" not in study.measurements:
        return study.measurements.iloc[:0].set_index(RUN).reindex(columns=metrics)
    errors = study.measurements.assign(value=study.measurements["stderr"])
    return final(errors, study.runs).drop(columns="index_kl_ratio", errors="ignore").reindex(columns=metrics)


def _costs_to_come_near(study: Study) -> pd.DataFrame:
    """By run, for each cost and then for each distance from the truth, what was spent until the run was so near."""
    tables = {delta: censored(study.measurements, study.runs, delta) for delta in DELTAS}
    return pd.concat(tables, axis=1).swaplevel(axis=1)[[*TOLD]]


def _by_run(table: pd.DataFrame) -> dict[Any, list[float | str | None]]:
    return dict(zip(table.index, map(_compact, table.astype(float).to_numpy().tolist()), strict=True))


def _compact(values: list[float]) -> list[float | str | None]:
    """Numbers as JSON has them: to eight digits, null for NaN, text for infinity."""
    return [None if math.isnan(v) else float(f"{v:.{DIGITS}g}") if math.isfinite(v) else str(v) for v in values]
