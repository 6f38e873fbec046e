"""What it costs to come near the true model, and where the FLOPs went."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench.common import units
from bench.report import study_notes, texts
from bench.report.blocks import Block, Cell, Column, Entry, Figures, Heading, Paragraph, Row, Table
from bench.report.gallery import Picture
from bench.stats.cost_to_target import SHOWN, targets
from bench.stats.summary import aggressive_shares, learners, work_shares
from bench.store.schema import define
from bench.store.study_tables import Study

LEAST_SHARE = 1e-3  # of a method's FLOPs; kinds of work below it are not listed


def cost_blocks(study: Study, curves: Sequence[Picture]) -> list[Block]:
    """Quality against each cost, and the costs to come near the true model where that is known."""
    blocks: list[Block] = [Paragraph(texts.CURVES), Figures(curves, captioned=False)]
    table = targets_table(study)
    if table.rows:
        blocks += [Heading(table.label, "targets"), Paragraph(texts.TARGETS), table]
    return blocks


def targets_table(study: Study) -> Table:
    """What it costs each fitted method to come near the true model; without rows where that is not known."""
    found = targets(study.measurements, study.runs)
    cells = {
        (str(row["dataset"]), str(row["method"]), row["cost"], row["delta"]): row for row in found.to_dict("records")
    }
    known = {key[:2] for key in cells}
    pairs = [(d, m) for d in study.datasets for m in study.methods if (d, m) in known]
    columns = [Column("dataset", number=False), Column("method", number=False)]
    columns += [Column(define(cost).label, f"to {delta} nats") for cost, delta in SHOWN]
    firsts = [True, *(one[0] != other[0] for one, other in pairwise(pairs))]
    rows = [
        Row((Cell(d), Cell(m), *(_target(d, m, cells[d, m, c, delta]) for c, delta in SHOWN)), d, m, first=first)
        for (d, m), first in zip(pairs, firsts, strict=bool(pairs))
    ]
    return Table("Cost to come near the true model", columns, rows, 1, "filter-targets")


def _target(dataset: str, method: str, row: Mapping[Hashable, Any]) -> Cell:
    cost, median = str(row["cost"]), float(row["median"])
    low, high = (units.quantity(cost, row[end]) for end in ("low", "high"))
    interval = f"[{low}, {high}] " if row["low"] < math.inf else ""  # not for NaN, nor where no seed comes near
    small = f"{interval}{row['reached']}/{row['seeds']}"
    return Cell(units.quantity(cost, median), small, (dataset, method, f"near-{row['delta']}"), median)


def work(study: Study) -> list[Entry]:
    """The kinds of work of each fitted method, with the share charged by formula and that of aggressive steps."""
    rows = study.work[study.work["method"].isin(learners(study.runs))]
    shares, aggressive = work_shares(rows), aggressive_shares(rows)
    entries = []
    for method, kinds in shares.groupby("method", sort=False):
        shown = [(k["name"], k["share"], k["by"]) for k in kinds.to_dict("records") if k["share"] >= LEAST_SHARE]
        by_formula = units.percent(kinds.loc[kinds["by"] == "formula", "share"].sum())
        steps = study_notes.aggressive_text(*aggressive.loc[method]) if method in aggressive.index else ""
        entries.append(Entry(str(method), f"{study_notes.work_text(shown)}{steps}", f"By formula: {by_formula}."))
    return entries
