"""How a study goes: passed on to whoever shows it, and kept in log.txt."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Protocol

from bench.common.text import plain
from bench.common.units import plural, quantity
from bench.store import provenance
from bench.store.records import Row, RunResult, RunSpec

LIKELIHOODS = ("test_ll", "validation_ll")


class Progress(Protocol):
    """Shows how a study goes."""

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
        """The study begins.

        Args:
            total: Number of its runs.
            waiting: The runs to be made.
            jobs: How many are made at a time.
        """
        ...

    def finish(self, result: RunResult) -> None:
        """A run is finished and written."""
        ...

    def time(self, result: RunResult) -> None:
        """A fit was timed alone."""
        ...

    def close(self) -> None:
        """The study has ended."""
        ...


class Silent:
    """Shows nothing."""

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
        """Do nothing."""

    def finish(self, result: RunResult) -> None:
        """Do nothing."""

    def time(self, result: RunResult) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class StudyLog:
    """Passes on how a study goes, and keeps it in log.txt: a line per event, with the time in UTC.

    Args:
        folder: The study's folder.
        command: The command that runs it.
        shown: Who shows progress.
    """

    def __init__(self, folder: Path, command: str, shown: Progress):
        self.folder, self.command, self.shown = folder, command, shown
        self.begun = False

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
        """Log the command."""
        self.shown.begin(total, waiting, jobs)
        self.begun = True
        write_event(self.folder, f"started: {self.command} ({workload(total, len(waiting), jobs)})")

    def finish(self, result: RunResult) -> None:
        """Log the result of a run."""
        self.shown.finish(result)
        write_event(self.folder, outcome(result))

    def time(self, result: RunResult) -> None:
        """Log that a fit was timed alone."""
        self.shown.time(result)
        write_event(self.folder, alone(result))

    def __enter__(self) -> StudyLog:
        """Nothing is written before the study begins."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        """Log how the study ended, if it began."""
        if self.begun:
            with contextlib.suppress(OSError):  # the disk may be full, which `error` says
                write_event(self.folder, "finished" if error is None else f"stopped: {error}")


def write_event(folder: Path, event: str) -> None:
    """Append an event to a study's log.txt, on one line with the time in UTC."""
    with (folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{provenance.now()} {plain(event)}\n")


def workload(total: int, waiting: int, jobs: int) -> str:
    """How many runs are to be made, on one line.

    Args:
        total: Number of the study's runs.
        waiting: Number of those to be made.
        jobs: How many are made at a time.
    """
    if not waiting:
        return (
            f"{'all ' if total > 1 else ''}{plural(total, 'run')} {'are' if total > 1 else 'is'} done; nothing to run"
        )
    done = total - waiting
    kept = f" ({done} {'is' if done == 1 else 'are'} done)" if done else ""
    beside = f", {jobs} at a time" if jobs > 1 else ""
    return f"{plural(waiting, 'run')} to do{kept}{beside}"


def outcome(result: RunResult) -> str:
    """The result of a run, on one line."""
    if result.status != "done":
        return f"{result.spec.name}: {result.status} - {plain(result.message)}"
    last = final(result)
    remarks = "; ".join(filter(None, (result.message, result.notes)))
    note = f" ({remarks})" if remarks else ""
    wall, flops = quantity("wall_s", result.cost.wall_s), quantity("flops", result.cost.flops)
    value = f"{last.metric} {last.value:.3f}" if last else "done"
    return f"{result.spec.name}: {value} in {wall}, {flops}{note}"


def alone(result: RunResult) -> str:
    """What a fit that was timed alone took, on one line."""
    flops, wall, _ = result.alone[-1]
    return f"{result.spec.name}: {quantity('wall_s', wall)} for {quantity('flops', flops)}, fitted alone"


def final(result: RunResult) -> Row | None:
    """The last log-likelihood of a run, if it has any."""
    return next((row for row in reversed(result.rows) if row.metric in LIKELIHOODS), None)
