"""Several studies as one, for one report over all of them; what was not measured alike is not put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace as changed
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from bench.stats.summary import RUN, final
from bench.store.schema import SCHEMA, SHARED
from bench.store.study_tables import Study, replace
from bench.store.tables import of_one_type

KIND = "report"  # of a combination, in its settings
TABLES = ("measurements", "runs", "densities", "posteriors", "signals", "work")
WITH_CSV = ("measurements", "runs", "work")
CONDITIONS = (*SHARED, "tuned")
SAME_TRUTH = 1e-3  # nats, what quadrature may be off by


def combined(studies: Sequence[Study], out: Path, command: str) -> Study:
    """The union of studies, as a study that lies in `out`.

    Each run (dataset, method, seed) is taken once, from the first study that holds it. Where studies disagree about a
    dataset, it is one for each group of studies that agree, 'dataset @ studies': they agree if its runs were run under
    the same conditions, with the same hyperparameters, on data of which the true model says the same, and if what both
    hold has the same keys and values. Code may differ between runs that only one of them holds: `sources` tells.
    """
    names = _names(studies)
    renamed = [_renamed(*pair) for pair in zip(studies, _labels(studies, names), strict=True)]
    tables = {name: _first([getattr(study, name) for study in renamed]) for name in TABLES}
    return Study(folder=out, info=_info(renamed, names, out, command), **tables)


def place(out: Path, folders: Sequence[Path]) -> None:
    """Raise ValueError unless `out` is a place for a combination of the studies in folders: new, empty, or one."""
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise ValueError(f"{out} is one of the studies that are reported; give another --out")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out needs a folder")
    if out.is_dir() and any(out.iterdir()) and not _is_combination(out / "study.json"):
        raise ValueError(f"{out} is not empty and holds no report over several studies; give another --out")


def _is_combination(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["settings"]["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False


def save(study: Study) -> None:
    """Write a combination's tables and study.json into its folder, which is made if need be."""
    study.folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps(study.info, indent=1, ensure_ascii=False) + "\n"
    replace(study.folder / "study.json", described.encode())
    for name in TABLES:
        table, stream = getattr(study, name), BytesIO()
        table.to_parquet(stream, index=False)
        replace(study.folder / f"{name}.parquet", stream.getvalue())
        if name in WITH_CSV:
            replace(study.folder / f"{name}.csv", table.to_csv(index=False).encode())


def _names(studies: Sequence[Study]) -> list[str]:
    """What each study is called; its folder as it was given where two have one name."""
    given = [study.name for study in studies]
    return [name if given.count(name) == 1 else str(study.folder) for name, study in zip(given, studies, strict=True)]


def _labels(studies: Sequence[Study], names: Sequence[str]) -> list[dict[str, str]]:
    """What the datasets of each study are called in the combination."""
    labels: list[dict[str, str]] = [{} for _ in studies]
    for dataset in dict.fromkeys(name for study in studies for name in study.datasets):
        groups = _groups(studies, dataset)
        for group in groups:
            whose = " + ".join(names[place] for place in group)
            for place in group:
                labels[place][dataset] = dataset if len(groups) == 1 else f"{dataset} @ {whose}"
    return labels


def _groups(studies: Sequence[Study], dataset: str) -> list[list[int]]:
    """The places of the studies that hold a dataset, those together that agree about it."""
    groups: list[list[int]] = []
    for place, study in enumerate(studies):
        if dataset in study.datasets:
            fitting = (group for group in groups if all(_agree(studies[i], study, dataset) for i in group))
            group = next(fitting, None)
            groups.append([place]) if group is None else group.append(place)
    return groups


def _agree(one: Study, other: Study, dataset: str) -> bool:
    both = [_of(study, dataset) for study in (one, other)]
    return (
        _conditions(one, dataset) == _conditions(other, dataset)
        and _same_parameters(both[0].runs, both[1].runs)
        and _same_truth(*both)
        and _same_runs(*both)
    )


def _of(study: Study, dataset: str) -> Study:
    runs, rows = (table[table["dataset"] == dataset] for table in (study.runs, study.measurements))
    return changed(study, runs=runs, measurements=rows)


def _conditions(study: Study, dataset: str) -> dict[str, Any]:
    about = study.section("datasets").get(dataset) or {}
    return {key: study.section("settings").get(key) for key in CONDITIONS} | {"about": about}


def _same_parameters(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether each method that both tables of runs hold has the same hyperparameters in both."""
    ours, theirs = _parameters(one), _parameters(other)
    return all(ours[method] == theirs[method] for method in ours.keys() & theirs.keys())


def _parameters(runs: pd.DataFrame) -> dict[str, set[str]]:
    """By method, the hyperparameters of its runs that did not fail, one text for each set of them."""
    names = sorted(str(name) for name in runs if str(name).startswith("p_"))
    rows = runs.loc[runs["status"] == "done", ["method", *names]].to_dict("records")
    found: dict[str, set[str]] = {}
    for row in rows:
        stated = {name: _plain(value) for name, value in row.items() if name != "method" and _is_stated(value)}
        found.setdefault(str(row["method"]), set()).add(json.dumps(stated))
    return found


def _is_stated(value: Any) -> bool:
    return value is not None and value == value


def _plain(value: Any) -> str:
    """A number as one text, whether its table holds it as a whole number, a fraction or a text."""
    try:
        return repr(float(value))
    except (TypeError, ValueError):
        return str(value)


def _same_truth(one: Study, other: Study) -> bool:
    """Whether the true model is as likely on the test data of each seed of both: if not, the data are others."""
    levels = [_levels(study) for study in (one, other)]
    return bool(((levels[0] - levels[1]).dropna().abs() <= SAME_TRUTH).all())


def _levels(study: Study) -> pd.Series:
    """The mean of log p_true(x) over the test data of each seed, test_ll + oracle_gap whatever the method."""
    last = final(study.measurements, study.runs).reindex(columns=["test_ll", "oracle_gap"])
    return (last["test_ll"] + last["oracle_gap"]).dropna().groupby("seed").median()


def _same_runs(one: Study, other: Study) -> bool:
    """Whether what both hold has the same keys and the same values, seconds aside."""
    for name, values in (("runs", ("status", "key")), ("measurements", ("value",))):
        by = [*RUN[1:], *(("checkpoint", "metric") if name == "measurements" else ())]
        both = [getattr(study, name) for study in (one, other)]
        shared = both[0][RUN].merge(both[1][RUN]).drop_duplicates()
        columns = [*by, *(value for value in values if all(value in table for table in both))]
        kept = [table.merge(shared, on=RUN)[columns].sort_values(by) for table in both]
        if not kept[0].reset_index(drop=True).equals(kept[1].reset_index(drop=True)):
            return False
    return True


def _renamed(study: Study, labels: dict[str, str]) -> Study:
    tables = {}
    for name in TABLES:
        table = getattr(study, name)
        tables[name] = table.assign(dataset=table["dataset"].map(lambda label: labels.get(label, label)))
    about = {labels.get(name, name): each for name, each in study.section("datasets").items()}
    return changed(study, **tables, info={**study.info, "datasets": about})


def _first(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several tables, those of a dataset, method and seed from the first table that has any."""
    filled = [table.assign(part=part) for part, table in enumerate(tables) if len(table)]
    if not filled:
        return tables[0]
    joined = pd.concat(filled, ignore_index=True)
    first = joined.groupby(RUN)["part"].transform("min")
    kept = joined[joined["part"] == first].drop(columns="part").reset_index(drop=True)
    for name in [name for name in kept if str(name).startswith("p_")]:
        kept[name] = of_one_type(kept[name])
    return kept


def _info(studies: Sequence[Study], names: Sequence[str], out: Path, command: str) -> dict[str, Any]:
    """The content of study.json: what all studies share, what differs with the study's name, and all sources."""
    joined = {key: _joined(studies, names, key) for key in ("settings", "provenance")}
    about = {key: _union([study.section(key) for study in studies]) for key in ("datasets", "methods")}
    tuned = [study.info.get("tuned") for study in studies]
    return {
        "schema": SCHEMA,
        "name": out.resolve().name,
        "command": command,
        "settings": {**joined["settings"], "kind": KIND},
        "provenance": joined["provenance"],
        "tuned": tuned[0] if all(each == tuned[0] for each in tuned) else None,
        **about,
        "sources": [source for study, name in zip(studies, names, strict=True) for source in _sources(study, name)],
    }


def _union(sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All entries, each from the first that has it."""
    return {key: each for section in reversed(sections) for key, each in section.items()}


def _joined(studies: Sequence[Study], names: Sequence[str], key: str) -> dict[str, Any]:
    """A section of all studies: a value that they share, or else each study's with its name."""
    sections = [study.section(key) for study in studies]
    shared: dict[str, Any] = {}
    for name in dict.fromkeys(name for section in sections for name in section):
        values: list[Any] = [section.get(name) for section in sections]
        told = "; ".join(f"{study}: {_shown(value)}" for study, value in zip(names, values, strict=True))
        if all(isinstance(value, list) for value in values):
            shared[name] = list(dict.fromkeys(each for value in values for each in value))
        else:
            shared[name] = values[0] if all(value == values[0] for value in values) else told
    return shared


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sources(study: Study, name: str) -> list[dict[str, Any]]:
    """Where a study comes from: itself, or what it was put together from."""
    told = {key: study.info.get(key) for key in ("command", "settings", "provenance", "tuned")}
    return study.info.get("sources") or [{"name": name, "folder": str(study.folder), **told}]
