"""How far a study is, read from its folder while it runs or after; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.common.errors import UsageError
from bench.registry import labels
from bench.registry.registry import registry
from bench.store import locks, tables
from bench.store.records import CellResult, CellSpec
from bench.study import execute
from bench.study.log import held

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
        specs = list(execute.cells(settings, registry(settings.plugins)))
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{folder}/study.json is damaged") from None
    running = locks.held(folder)
    cells = tuple(_cell(folder, spec, running) for spec in specs)
    files = {path.stem for path in (folder / "cells").glob("*.json")}
    return Status(folder, cells, len(files - {spec.key for spec in specs}))


def _cell(folder: Path, spec: CellSpec, running: set[str]) -> Cell:
    result = tables.read_cell(folder, spec)
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
