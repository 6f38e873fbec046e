"""Where each method ended on each dataset, and over all of them: gaps, ranks and every other metric."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.common import units
from bench.report import study_notes, texts
from bench.report.blocks import Block, Cell, Column, Figures, Heading, Paragraph, Row, Table
from bench.report.gallery import Picture
from bench.stats.estimates import aggregate, estimates, ranks
from bench.stats.summary import metric_names, oracle_levels
from bench.store.schema import LEARNS, PAIR, RUN_COSTS, Definition, define
from bench.store.study_tables import Study

CHIEF = tuple(cost for cost in RUN_COSTS if cost.name in ("wall_s", "flops", "query_flops"))


def places(study: Study) -> list[dict[Hashable, Any]]:
    """The mean gap and the rank of each fitted method, the smallest gap first."""
    ranked = ranks(study.measurements, study.runs).drop(columns="missing")
    means = aggregate(study.measurements, study.runs).sort_values("mean", kind="stable")
    return means.merge(ranked, on="method", how="left", suffixes=("_mean", "_rank")).to_dict("records")


def ranking(places: Sequence[Mapping[Hashable, Any]], pictures: Sequence[Picture]) -> list[Block]:
    """The figure and the table of `places`; nothing without a figure."""
    if not pictures:
        return []
    columns = (
        Column("method", number=False),
        Column("oracle gap", "nats, mean over datasets"),
        Column("mean rank"),
        Column("runs"),
        Column("missing"),
    )
    rows = []
    for each in places:
        method = str(each["method"])
        rank = units.interval(each["low_rank"], each["high_rank"], 2)
        mean = units.interval(each["low_mean"], each["high_mean"])
        cells = (
            Cell(method),
            Cell(units.number(each["mean"]), mean, ("", method, "oracle_gap")),
            Cell(units.number(each["rank"], 2), rank, ("", method, "rank") if each["rank"] == each["rank"] else ()),
            Cell(str(each["runs"])),
            Cell(str(each["missing"])),
        )
        rows.append(Row(cells))
    table = Table("Over all datasets", columns, rows, layout="numbers compact linked")
    return [Paragraph(texts.RANKING), Figures(pictures, captioned=False), table]


def metrics_of(measurements: pd.DataFrame) -> list[Definition]:
    """The definitions of the metrics that were measured, in the order of the schema."""
    stated = dict(zip(measurements["metric"], measurements["unit"], strict=True))
    return [define(name, str(stated.get(name, ""))) for name in metric_names(measurements)]


class Ends:
    """Tables of where each method ended, by metrics and costs."""

    def __init__(self, study: Study, table: pd.DataFrame):
        self.study, self.summary = study, table
        found = estimates(study.measurements, study.runs, tuple(metric_names(study.measurements)))
        ends = found[["median_low", "median_high"]].to_numpy().tolist()
        self.intervals = dict(zip(map(tuple, found[[*PAIR, "metric"]].to_numpy().tolist()), ends, strict=True))

    def results(self, metrics: Sequence[Definition]) -> list[Block]:
        """The table of the main metrics and the chief costs, with what is said above and below it."""
        table = self.table("Where each method ended", "filter-ends", metrics, CHIEF)
        levels = oracle_levels(self.study.measurements, self.study.runs)
        known = {dataset: levels[dataset] for dataset in self.study.datasets if dataset in levels}
        explained = [Paragraph(texts.TABLE), Paragraph(texts.INTERACTION, page_only=True)]
        return [*explained, table, *([Paragraph(study_notes.true_levels(known))] if known else [])]

    def quality(self, metrics: Sequence[Definition]) -> list[Block]:
        """The table of the other metrics; nothing if there are none."""
        if not metrics:
            return []
        return [Paragraph(texts.OTHERS), self.table("Quality of posteriors and samples", "filter-others", metrics, ())]

    def costs(self) -> list[Block]:
        """The table of every cost of a fit, under a heading."""
        table = self.table("What each fit cost", "filter-costs", (), RUN_COSTS)
        return [Heading(table.label, "costs"), Paragraph(texts.COSTS), table]

    def table(self, label: str, filters: str, metrics: Sequence[Definition], costs: Sequence[Definition]) -> Table:
        """The metrics and costs of each method on each dataset."""
        columns = [Column("dataset", number=False), Column("method", number=False), Column("seeds")]
        columns += [Column(d.label, d.unit, d.meaning) for d in metrics]
        columns += [Column(d.label, "", d.meaning) for d in costs]
        records = self.summary.to_dict("records")
        previous = [None, *(row["dataset"] for row in records)]
        rows = [
            self._row(row, row["dataset"] != before, metrics, costs)
            for row, before in zip(records, previous, strict=False)
        ]
        return Table(label, columns, rows, 1, filters)

    def _row(
        self, row: Mapping[Hashable, Any], first: bool, metrics: Sequence[Definition], costs: Sequence[Definition]
    ) -> Row:
        dataset, method = str(row["dataset"]), str(row["method"])
        complete = row["seeds_done"] == row["seeds_total"]
        seeds = Cell(
            f"{row['seeds_done']}/{row['seeds_total']}", value=row["seeds_done"], style="" if complete else "short"
        )
        cells = [Cell(dataset), Cell(method), seeds]
        cells += [self.metric(row, metric.name) for metric in metrics]
        cells += [
            Cell(units.quantity(cost.name, row[cost.name]), rows=(dataset, method, cost.name), value=row[cost.name])
            for cost in costs
        ]
        return Row(cells, dataset, method, first=first, bound=row["role"] not in LEARNS)

    def metric(self, row: Mapping[Hashable, Any], name: str) -> Cell:
        """The cell of a metric in a row of the summary: the median over its interval; for too few seeds the range."""
        pair, median = (row["dataset"], row["method"]), row[f"{name}_median"]
        text, below = units.number(median), ""
        if row["seeds_done"] > 1 and text != units.MISSING:
            low, high = self.intervals.get((*pair, name), (math.nan, math.nan))
            below = units.interval(low, high) or units.spread(row[f"{name}_low"], row[f"{name}_high"])
        best = bool(row["best"]) and name == "test_ll"
        return Cell(text, below, (*map(str, pair), name), median, best)
