"""How far a study is, read from its folder while it runs or after; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.markup import escape
from rich.table import Table

from bench import claims, labels, store, study
from bench.cell import CellResult, CellSpec
from bench.errors import UsageError
from bench.record import held
from bench.registry import registry
from bench.report.format import MISSING, plural, quantity
from bench.terminal import make_console

STATES = ("done", "failed", "skipped", "timeout", "running", "missing")


@dataclass(frozen=True)
class Cell:
    """A cell of a study: its state, one of STATES or another that its result has, and its result if it has one."""

    spec: CellSpec
    state: str
    result: CellResult | None


@dataclass(frozen=True)
class Status:
    """The cells of a study in order, and how many results its folder holds beside them."""

    folder: Path
    cells: tuple[Cell, ...]
    others: int


def read(folder: Path) -> Status:
    """How far the study in a folder is; raises UsageError where there is none, or its plugins cannot be had."""
    settings, _ = held(folder)
    try:
        specs = list(study.cells(settings, registry(settings.plugins)))
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{folder}/study.json is damaged") from None
    running = claims.held(folder)
    cells = tuple(_cell(folder, spec, running) for spec in specs)
    files = {path.stem for path in (folder / "cells").glob("*.json")}
    return Status(folder, cells, len(files - {spec.key for spec in specs}))


def _cell(folder: Path, spec: CellSpec, running: set[str]) -> Cell:
    result = store.read_cell(folder, spec)
    if result is not None:
        return Cell(spec, result.status, result)
    return Cell(spec, "running" if spec.key in running else "missing", None)


class TimeLeft:
    """Estimates of the seconds until cells are over, from the median of the same method's cells that are done."""

    def __init__(self, cells: Iterable[Cell]):
        every = list(cells)
        self.at_a_time = max(1, sum(cell.state == "running" for cell in every))
        self.spent: dict[str, list[float]] = {}
        for cell in every:
            if cell.result is not None and cell.state == "done":
                seconds = cell.result.cost.wall_s + cell.result.evaluation_s
                self.spent.setdefault(_method(cell), []).append(seconds)

    def seconds(self, cells: Iterable[Cell]) -> float | None:
        """Those of cells that are missing or running, shared by as many as run; None where a method has none done."""
        waiting = [_method(cell) for cell in cells if cell.result is None]
        if not all(name in self.spent for name in waiting):
            return None
        return sum(median(self.spent[name]) for name in waiting) / self.at_a_time


def _method(cell: Cell) -> str:
    return labels.name_of(cell.spec.method)


def show(status: Status) -> None:
    """Print a table of datasets and methods, what did not finish and why, and about how long is left."""
    console = make_console()
    console.print(str(status.folder), markup=False, highlight=False, soft_wrap=True)
    console.print(_table(status))
    for cell in status.cells:
        if cell.result is not None and cell.state not in ("done", "skipped"):
            console.print(
                f"{cell.spec.name}: {cell.state} - {_line(cell.result.message)}", markup=False, highlight=False
            )
    for line in _told(status):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(status: Status) -> Table:
    left = TimeLeft(status.cells)
    pairs: dict[tuple[str, str], list[Cell]] = {}
    for cell in status.cells:
        pairs.setdefault((cell.spec.dataset, cell.spec.method), []).append(cell)
    table = Table(box=None, pad_edge=False)
    for name in ("dataset", "method", *STATES, "time left"):
        table.add_column(name, justify="left" if name in ("dataset", "method") else "right")
    for (dataset, method), cells in pairs.items():
        counts = Counter(cell.state for cell in cells)
        numbers = [str(counts[state] or "") for state in STATES]
        table.add_row(escape(dataset), escape(method), *numbers, _estimate(left.seconds(cells)))
    return table


def _told(status: Status) -> list[str]:
    """The whole in a line, and a second one where results do not count."""
    counts = Counter(cell.state for cell in status.cells)
    parts = [f"{counts[state]} {state}" for state in dict.fromkeys((*STATES, *counts)) if counts[state]]
    left = TimeLeft(status.cells)
    waiting = [cell for cell in status.cells if cell.result is None]
    told = f"{plural(len(status.cells), 'cell')}: {', '.join(parts)}"
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
