"""How far a study is, read from its folder while it runs or after it; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

from bench.config import labels
from bench.store import locks, records, run_files
from bench.store.records import RunSpec
from bench.store.run_files import Ending
from bench.study.folder import held
from bench.study.plan import resolve

STATES = ("done", "failed", "skipped", "timeout", "running", "missing")


@dataclass(frozen=True)
class Run:
    """A run of a study.

    Args:
        spec: The run.
        state: One of STATES, or another status of its result.
        result: How it ended, if it did.
    """

    spec: RunSpec
    state: str
    result: Ending | None


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Args:
        folder: Its folder.
        runs: Its runs, in order.
        others: How many further results the folder holds.
    """

    folder: Path
    runs: tuple[Run, ...]
    others: int


def read(folder: Path) -> Status:
    """How far the study in a folder is, as far as its study.json describes its data: they are not drawn again.

    A tuning has studies within its folder, one for each stage that has begun; their runs follow those of the first. Of
    runs that the table of runs has, it is read there; files of runs are read only if they were changed since.

    Raises:
        UsageError: Where there is no study, or its plugins cannot be loaded.
    """
    before = held(folder)
    plan = resolve(before.settings, before.pairs)
    try:
        specs = plan.runs_as_described(before.info)
    except (KeyError, TypeError):
        specs = plan.runs
    keys, running, told = [spec.key for spec in specs], locks.held(folder), run_files.endings(folder)
    runs = tuple(
        _run(spec, told.get(key) or run_files.read_ending(folder, spec, key), key in running)
        for spec, key in zip(specs, keys, strict=True)
    )
    files = {path.stem for path in (folder / "runs").glob("*.json")}
    others = len({name for name in files if records.KEY.fullmatch(name)}.difference(keys))
    stages = (
        [read(file.parent) for file in sorted(folder.glob("*/study.json"))] if before.settings.KIND == "tune" else []
    )
    return Status(
        folder,
        runs + tuple(run for stage in stages for run in stage.runs),
        others + sum(stage.others for stage in stages),
    )


def _run(spec: RunSpec, result: Ending | None, running: bool) -> Run:
    if result is not None:
        return Run(spec, result.status, result)
    return Run(spec, "running" if running else "missing", None)


class TimeLeft:
    """Estimates the seconds left, from the median of the same method's finished runs."""

    def __init__(self, runs: Iterable[Run]):
        every = list(runs)
        programs = {run.spec.program for run in every if run.state == "running"}
        self.at_a_time = max(1, len(programs))
        spent: dict[str, list[float]] = {}
        for run in every:
            if run.result is not None and run.state == "done":
                spent.setdefault(_name(run.spec.method), []).append(run.result.seconds)
        self.usual = {method: median(seconds) for method, seconds in spent.items()}

    def seconds(self, runs: Iterable[Run]) -> float | None:
        """The seconds left for the missing and running runs, divided by how many run at a time; None if not known."""
        waiting = [_name(run.spec.method) for run in runs if run.result is None]
        if not all(name in self.usual for name in waiting):
            return None
        return sum(self.usual[name] for name in waiting) / self.at_a_time


_name = lru_cache(labels.name_of)  # of a method, which thousands of runs share
