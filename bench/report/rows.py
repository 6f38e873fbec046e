"""The rows behind each number of the page, in a compact form that the page contains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.stats.cost_to_target import DELTAS, SHOWN, censored
from bench.stats.summary import final, finished, ranked
from bench.store.schema import PAIR, RUN, RUN_COSTS, define

if TYPE_CHECKING:
    from bench.store.study_tables import Study

DIGITS = 8
SHOWN_COSTS = tuple(cost.name for cost in RUN_COSTS)


def rows(study: Study) -> dict[str, Any]:
    """The runs behind the numbers of the page, for its program.

    A run is a list [dataset, method, seed, status, checkpoint, key, costs, values, standard errors, costs to target].
    Dataset and method are indices into the lists of names. Costs to target are as
    `bench.stats.cost_to_target.censored` returns them. Numbers have eight digits; the tables have all digits. Null is
    what was not measured.
    """
    ends = final(study.measurements, study.runs)
    values, errors, last = _by_run(ends), _by_run(_errors(study, list(ends.columns))), _last_checkpoints(study)
    near = _by_run(_costs_to_target(study))
    runs = study.runs.drop_duplicates(RUN)
    places = [list(runs[name].unique()) for name in PAIR]
    costs = runs.reindex(columns=list(SHOWN_COSTS)).astype(float).to_numpy().tolist()
    found = []
    for (*run, status), key, spent in zip(runs[[*RUN, "status"]].to_numpy().tolist(), runs["key"], costs, strict=True):
        dataset, method, seed = run
        named = [places[0].index(dataset), places[1].index(method), int(seed), str(status)]
        at = tuple(run)
        ended = (values.get(at, []), errors.get(at, []), near.get(at, []))
        found.append([*named, last.get(at), str(key), _compact(spent), *ended])
    return {
        "datasets": [str(name) for name in places[0]],
        "methods": [str(name) for name in places[1]],
        "ranked": ranked(runs),
        "metrics": [[name, define(name).label, define(name).unit] for name in ends.columns],
        "costs": [[name, define(name).label, define(name).unit] for name in SHOWN_COSTS],
        "near": SHOWN,
        "runs": found,
    }


def _last_checkpoints(study: Study) -> dict[Any, int]:
    """The last checkpoint of each finished run."""
    last = finished(study.measurements, study.runs).groupby(RUN)["checkpoint"].max()
    return dict(zip(last.index, map(int, last), strict=True))


def _errors(study: Study, metrics: list[str]) -> pd.DataFrame:
    """The standard error of each metric at the last checkpoint of each finished run, by run and metric."""
    errors = study.measurements.assign(value=study.measurements["stderr"])
    return final(errors, study.runs).drop(columns="index_kl_ratio", errors="ignore").reindex(columns=metrics)


def _costs_to_target(study: Study) -> pd.DataFrame:
    """By run, each cost until the oracle gap was at most each of DELTAS."""
    tables = {delta: censored(study.measurements, study.runs, delta) for delta in DELTAS}
    return pd.concat(tables, axis=1).swaplevel(axis=1)[[*SHOWN]]


def _by_run(table: pd.DataFrame) -> dict[Any, list[float | str | None]]:
    return dict(zip(table.index, map(_compact, table.astype(float).to_numpy().tolist()), strict=True))


def _compact(values: list[float]) -> list[float | str | None]:
    """Numbers for JSON: eight digits, null for NaN, text for infinity."""
    return [None if math.isnan(v) else float(f"{v:.{DIGITS}g}") if math.isfinite(v) else str(v) for v in values]
