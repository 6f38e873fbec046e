"""What a study's folder says of the study: its settings, the study file that makes it again, and its log."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bench.common.errors import UsageError
from bench.common.units import quantity
from bench.store import provenance, tables
from bench.store.locks import alone
from bench.study import hyperparameters
from bench.study.execute import Progress, Settings
from bench.study.file import BUDGET, WHOLE
from bench.study.folder import open_folder
from bench.study.options import CHOICES

if TYPE_CHECKING:
    from bench.store.records import Row, RunResult, RunSpec


class Record:
    """Passes on how a study goes to `shown`, and keeps it: study.toml, and log.txt, a line per event with UTC time."""

    def __init__(self, folder: Path, settings: Settings, command: str, shown: Progress):
        self.folder, self.settings, self.command, self.shown = folder, settings, command, shown
        self.begun = False

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
        """Write the study file of all that the folder is to hold, and log the command."""
        self.shown.begin(total, waiting, jobs)
        if self.settings.kind == "compare":
            with alone(self.folder):
                write_study_file(self.folder, open_folder(self.settings, self.folder)[0])
        self.begun = True
        log(self.folder, f"started: {self.command} ({plan(total, len(waiting), jobs)})")

    def finish(self, result: RunResult) -> None:
        """Log what became of a run."""
        self.shown.finish(result)
        log(self.folder, outcome(result))

    def __enter__(self) -> Record:
        """Nothing is written before the study begins."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        """Log how the study ended, if it began."""
        if self.begun:
            with contextlib.suppress(OSError):  # the disk may be full, which `error` tells of
                log(self.folder, "finished" if error is None else f"stopped: {error}")


def log(folder: Path, event: str) -> None:
    """Append an event to a study's log.txt, on one line with the time in UTC."""
    with (folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{provenance.now()} {' '.join(event.split())}\n")


def write_study_file(folder: Path, settings: Settings) -> None:
    """Write study.toml, from which `python -m bench run` makes the same runs, and the tuned.json that these took."""
    if settings.tuned is not None:
        (folder / "tuned").mkdir(exist_ok=True)
        with tables.replacing(folder / "tuned" / settings.tuned.file) as temporary:
            temporary.write_bytes(settings.tuned.content)
    with tables.replacing(folder / "study.toml") as temporary:
        temporary.write_text(_described(settings, folder.resolve().name), encoding="utf-8", errors="surrogateescape")


def _described(settings: Settings, folder: str) -> str:
    """A study file for settings; its name is the folder's, as far as a name may be."""
    top: dict[str, Any] = {"name": re.sub(r"[^\w.+-]+", "-", folder).lstrip(".") or "study"}
    top |= {key: getattr(settings, key) for key in ("methods", "datasets", *WHOLE, *CHOICES, "plugins")}
    top |= {"first_seed": settings.first_seed or None}
    top["tuned"] = None if settings.tuned is None else f"tuned/{settings.tuned.file}"
    tables = {"budget": {key: getattr(settings, key) for key in BUDGET}}
    tables |= {
        f"set.{_key(name)}": {key: "none" if value is None else value for key, value in given.items()}
        for name, given in settings.parameters.items()
    }
    parts = [_statements(top)]
    parts += [f"[{name}]\n{text}" for name, table in tables.items() if (text := _statements(table))]
    return "\n".join(["# Run it again: python -m bench run study.toml --out DIR", *parts])


def _statements(table: Mapping[str, Any]) -> str:
    given = {key: value for key, value in table.items() if value is not None and value != ()}
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in given.items())


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: object) -> str:
    """A value in TOML, whose strings are those of JSON but for DEL."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value) if isinstance(value, float) else str(value).lower()


def held(folder: Path) -> tuple[Settings, dict[str, Any]]:
    """The settings of the study in a folder, and its study.json.

    Raises UsageError where there is no study, for one of another schema, and for one that is damaged.
    """
    if not (folder / "study.json").is_file():
        raise UsageError(f"{folder} holds no study: there is no study.json in it")
    info = tables.read_json(folder / "study.json")
    if not isinstance(info, dict) or info.get("schema") != tables.SCHEMA:
        raise UsageError(f"{folder} holds results of another schema; this version reads schema {tables.SCHEMA}")
    try:
        return _settings(info, folder), info
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{folder}/study.json is damaged") from None


def _settings(info: Mapping[str, Any], folder: Path) -> Settings:
    """The settings that study.json states; raises an error of one kind or another where it does not."""
    known = {each.name for each in fields(Settings)}
    stated = {key: value for key, value in info["settings"].items() if key in known}
    for key in ("methods", "datasets", "plugins"):
        stated[key] = tuple(text + "" for text in stated[key])
    stated["parameters"] = {method: dict(given) for method, given in stated.get("parameters", {}).items()}
    stated["seeds"] = len(range(stated.get("first_seed", 0), stated.get("first_seed", 0) + stated["seeds"]))
    if info["tuned"] is not None:
        stated["tuned"] = hyperparameters.read(folder / "tuned" / Path(info["tuned"]["file"]).name)
    if stated.get("pairs") is not None:
        stated["pairs"] = tuple((dataset, method) for dataset, method in stated["pairs"])
    info["provenance"]["started"]
    return Settings(**stated)


LIKELIHOODS = ("test_ll", "validation_ll")


def plan(total: int, waiting: int, jobs: int) -> str:
    """How much there is to do, on one line."""
    if not waiting:
        return f"all {total} runs are there already; nothing to run"
    kept = f" ({total - waiting} are there already)" if waiting < total else ""
    beside = f", {jobs} at a time: seconds are contended" if jobs > 1 else ""
    return f"{waiting} runs to run{kept}{beside}"


def outcome(result: RunResult) -> str:
    """What became of a run, on one line."""
    if result.status != "done":
        return f"{result.spec.name}: {result.status} - {' '.join(result.message.split())}"
    last = final(result)
    note = f" ({result.message})" if result.message else ""
    wall, flops = quantity("wall_s", result.cost.wall_s), quantity("flops", result.cost.flops)
    value = f"{last.metric} {last.value:.3f}" if last else "done"
    return f"{result.spec.name}: {value} in {wall}, {flops}{note}"


def final(result: RunResult) -> Row | None:
    """The last log-likelihood of a run, if it has any."""
    return next((row for row in reversed(result.rows) if row.metric in LIKELIHOODS), None)
