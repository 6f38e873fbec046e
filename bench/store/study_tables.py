"""The tables of a study folder, read and checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.store.schema import COST_NAMES, SCHEMA

MEASUREMENTS = ("dataset", "method", "seed", "checkpoint", "metric", "value", *COST_NAMES)
RUNS = ("dataset", "method", "seed", "status", "message", *COST_NAMES)
WORK = ("dataset", "method", "seed", "name", "calls", "flops", "by")
DENSITIES = ("dataset", "method", "seed", "x1", "x2", "log_density")
POSTERIORS = ("dataset", "method", "seed", "point", "index", "code", "x", "probability")
SIGNALS = ("dataset", "method", "seed", "point", "draw", "x", "signal")
SECTIONS = ("settings", "provenance", "datasets", "methods")


@dataclass(frozen=True)
class Study:
    """A study as its folder holds it. `info` is study.json, any of whose keys may be absent."""

    folder: Path
    measurements: pd.DataFrame
    runs: pd.DataFrame
    densities: pd.DataFrame
    posteriors: pd.DataFrame
    signals: pd.DataFrame
    work: pd.DataFrame
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The study's name, or else its folder's."""
        return str(self.info.get("name") or self.folder.resolve().name)

    @property
    def datasets(self) -> list[str]:
        """In order of appearance."""
        return [str(name) for name in self.runs["dataset"].unique()]

    @property
    def methods(self) -> list[str]:
        """In order of appearance."""
        return [str(name) for name in self.runs["method"].unique()]

    @property
    def problems(self) -> pd.DataFrame:
        """The runs that did not finish."""
        return self.runs[self.runs["status"] != "done"]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The studies that it was put together from, if it was."""
        return self.info.get("sources") or []

    def section(self, key: str) -> dict[str, Any]:
        """A part of study.json, empty where it is absent."""
        return self.info.get(key) or {}


def read(folder: Path) -> Study:
    """Read a study folder; the tables of densities, posteriors, signals and work may be absent.

    Raises FileNotFoundError for another missing file, and ValueError for one that is damaged, a missing column, an
    empty runs table, a schema other than SCHEMA or a study that was not scored on test data.
    """
    info = _info(_existing(folder, "study.json"))
    runs = _table(_existing(folder, "runs.parquet"), RUNS)
    if runs.empty:
        raise ValueError(f"{folder / 'runs.parquet'} has no rows, so there is nothing to report")
    return Study(
        folder=folder,
        measurements=_table(_existing(folder, "measurements.parquet"), MEASUREMENTS),
        runs=runs,
        densities=_perhaps(folder / "densities.parquet", DENSITIES),
        posteriors=_perhaps(folder / "posteriors.parquet", POSTERIORS),
        signals=_perhaps(folder / "signals.parquet", SIGNALS),
        work=_perhaps(folder / "work.parquet", WORK),
        info=info,
    )


def replace(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, so that a reader never meets half of one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _info(path: Path) -> dict[str, Any]:
    """The content of study.json, whose sections are checked."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    sections = [info.get(key) or {} for key in SECTIONS] if isinstance(info, dict) else [None]
    about = [each for section in sections[2:] if isinstance(section, dict) for each in section.values()]
    if not all(isinstance(each, dict) for each in (*sections, *about)):
        raise ValueError(f"{path} is damaged: it does not describe a study")
    if info.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"{path} has schema {info['schema']!r}; this version reads schema {SCHEMA}")
    settings = info.get("settings") or {}
    if settings.get("scored_on", "test") != "test":
        raise ValueError(f"{path.parent} holds results of `{settings.get('kind')}`, which no test data were drawn for")
    return info


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        present = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
        held = f"it holds {', '.join(present) or 'nothing'}" if folder.is_dir() else "it is not a folder"
        raise FileNotFoundError(f"{folder} is not a study: {name} is missing; {held}")
    return path


def _perhaps(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    return _table(path, columns) if path.exists() else pd.DataFrame(columns=list(columns))


def _table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    missing = [column for column in columns if column not in table.columns]
    if missing and len(table.columns):
        raise ValueError(f"{path} lacks the columns {missing}; it has {list(table.columns)}")
    return table.reindex(columns=list(columns)) if missing else table
