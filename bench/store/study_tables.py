"""The tables of a study folder, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bench.config.schema import MARGIN
from bench.store.files import refuse_links
from bench.store.records import stopped_by
from bench.store.schema import SCHEMA, TABLES, check_schema

NEEDED = ("measurements", "runs")
READ = (*NEEDED, "densities", "posteriors", "signals", "images", "work")
SECTIONS = ("settings", "provenance", "datasets", "methods")


@dataclass(frozen=True)
class Study:
    """A study as its folder holds it.

    Args:
        folder: Where it lies.
        measurements: A row per run, checkpoint and metric.
        runs: A row per run.
        densities: Log densities of the true and the learned models on a grid.
        posteriors: Index posteriors of a few x.
        signals: Draws of the noiseless signal behind a few x.
        images: A few test points, reconstructions and samples, where points are images.
        work: The FLOPs of each kind of work of each run.
        info: The content of study.json, any of whose keys may be absent.
    """

    folder: Path
    measurements: pd.DataFrame
    runs: pd.DataFrame
    densities: pd.DataFrame
    posteriors: pd.DataFrame
    signals: pd.DataFrame
    images: pd.DataFrame
    work: pd.DataFrame
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The study's name; without one, the name of its folder."""
        return str(self.info.get("name") or self.folder.resolve().name)

    @property
    def datasets(self) -> list[str]:
        """Labels of datasets, in order of appearance."""
        return [str(name) for name in self.runs["dataset"].unique()]

    @property
    def methods(self) -> list[str]:
        """Labels of methods, in order of appearance."""
        return list(self.roles)

    @property
    def roles(self) -> dict[str, str]:
        """The role of each method: 'method', 'reference' (it learns and is not ranked), 'ceiling' or 'floor'."""
        rows = self.runs.drop_duplicates("method")
        return dict(zip(rows["method"].astype(str), rows["role"].astype(str), strict=True))

    @property
    def colour_groups(self) -> dict[str, str]:
        """The colour group of each method; one that states none is a group of its own name."""
        about = self.section("methods")
        names = {label: label.partition("[")[0] for label in self.methods}
        stated = {label: about.get(label) or about.get(name) or {} for label, name in names.items()}
        return {label: str(stated[label].get("colour_group") or name) for label, name in names.items()}

    @cached_property
    def borrowed(self) -> dict[str, str]:
        """The methods with runs that were borrowed from another study, each with where from."""
        return borrowed(self.runs)

    @property
    def baseline(self) -> tuple[str, ...]:
        """The methods that are compared with every other one, if the study states them."""
        stated = self.section("settings").get("baseline") or ()
        return tuple(map(str, stated)) if isinstance(stated, list | tuple) else ()

    @property
    def margin(self) -> float:
        """Differences within it do not matter, in nats: the largest, where studies that state several were joined."""
        stated = self.section("settings").get("margin")
        return float(stated) if isinstance(stated, int | float) else MARGIN

    @property
    def unfinished(self) -> pd.DataFrame:
        """The runs that did not finish."""
        return self.runs[self.runs["status"] != "done"]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The studies that it was joined from, if it was."""
        return self.info.get("sources") or []

    @property
    def pooled(self) -> dict[str, list[str]]:
        """The datasets on which it takes seeds of a method from several studies, with these studies."""
        return self.info.get("pooled") or {}

    def section(self, key: str) -> dict[str, Any]:
        """A part of study.json, empty where it is absent."""
        return self.info.get(key) or {}


def borrowed(runs: pd.DataFrame) -> dict[str, str]:
    """The methods with runs that were borrowed from another study, each with where from."""
    if "source" not in runs:
        return {}
    found = runs[runs["source"].fillna("") != ""].drop_duplicates("method")
    return dict(zip(found["method"].astype(str), found["source"].astype(str), strict=True))


def read(folder: Path) -> Study:
    """Read a study folder. Only runs, measurements and study.json must be there.

    Args:
        folder: The folder of a study, or of a report over several studies.

    Raises:
        UsageError: For a symbolic link in the folder.
        FileNotFoundError: If a needed file is missing.
        ValueError: If a file is damaged, lacks a column or has another schema, if there are no runs, or if the study
            was not scored on test data.
    """
    refuse_links(folder)
    info = _info(folder)
    tables = {name: _table(folder, name) for name in READ}
    if tables["runs"].empty:
        raise ValueError(f"{folder / 'runs.parquet'} has no rows, so there is nothing to report")
    if "stopped_by" not in tables["runs"]:
        tables["runs"]["stopped_by"] = [stopped_by(str(message)) for message in tables["runs"]["message"]]
    return Study(folder=folder, info=info, **tables)


def _info(folder: Path) -> dict[str, Any]:
    """The content of study.json, whose sections are checked."""
    path = _existing(folder, "study.json")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if isinstance(info, dict):
        check_schema(folder, info.get("schema", SCHEMA))
    sections = [info.get(key) or {} for key in SECTIONS] if isinstance(info, dict) else [None]
    about = [each for section in sections[2:] if isinstance(section, dict) for each in section.values()]
    if not all(isinstance(each, dict) for each in (*sections, *about)):
        raise ValueError(f"{path} is damaged: it does not describe a study")
    if not all(map(_is_sound, about)) or not _settings_are_sound(info):
        raise ValueError(f"{path} is damaged: it holds values that no study has")
    if info.get("scored_on", "test") != "test":
        raise ValueError(f"{folder} holds results of `{info.get('kind')}`, which are not scored on test data")
    return info


def _is_sound(about: dict[str, Any]) -> bool:
    """Whether what is said of a dataset or a method can be shown."""
    known = about.get("expected_log_prob")
    return isinstance(about.get("test_points", 0), int) and (
        known is None
        or (isinstance(known, list) and len(known) == 2 and all(isinstance(each, int | float) for each in known))
    )


def _settings_are_sound(info: dict[str, Any]) -> bool:
    """Whether the parts of study.json that a report reads by name are of their kinds."""
    settings, sources = info.get("settings") or {}, info.get("sources") or []
    margin, baseline = settings.get("margin"), settings.get("baseline")
    return (
        (margin is None or (isinstance(margin, int | float) and margin >= 0))
        and (baseline is None or isinstance(baseline, str | list))
        and isinstance(info.get("tuned") or {}, dict)
        and isinstance(sources, list)
        and all(isinstance(each, dict) for each in sources)
    )


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        present = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
        content = f"it holds {', '.join(present) or 'nothing'}" if folder.is_dir() else "it is not a folder"
        raise FileNotFoundError(f"{folder} is not a study: {name} is missing; {content}")
    return path


def _table(folder: Path, name: str) -> pd.DataFrame:
    """A table with all its columns; empty if it is absent and not needed."""
    path, columns = folder / f"{name}.parquet", list(TABLES[name])
    if name in NEEDED:
        _existing(folder, path.name)
    elif not path.exists():
        return pd.DataFrame(columns=columns)
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    missing = [column for column in columns if column not in table.columns]
    if missing and len(table.columns):
        told = f"{path} lacks the columns {missing}; it has {list(table.columns)}"
        raise ValueError(f"{told}. Run the study again in a new folder" if "role" in missing else told)
    return table.reindex(columns=columns) if missing else table
