"""How a running study tells a person where it is: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import click

from bench.labels import name_of
from bench.report.format import quantity

if TYPE_CHECKING:
    from bench.cell import CellResult, CellSpec


LIKELIHOODS = ("test_ll", "validation_ll")


class TimeLeft:
    """Seconds left, from the mean duration of each method's cells so far."""

    def __init__(self, waiting: list[CellSpec], jobs: int):
        self.jobs = jobs
        self.durations: dict[str, list[float]] = defaultdict(list)
        self.waiting: dict[str, int] = defaultdict(int)
        for spec in waiting:
            self.waiting[name_of(spec.method)] += 1

    def finish(self, result: CellResult) -> None:
        """Take note of a finished cell."""
        name = name_of(result.spec.method)
        self.waiting[name] -= 1
        self.durations[name].append(result.cost.wall_s + result.evaluation_s)

    def seconds(self) -> float | None:
        """An estimate, or None before the first cell is over."""
        known = [s for each in self.durations.values() for s in each]
        if not known:
            return None
        overall = sum(known) / len(known)
        mean = {name: sum(each) / len(each) for name, each in self.durations.items()}
        return sum(count * mean.get(name, overall) for name, count in self.waiting.items()) / self.jobs


class Lines:
    """One line per cell, on standard error."""

    def begin(self, total: int, waiting: list[CellSpec], jobs: int) -> None:
        """Say how much there is to do."""
        self.total, self.done = total, total - len(waiting)
        self.left = TimeLeft(waiting, jobs)
        self._say(_plan(total, len(waiting), jobs))

    def finish(self, result: CellResult) -> None:
        """Say what became of a cell, and how long the rest will take."""
        self.done += 1
        self.left.finish(result)
        seconds = self.left.seconds()
        left = f"  about {quantity('wall_s', seconds)} left" if seconds and self.done < self.total else ""
        self._say(f"[{self.done}/{self.total}] {outcome(result)}{left}")

    def close(self) -> None:
        """Nothing to clear away."""

    def _say(self, text: str) -> None:
        click.echo(text, err=True)


class Bar(Lines):
    """A live bar with what is going on and the time left, under the lines of finished cells."""

    def begin(self, total: int, waiting: list[CellSpec], jobs: int) -> None:
        """Start the bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("starting the workers", total=total, completed=total - len(waiting))
        if waiting:
            self.bar.start()
        super().begin(total, waiting, jobs)

    def finish(self, result: CellResult) -> None:
        """Advance the bar."""
        super().finish(result)
        seconds = self.left.seconds()
        left = f"about {quantity('wall_s', seconds)} left" if seconds else ""
        self.bar.update(self.task, advance=1, description=left)

    def close(self) -> None:
        """Clear the bar away."""
        if hasattr(self, "bar"):
            self.bar.stop()

    def _say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


def _plan(total: int, waiting: int, jobs: int) -> str:
    if not waiting:
        return f"all {total} cells are there already; nothing to run"
    kept = f" ({total - waiting} are there already)" if waiting < total else ""
    beside = f", {jobs} at a time: seconds are contended" if jobs > 1 else ""
    return f"{waiting} cells to run{kept}{beside}"


def outcome(result: CellResult) -> str:
    """What became of a cell, on one line."""
    if result.status != "done":
        return f"{result.spec.name}: {result.status} - {result.message}"
    final = [row for row in result.rows if row.metric in LIKELIHOODS][-1]
    note = f" ({result.message})" if result.message else ""
    wall, flops = quantity("wall_s", result.cost.wall_s), quantity("flops", result.cost.flops)
    return f"{result.spec.name}: {final.metric} {final.value:.3f} in {wall}, {flops}{note}"
