"""One report over several studies. Runs that were not made alike are not pooled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.config.schema import REPORT
from bench.store.files import atomic_write, write_json
from bench.store.join import conflicts, unite
from bench.store.schema import RUN, SCHEMA
from bench.store.study_tables import READ, Study

WITH_CSV = ("measurements", "runs", "work")


def combined(studies: Sequence[Study], out: Path, command: str) -> Study:
    """The union of studies. Each run comes from the first study that has it.

    Where studies disagree about a dataset (`bench.store.join.conflicts`), each group of studies that agree has a
    dataset of its own, labelled 'dataset @ studies'. Code may differ between runs that only one study has; the report
    lists the commit of each study.

    Args:
        studies: The studies, in order of precedence.
        out: The folder of the combined study. Nothing is written.
        command: The command that makes it, for study.json.
    """
    apart = kept_apart(studies)
    tables = {name: unite([getattr(study, name) for study in apart]) for name in READ}
    info = _info(apart, names(studies), out, command) | {"pooled": _pooled(origins(studies))}
    return Study(folder=out, info=info, **tables)


def kept_apart(studies: Sequence[Study]) -> list[Study]:
    """The studies with other labels for the datasets about which they disagree: 'dataset @ studies'."""
    labels = _labels(studies, names(studies))
    return [_renamed(*pair) for pair in zip(studies, labels, strict=True)]


def origins(studies: Sequence[Study]) -> dict[tuple[str, str], dict[str, list[int]]]:
    """The seeds that a combined study takes from each of its studies, by dataset and method."""
    taken: set[tuple[Any, ...]] = set()
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for name, study in zip(names(studies), kept_apart(studies), strict=True):
        new = [run for run in study.runs[RUN].itertuples(index=False, name=None) if run not in taken]
        for dataset, method, seed in new:
            found.setdefault((str(dataset), str(method)), {}).setdefault(name, []).append(int(seed))
        taken.update(new)
    return found


def _pooled(origin: Mapping[tuple[str, str], Mapping[str, Sequence[int]]]) -> dict[str, list[str]]:
    """The datasets on which seeds of a method come from several studies, with these studies."""
    found: dict[str, dict[str, None]] = {}
    for (dataset, _), seeds in origin.items():
        if len(seeds) > 1:
            found.setdefault(dataset, {}).update(dict.fromkeys(seeds))
    return {dataset: list(whose) for dataset, whose in found.items()}


def check_out(out: Path, folders: Sequence[Path]) -> None:
    """Check that a combined study may be written to a folder: a new or empty one, or that of a combined study.

    Args:
        out: The folder to write to.
        folders: The studies to combine.

    Raises:
        ValueError: If it may not.
    """
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise ValueError(f"{out} is one of the studies to report on; give another --out")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out needs a folder")
    if out.is_dir() and any(out.iterdir()) and not _is_combination(out / "study.json"):
        raise ValueError(f"{out} is not empty and holds no report over several studies; give another --out")


def _is_combination(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["kind"] == REPORT
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def save(study: Study) -> None:
    """Write the tables and study.json of a combined study into its folder, which is created if needed."""
    study.folder.mkdir(parents=True, exist_ok=True)
    write_json(study.folder / "study.json", study.info)
    for name in READ:
        table, stream = getattr(study, name), BytesIO()
        table.to_parquet(stream, index=False)
        atomic_write(study.folder / f"{name}.parquet", stream.getvalue())
        if name in WITH_CSV:
            atomic_write(study.folder / f"{name}.csv", table.to_csv(index=False))


def names(studies: Sequence[Study]) -> list[str]:
    """The name of each study; its folder, as it was given, where two have the same name."""
    given = [study.name for study in studies]
    return [name if given.count(name) == 1 else str(study.folder) for name, study in zip(given, studies, strict=True)]


def _labels(studies: Sequence[Study], known: Sequence[str]) -> list[dict[str, str]]:
    """The label in the combined study of each dataset of each study."""
    labels: list[dict[str, str]] = [{} for _ in studies]
    for dataset in dict.fromkeys(name for study in studies for name in study.datasets):
        groups = _groups(studies, dataset)
        for group in groups:
            whose = " + ".join(known[place] for place in group)
            for place in group:
                labels[place][dataset] = dataset if len(groups) == 1 else f"{dataset} @ {whose}"
    return labels


def _groups(studies: Sequence[Study], dataset: str) -> list[list[int]]:
    """The places of the studies that have a dataset, grouped by agreement."""
    groups: list[list[int]] = []
    for place, study in enumerate(studies):
        if dataset in study.datasets:
            fitting = (group for group in groups if not any(conflicts(studies[i], study, dataset) for i in group))
            group = next(fitting, None)
            groups.append([place]) if group is None else group.append(place)
    return groups


def _renamed(study: Study, labels: dict[str, str]) -> Study:
    tables = {}
    for name in READ:
        table = getattr(study, name)
        tables[name] = table.assign(dataset=table["dataset"].map(lambda label: labels.get(label, label)))
    about = {labels.get(name, name): each for name, each in study.section("datasets").items()}
    return replace(study, **tables, info={**study.info, "datasets": about})


def _info(studies: Sequence[Study], known: Sequence[str], out: Path, command: str) -> dict[str, Any]:
    """The content of study.json: common values, differing values with the study's name, and all sources."""
    joined = {key: _joined(studies, known, key) for key in ("settings", "provenance")}
    about = {key: _union([study.section(key) for study in studies]) for key in ("datasets", "methods")}
    tuned = [study.info.get("tuned") for study in studies]
    return {
        "schema": SCHEMA,
        "name": out.resolve().name,
        "command": command,
        "kind": REPORT,
        "settings": joined["settings"],
        "provenance": joined["provenance"],
        "tuned": tuned[0] if all(each == tuned[0] for each in tuned) else None,
        **about,
        "sources": [source for study, name in zip(studies, known, strict=True) for source in _sources(study, name)],
    }


def _union(sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All entries, each from the first section that has it."""
    return {key: each for section in reversed(sections) for key, each in section.items()}


def _joined(studies: Sequence[Study], known: Sequence[str], key: str) -> dict[str, Any]:
    """A section of all studies: the common value, the union of lists, or each study's value with its name."""
    sections = [study.section(key) for study in studies]
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(name for section in sections for name in section):
        values: list[Any] = [section.get(name) for section in sections]
        if name == "baseline" or all(isinstance(value, list) for value in values):
            joined[name] = list(dict.fromkeys(each for value in values for each in value or ()))
        elif name == "margin":
            joined[name] = max(study.margin for study in studies)
        elif all(value == values[0] for value in values):
            joined[name] = values[0]
        else:
            joined[name] = "; ".join(f"{study}: {_shown(value)}" for study, value in zip(known, values, strict=True))
    return joined


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sources(study: Study, name: str) -> list[dict[str, Any]]:
    """Where a study comes from: itself, or the studies that it was joined from."""
    own = {key: study.info.get(key) for key in ("command", "settings", "provenance", "tuned")}
    return study.info.get("sources") or [{"name": name, "folder": str(study.folder), **own}]
