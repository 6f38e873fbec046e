"""Prints how far a study is."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape
from rich.table import Table

from bench.cli.tables import make_console
from bench.common.units import MISSING, plural, quantity
from bench.study.status import STATES, Run, Status, TimeLeft


def show(status: Status) -> None:
    """Print a table of datasets and methods, what did not finish and why, and the time left."""
    console = make_console()
    console.print(str(status.folder), markup=False, highlight=False, soft_wrap=True)
    console.print(_table(status))
    for run in status.runs:
        if run.result is not None and run.state not in ("done", "skipped"):
            console.print(f"{run.spec.name}: {run.state} - {_line(run.result.message)}", markup=False, highlight=False)
    for line in _told(status):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(status: Status) -> Table:
    left = TimeLeft(status.runs)
    pairs: dict[tuple[str, str], list[Run]] = {}
    for run in status.runs:
        pairs.setdefault((run.spec.dataset, run.spec.method), []).append(run)
    table = Table(box=None, pad_edge=False)
    for name in ("dataset", "method", *STATES, "time left"):
        table.add_column(name, justify="left" if name in ("dataset", "method") else "right")
    for (dataset, method), runs in pairs.items():
        counts = Counter(run.state for run in runs)
        numbers = [str(counts[state] or "") for state in STATES]
        table.add_row(escape(dataset), escape(method), *numbers, _estimate(left.seconds(runs)))
    return table


def _told(status: Status) -> list[str]:
    """The totals in one line, and a second line if there are results that do not count."""
    counts = Counter(run.state for run in status.runs)
    parts = [f"{counts[state]} {state}" for state in dict.fromkeys((*STATES, *counts)) if counts[state]]
    left = TimeLeft(status.runs)
    waiting = [run for run in status.runs if run.result is None]
    told = f"{plural(len(status.runs), 'run')}: {', '.join(parts)}"
    if waiting:
        told += f"; time left: {_estimate(left.seconds(waiting))}, estimated with {left.at_a_time} at a time"
    note = f"{plural(status.others, 'result')} of other code, versions or settings not counted"
    return [told, *([note] if status.others else [])]


def _estimate(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"about {quantity('wall_s', seconds)}" if seconds else MISSING


def _line(text: str) -> str:
    return " ".join(text.split()) or "no reason given"
