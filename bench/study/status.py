"""How far a study is, read from its folder while it runs or after it; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.config import labels
from bench.store import locks, tables
from bench.store.records import RunResult, RunSpec
from bench.study.folder import held
from bench.study.plan import resolve

STATES = ("done", "failed", "skipped", "timeout", "running", "missing")


@dataclass(frozen=True)
class Run:
    """A run of a study.

    Args:
        spec: The run.
        state: One of STATES, or another status of its result.
        result: Its result, if it has one.
    """

    spec: RunSpec
    state: str
    result: RunResult | None


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

    Raises:
        UsageError: Where there is no study, or its plugins cannot be loaded.
    """
    before = held(folder)
    plan = resolve(before.settings, before.pairs)
    try:
        specs = plan.runs_as_described(before.info)
    except (KeyError, TypeError):
        specs = plan.runs
    keys, running = [spec.key for spec in specs], locks.held(folder)
    with tables.many():
        runs = tuple(_run(folder, spec, key, running) for spec, key in zip(specs, keys, strict=True))
    files = {path.stem for path in (folder / "runs").glob("*.json")}
    return Status(folder, runs, len({name for name in files if tables.KEY.fullmatch(name)}.difference(keys)))


def _run(folder: Path, spec: RunSpec, key: str, running: set[str]) -> Run:
    result = tables.read_run(folder, spec, key)
    if result is not None:
        return Run(spec, result.status, result)
    return Run(spec, "running" if key in running else "missing", None)


class TimeLeft:
    """Estimates the seconds left, from the median of the same method's finished runs."""

    def __init__(self, runs: Iterable[Run]):
        every = list(runs)
        self.at_a_time = max(1, sum(run.state == "running" for run in every))
        self.spent: dict[str, list[float]] = {}
        for run in every:
            if run.result is not None and run.state == "done":
                seconds = run.result.cost.wall_s + run.result.evaluation_s
                self.spent.setdefault(_method(run), []).append(seconds)

    def seconds(self, runs: Iterable[Run]) -> float | None:
        """The seconds left for the missing and running runs, divided by how many run at a time; None if not known."""
        waiting = [_method(run) for run in runs if run.result is None]
        if not all(name in self.spent for name in waiting):
            return None
        return sum(median(self.spent[name]) for name in waiting) / self.at_a_time


def _method(run: Run) -> str:
    return labels.name_of(run.spec.method)
