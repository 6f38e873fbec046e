"""Shows the progress of a study: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from bench.common.units import plural, quantity
from bench.config.labels import name_of
from bench.study.log import alone, final, outcome, workload

if TYPE_CHECKING:
    from bench.store.records import RunResult, RunSpec


ANSWERS = (2, 5, 10, 20)  # seeds after which a dataset's answer so far is printed


class TimeLeft:
    """Estimates the seconds left, from the mean duration of each method's runs so far."""

    def __init__(self, waiting: list[RunSpec], jobs: int):
        self.jobs = jobs
        self.durations: dict[str, list[float]] = defaultdict(list)
        self.waiting: dict[str, int] = defaultdict(int)
        for spec in waiting:
            self.waiting[name_of(spec.method)] += 1

    def finish(self, result: RunResult) -> None:
        """Count a finished run."""
        name = name_of(result.spec.method)
        self.waiting[name] -= 1
        self.durations[name].append(result.cost.wall_s + result.evaluation_s)

    def seconds(self) -> float | None:
        """An estimate, or None before the first run is over."""
        known = [s for each in self.durations.values() for s in each]
        if not known:
            return None
        overall = sum(known) / len(known)
        mean = {name: sum(each) / len(each) for name, each in self.durations.items()}
        return sum(count * mean.get(name, overall) for name, count in self.waiting.items()) / self.jobs


class Interim:
    """Interim results: how many runs failed, and which method is ahead on each dataset."""

    def __init__(self, waiting: list[RunSpec]):
        self.failed = 0
        self.open: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for spec in waiting:
            self.open[spec.dataset][spec.method].add(spec.seed)
        self.finals: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))

    def finish(self, result: RunResult) -> None:
        """Count a finished run."""
        spec = result.spec
        self.open[spec.dataset][spec.method].discard(spec.seed)
        self.failed += result.status not in ("done", "skipped")
        last = final(result)
        if last and result.status == "done" and spec.role == "method":
            self.finals[spec.dataset][spec.method][spec.seed] = last.value

    def over(self, dataset: str) -> bool:
        """Whether all runs on a dataset are finished."""
        return not any(self.open[dataset].values())

    def shared(self, dataset: str) -> list[int]:
        """The seeds that no method has still to finish, and of which every method with results has one."""
        every = [set(values) for values in self.finals[dataset].values()]
        return sorted(set.intersection(*every).difference(*self.open[dataset].values())) if every else []

    def answer(self, dataset: str) -> str:
        """Which method is ahead of which by how much, over the seeds that all have finished; references excluded."""
        seeds, finals = self.shared(dataset), self.finals[dataset]
        if not seeds:
            return ""
        medians = {method: median(values[seed] for seed in seeds) for method, values in finals.items()}
        first, *others = sorted(medians, key=lambda method: -medians[method])
        over = f"over {plural(len(seeds), 'seed')}"
        if not others:
            return f"{dataset}: {first} {medians[first]:.3f} nats {over}"
        ahead = median(finals[first][seed] - finals[others[0]][seed] for seed in seeds)
        return f"{dataset}: {first} against {others[0]} {ahead:+.3f} nats, the median difference {over} so far"

    def failures(self) -> str:
        """How many runs failed, if any did."""
        return f"{self.failed} failed" if self.failed else ""


class Lines:
    """One line per run, on standard error."""

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
        """Print how many runs are to be made."""
        self.total, self.done = total, total - len(waiting)
        self.left, self.interim, self.answered = TimeLeft(waiting, jobs), Interim(waiting), Counter[str]()
        self._say(workload(total, len(waiting), jobs))

    def finish(self, result: RunResult) -> None:
        """Print the result of a run, and the time left."""
        self.done += 1
        self.left.finish(result)
        self.interim.finish(result)
        ahead = ", ".join(filter(None, (self._time_left(), self.interim.failures())))
        self._say(f"[{self.done}/{self.total}] {outcome(result)}{'  ' if ahead else ''}{ahead}")
        dataset = result.spec.dataset
        before, now = self.answered[dataset], len(self.interim.shared(dataset))
        if now > before and (now in ANSWERS or self.interim.over(dataset)):
            self.answered[dataset] = now
            self._say(self.interim.answer(dataset))

    def time(self, result: RunResult) -> None:
        """Print what a fit took alone."""
        self._say(alone(result))

    def _time_left(self) -> str:
        seconds = self.left.seconds()
        return f"about {quantity('wall_s', seconds)} left" if seconds and self.done < self.total else ""

    def close(self) -> None:
        """Do nothing."""

    def _say(self, text: str) -> None:
        click.echo(text, err=True)


class Bar(Lines):
    """A live bar with the time left, below the lines of finished runs."""

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
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

    def finish(self, result: RunResult) -> None:
        """Advance the bar."""
        super().finish(result)
        told = (self._time_left(), self.interim.failures(), self.interim.answer(result.spec.dataset))
        self.bar.update(self.task, advance=1, description=escape(", ".join(filter(None, told))))

    def close(self) -> None:
        """Remove the bar."""
        if hasattr(self, "bar"):
            self.bar.stop()

    def _say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)
