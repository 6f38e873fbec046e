"""Whether studies agree, and the union of their tables.

`merge` refuses studies that disagree. A report over several studies keeps what disagrees apart, under other labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.store.schema import HYPERPARAMETER, PAIR, RESULTS, RUN
from bench.store.study_tables import Study
from bench.store.tables import of_one_type

Columns = tuple[tuple[str, ...], tuple[str, ...]]

SAME_TRUTH = 1e-3  # nats; the error of quadrature
COUNTED = ("flops", "decoder_passes", "encoder_passes")  # the costs that do not depend on the machine
# By table: what identifies a row beside the run, and the columns that must be equal.
VALUES = {"runs": ((), ("status", "key")), "measurements": (("checkpoint", "metric"), ("value",))}
STRICT_VALUES = {
    "runs": ((), ("status", "key", *COUNTED)),
    "measurements": (("checkpoint", "metric"), ("value", "stderr", "unit", *COUNTED)),
    "work": (("name", "by"), ("calls", "flops")),
    "densities": (("x1", "x2"), ("log_density",)),
    "posteriors": (("point", "index"), ("probability",)),
}


def conflicts(one: Study, other: Study, dataset: str, strict: bool = False) -> list[str]:
    """What two studies disagree about on a dataset that both have. Seconds and memory may differ.

    They agree if the runs were made under the same conditions, with the same hyperparameters, on data that the true
    model finds equally likely, and if the runs that both have are equal.

    Args:
        one: A study.
        other: Another study.
        dataset: The dataset's label.
        strict: Whether runs must also have equal standard errors, counted costs, densities and index posteriors.

    Returns:
        One sentence per disagreement, without a full stop, that names both folders; empty if the studies agree.
    """
    one, other = _only(one, dataset), _only(other, dataset)
    values = STRICT_VALUES if strict else VALUES
    return [
        *_conditions(one, other, dataset),
        *_hyperparameters(one, other),
        *_truths(one, other, dataset),
        *_runs(one, other, values),
    ]


def unite(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The union of tables of one kind: the rows of each run come from the first table that has any."""
    filled = [table.assign(part=part) for part, table in enumerate(tables) if len(table)]
    if not filled:
        return tables[0]
    joined = pd.concat(filled, ignore_index=True)
    first = joined.groupby(RUN)["part"].transform("min")
    kept = joined[joined["part"] == first].drop(columns="part").reset_index(drop=True)
    for name in [name for name in kept if str(name).startswith(HYPERPARAMETER)]:
        kept[name] = of_one_type(kept[name])
    return kept


def conditions(runs: pd.DataFrame) -> list[str]:
    """The columns of a table of runs that are conditions: neither results nor hyperparameters."""
    return [str(name) for name in runs if name not in RESULTS and not str(name).startswith(HYPERPARAMETER)]


def _only(study: Study, dataset: str) -> Study:
    tables = {name: getattr(study, name) for name in STRICT_VALUES}
    return replace(study, **{name: table[table["dataset"] == dataset] for name, table in tables.items()})


def _told(study: Study, value: object) -> str:
    return f"{_spelled(value)} in {study.folder}"


def _conditions(one: Study, other: Study, dataset: str) -> list[str]:
    """Disagreements about columns of runs, the file of tuned hyperparameters, and the dataset's description."""
    told = f"the description of {dataset}"
    ours, theirs = (
        {name: _values(study.runs, name) for name in conditions(study.runs)}
        | {"tuned": study.section("settings").get("tuned"), told: study.section("datasets").get(dataset)}
        for study in (one, other)
    )
    pairs = {name: (ours.get(name) or None, theirs.get(name) or None) for name in {**ours, **theirs}}
    return [f"{name} is {_told(one, a)} and {_told(other, b)}" for name, (a, b) in pairs.items() if a != b]


def _values(runs: pd.DataFrame, name: str) -> str:
    """The distinct values of a column, as text; empty if there are none."""
    values = runs.get(name, pd.Series(dtype=object))
    return ", ".join(sorted({_plain(value) for value in values if _is_stated(value)}))


def _hyperparameters(one: Study, other: Study) -> list[str]:
    """Disagreements about the hyperparameters of methods that both have."""
    ours, theirs = parameters(one.runs), parameters(other.runs)
    return [
        f"the hyperparameters of {method} are {_told(one, ours[method])} and {_told(other, theirs[method])}"
        for method in ours
        if method in theirs and ours[method] != theirs[method]
    ]


def parameters(runs: pd.DataFrame) -> dict[str, str]:
    """By method, the distinct sets of hyperparameters of its finished runs, as text."""
    names = sorted(str(name) for name in runs if str(name).startswith(HYPERPARAMETER))
    found: dict[str, set[str]] = {}
    for row in runs.loc[runs["status"] == "done", ["method", *names]].to_dict("records"):
        given = [f"{n.removeprefix(HYPERPARAMETER)}={_plain(row[n])}" for n in names if _is_stated(row[n])]
        found.setdefault(str(row["method"]), set()).add(", ".join(given) or "defaults")
    return {method: "; ".join(sorted(texts)) for method, texts in found.items()}


def _truths(one: Study, other: Study, dataset: str) -> list[str]:
    """A disagreement about the true model's log-likelihood of the test data: then the data differ."""
    ours, theirs = (_levels(study.measurements, study.runs) for study in (one, other))
    apart = (ours - theirs).dropna().abs()
    if (apart <= SAME_TRUTH).all():
        return []
    seed = apart.index[apart > SAME_TRUTH][0]
    values = f"{_told(one, ours[seed])} and {_told(other, theirs[seed])}"
    return [f"the test data of {dataset} at seed {seed} differ: the true model's log-likelihood is {values}"]


def _levels(measurements: pd.DataFrame, runs: pd.DataFrame) -> pd.Series:
    """The mean of log p_true(x) over the test data by seed, which is test_ll + oracle_gap for every method."""
    rows = measurements.merge(runs.loc[runs["status"] == "done", RUN].drop_duplicates(), on=RUN)
    rows = rows[rows["checkpoint"] == rows.groupby(RUN)["checkpoint"].transform("max")]
    wide = rows.drop_duplicates([*RUN, "metric"], keep="last").set_index([*RUN, "metric"])["value"].unstack("metric")
    wide = wide.reindex(columns=["test_ll", "oracle_gap"])
    return (wide["test_ll"] + wide["oracle_gap"]).dropna().groupby("seed").median()


def _runs(one: Study, other: Study, values: Mapping[str, Columns]) -> list[str]:
    """The first value in which the runs that both have differ."""
    for name, (more, columns) in values.items():
        tables = [getattr(study, name) for study in (one, other)]
        shared = tables[0][RUN].merge(tables[1][RUN]).drop_duplicates()
        by = [*RUN, *more]
        ours, theirs = (table.merge(shared, on=RUN).drop_duplicates(by).set_index(by) for table in tables)
        for column in columns:
            if column in ours and column in theirs:
                both = pd.concat({"a": ours[column], "b": theirs[column]}, axis=1)
                if found := _difference(one, other, both, column):
                    return found
    return []


def _difference(one: Study, other: Study, both: pd.DataFrame, column: str) -> list[str]:
    """Where two columns of the same runs differ first, in a sentence."""
    unequal = both[~((both["a"] == both["b"]) | both.isna().all(axis=1))]
    if unequal.empty:
        return []
    place, row = unequal.index[0], unequal.iloc[0]
    where = dict(zip(both.index.names, place, strict=True))
    run = " / ".join(str(where.pop(name)) for name in PAIR) + f" / seed {where.pop('seed')}"
    at = f" at {', '.join(f'{name} {value}' for name, value in where.items())}" if where else ""
    return [f"{run}: {column}{at} is {_told(one, row['a'])} and {_told(other, row['b'])}"]


def _is_stated(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and value != value)


def _plain(value: Any) -> str:
    """A number as one text, whether its table holds it as a whole number, a fraction or a text."""
    try:
        return f"{float(value):.17g}"
    except (TypeError, ValueError):
        return str(value)


def _spelled(value: object) -> str:
    if value is None or value == "" or value != value:
        return "absent"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
