"""Results of runs, as the tables of a study tell them. Densities, images and other pictures are left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from bench.store.records import Cost, Row, RunResult, RunSpec, Work
from bench.store.schema import RUN
from bench.store.study_tables import Study

COSTS = [field.name for field in fields(Cost)]
CURVES = ("test_ll", "oracle_gap")  # the metrics that are drawn and matched along a fit
KEPT_ROWS = ("rows", "work")
NOT_STORED = {each.name for each in fields(RunResult) if each.default_factory is list} - {*KEPT_ROWS}
BY_RUN = {field.name for field in fields(RunResult)} - {"spec", "cost", "parameters", *KEPT_ROWS, *NOT_STORED}


def keys(study: Study) -> dict[str, str]:
    """The key of each run of a study, by the run's name."""
    return {_name(row): str(key) for *row, key in study.runs[[*RUN, "key"]].to_numpy().tolist()}


def results(study: Study, wanted: Iterable[tuple[RunSpec, Mapping[str, Any]]]) -> Iterator[RunResult]:
    """The results of runs, each as its tables have it.

    Args:
        study: The study.
        wanted: Runs, each with all hyperparameters of its method, whose types a table may lose.

    Raises:
        KeyError: For a run that the study lacks.
    """
    runs = {_name([row[name] for name in RUN]): row for row in study.runs.to_dict("records")}
    rows, work = _by_run(study.measurements, _row), _by_run(study.work, _work)
    for spec, parameters in wanted:
        row: dict[str, Any] = {str(name): value for name, value in runs[spec.name].items()}
        told = {name: _plain(name, row[name]) for name in row.keys() & BY_RUN}
        cost = Cost(**{name: row[name] for name in COSTS})
        told |= {"rows": rows.get(spec.name, []), "work": work.get(spec.name, [])}
        yield RunResult(spec, cost=cost, parameters=dict(parameters), **told)


def _plain(name: str, value: Any) -> Any:
    """A value of a table as a result has it."""
    if name == "timed_seed":
        return None if value is None or math.isnan(value) else int(value)
    return "" if name in ("message", "notes", "source") and not isinstance(value, str) else value


def _name(row: list[Any]) -> str:
    return "{} / {} / seed {}".format(*row)


def _by_run(table: pd.DataFrame, made: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    columns = [table[name].tolist() for name in table]
    for values in zip(*columns, strict=True):
        row = dict(zip(table, values, strict=True))
        found.setdefault(_name([row[name] for name in RUN]), []).append(made(row))
    return found


def _row(row: dict[str, Any]) -> Row:
    cost = Cost(**{name: row[name] for name in COSTS})
    return Row(row["checkpoint"], row["metric"], row["value"], row["stderr"], row["unit"], cost)


def _work(row: dict[str, Any]) -> Work:
    return Work(row["name"], row["calls"], row["flops"], row["by"])


def alike(result: RunResult, stored: RunResult) -> RunResult:
    """The part of a result that a stored result of the same run has."""
    there = {(row.checkpoint, row.metric) for row in stored.rows}
    rows = [row for row in result.rows if (row.checkpoint, row.metric) in there]
    left_out: dict[str, Any] = {name: [] for name in NOT_STORED}
    return replace(result, rows=rows, work=result.work if stored.work else [], **left_out)


def thinned(measurements: pd.DataFrame) -> pd.DataFrame:
    """The rows that verdicts, costs to match and curves need: all at the end of each run, and `CURVES` along it."""
    last = measurements.groupby(RUN)["checkpoint"].transform("max")
    kept = measurements["metric"].isin(CURVES) | (measurements["checkpoint"] == last)
    return measurements[kept].reset_index(drop=True)
