"""What all pages of a site share: the studies, their comparisons, and the tables of the report with links."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import Any
from urllib.parse import quote

import pandas as pd

from bench.common import units
from bench.publish.blocks import Links
from bench.report import cost_tables, end_tables, provenance
from bench.report.blocks import Cell, Column, Entry, Row, Table
from bench.report.combine import names, origins
from bench.report.figures.palette import styles
from bench.report.gallery import stems
from bench.stats.comparisons import comparisons
from bench.stats.summary import finished, oracle_levels, summary
from bench.store.join import conflicts
from bench.store.schema import LEARNS, MAIN_METRICS, PAIR, RUN_COSTS
from bench.store.study_tables import Study

AT_FIRST = ("study", "dataset", "method", "seeds", "test log-likelihood", "oracle gap", "ELBO", "wall time", "FLOPs",
            "decoder passes")  # fmt: skip


def problem_of(dataset: str) -> str:
    """'circle' of 'circle @ one study': what has a page of its own."""
    return dataset.partition(" @ ")[0]


def query(name: str, value: str) -> str:
    """A part of an address that chooses rows of a table or curves of a drawing."""
    return f"{name}={quote(value, safe='')}"


class Content:
    """What the pages show parts of.

    Args:
        studies: The studies, in order of precedence.
        study: Their union, as `bench.report.combine.combined` returns it; of one study, the study itself.
        note: What the first page says besides.
    """

    def __init__(self, studies: Sequence[Study], study: Study, note: str = ""):
        self.studies, self.study, self.note = list(studies), study, note
        self.names = names(self.studies)
        self.title = study.name if len(self.studies) == 1 else units.listed(self.names)
        self.found = comparisons(study.measurements, study.runs, study.baseline, study.margin)
        self.paired = [each for each in self.found if each.differences]
        self.summary = summary(study.measurements, study.runs)
        self.ends = end_tables.Ends(study, self.summary)
        self.known = styles(study.roles, study.colour_groups)
        self.problems = list(dict.fromkeys(map(problem_of, study.datasets)))
        self.pages_of = {
            kind: {name: f"{kind}/{stem}.html" for name, stem in stems(each).items()}
            for kind, each in (("methods", study.methods), ("problems", self.problems))
        }

    # What the studies hold

    def about(self, section: str, name: str) -> dict[str, Any]:
        """What the study states about one of its 'methods' or 'datasets', with a label of its own or without."""
        stated = self.study.section(section)
        return stated.get(name) or stated.get(name.partition("[")[0]) or {}

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The measurements of finished runs."""
        return finished(self.study.measurements, self.study.runs)

    @cached_property
    def levels(self) -> dict[str, float]:
        """The test_ll of the true model of each dataset, in nats, where it is known."""
        return oracle_levels(self.study.measurements, self.study.runs)

    @cached_property
    def work(self) -> list[Entry]:
        """The kinds of work of each fitted method."""
        return cost_tables.work(self.study)

    @cached_property
    def with_truth(self) -> set[str]:
        """The datasets whose true model is known."""
        rows = self.study.measurements
        return set(rows.loc[rows["metric"] == "oracle_gap", "dataset"])

    def metric(self, dataset: str) -> str:
        """What the methods of a dataset are ordered by: the oracle gap, or without a true model test_ll."""
        return "oracle_gap" if dataset in self.with_truth else "test_ll"

    def order(self, dataset: str) -> list[str]:
        """The methods of a dataset by their final median, the best first; ceilings and floors last."""
        metric = self.metric(dataset)
        rows = self.summary[self.summary["dataset"] == dataset].reindex(columns=["method", "role", f"{metric}_median"])
        keys = [
            (role not in LEARNS, math.inf if math.isnan(value) else value if metric == "oracle_gap" else -value, method)
            for method, role, value in rows.itertuples(index=False)
        ]
        return [str(method) for *_, method in sorted(keys)]

    # Tables of the report

    @cached_property
    def metrics(self) -> tuple[list[Any], list[Any]]:
        """The definitions of the main metrics, and of the others."""
        every = end_tables.metrics_of(self.study.measurements)
        return [m for m in every if m.name in MAIN_METRICS], [m for m in every if m.name not in MAIN_METRICS]

    @cached_property
    def ends_table(self) -> Table:
        """Where methods ended by the measures that a page has room for."""
        main = [metric for metric in self.metrics[0] if metric.label in AT_FIRST]
        costs = [cost for cost in RUN_COSTS if cost.label in AT_FIRST]
        return self.prepared(self.ends.table("Where each method ended", "yes", main, costs))

    @cached_property
    def targets(self) -> Table:
        """The costs to come near the true model."""
        return self.prepared(cost_tables.targets_table(self.study))

    @cached_property
    def _failed(self) -> Table:
        return self.prepared(provenance.unfinished(self.study))

    def unfinished(self, keep: Callable[[Row], bool]) -> list[Table]:
        """The runs to keep of those that did not finish, if there are any."""
        rows = [row for row in self._failed.rows if keep(row)]
        return [replace(self._failed, rows=rows)] if rows else []

    def prepared(self, table: Table, meanings: bool = False) -> Table:
        """A table whose names are links and which names the study, if there are several, without what a site needs not.

        Args:
            table: The table.
            meanings: Whether columns keep their meanings, which the page of definitions has.
        """
        several = len(self.studies) > 1 and [column.heading for column in table.columns[:2]] == PAIR
        columns = [column if meanings else replace(column, meaning="") for column in table.columns]
        rows = []
        for row in table.rows:
            pairs = zip(columns, row.cells, strict=True)
            cells = [slim(cell) if column.number else self._named(cell) for column, cell in pairs]
            if several:
                cells.insert(len(PAIR), Cell(self._origins.get((row.dataset, row.method), ""), style="name"))
            rows.append(replace(row, cells=cells, match=""))
        if several:
            columns.insert(len(PAIR), Column("study", number=False))
        return replace(table, columns=columns, rows=rows)

    def _named(self, cell: Cell) -> Cell:
        """A cell of text, with a link if it is the name of a method or dataset."""
        return replace(cell, link=self.address(cell.text), rows=(), style=f"name {cell.style}".strip())

    # Addresses

    def address(self, name: str) -> str:
        """The page of a method or dataset; empty if it is neither."""
        return self.pages_of["methods"].get(name) or self.pages_of["problems"].get(problem_of(name), "")

    def pages(self, kind: str, suffix: str = "") -> list[tuple[str, str]]:
        """The pages of 'methods' or 'problems' as links, to a place within each."""
        return [(name, f"{path}{suffix}") for name, path in self.pages_of[kind].items()]

    def views(self, chosen: str) -> Links:
        """Views of the explorer on the rows that a `query` chooses."""
        links = [("all measures", f"explore.html#table=results&{chosen}")]
        if self.paired:
            links.append(("comparisons", f"explore.html#table=comparisons&{chosen}"))
        if self.targets.rows:
            links.append(("cost to come near the true model", f"explore.html#table=near&{chosen}"))
        return Links("In the explorer", links)

    # Several studies

    @cached_property
    def _origins(self) -> dict[tuple[str, str], str]:
        """The names of the studies that the runs of each dataset and method come from."""
        return {pair: ", ".join(seeds) for pair, seeds in origins(self.studies).items()}

    @cached_property
    def disagreements(self) -> dict[str, list[str]]:
        """What two studies disagree about on a dataset that both have, with the datasets."""
        found: dict[str, list[str]] = {}
        for one, other in combinations(self.studies, 2):
            for dataset in one.datasets:
                if dataset in other.datasets:
                    for text in conflicts(one, other, dataset):
                        found.setdefault(text, []).append(dataset)
        return found


def slim(cell: Cell) -> Cell:
    """A cell without rows behind it, and with a value to sort by only where its text does not say it."""
    text = cell.text.split()[0] if cell.text else ""
    told = cell.value is None or math.isnan(cell.value) or text == units.number(cell.value)
    return replace(cell, rows=(), value=None if told else float(f"{cell.value:.4g}"))


def narrowed(table: Table, kind: str, rows: Sequence[Row]) -> list[Table]:
    """Some rows of a table, all of one 'method' or 'dataset', without the columns that name it or are empty.

    Returns:
        The table; nothing if there are no rows, or no columns of numbers.
    """
    if not rows or not any(column.number for column in table.columns[3:]):
        return []
    kept = [
        place
        for place, column in enumerate(table.columns)
        if column.heading != kind and any(row.cells[place].text != units.MISSING for row in rows)
    ]
    cut = [replace(row, cells=[row.cells[k] for k in kept], first=False) for row in rows]
    cut = [replace(row, dataset="") if kind == "dataset" else replace(row, method="") for row in cut]
    return [replace(table, columns=[table.columns[k] for k in kept], rows=cut, head=0)]
