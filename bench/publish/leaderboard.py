"""The first page of a site: its answers, the leaderboard, and every method on every problem."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from bench.common import units
from bench.common.errors import UsageError
from bench.publish.blocks import Links, Page, Part
from bench.publish.content import Content, problem_of, slim
from bench.publish.drawing import axis_end, interval_bar
from bench.report import sentences, study_notes
from bench.report.blocks import Block, Cell, Column, Paragraph, Row, Table
from bench.report.comparison_tables import ratio_cell, verdict_counts
from bench.report.provenance import method_facts
from bench.stats.comparisons import Comparison
from bench.stats.estimates import aggregate, ranks
from bench.stats.matching import SLACK
from bench.stats.verdicts import VERDICTS
from bench.store.schema import define

_LINK = re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+|[\w./#-]+)\)")
BASELINES = 2  # the most that the leaderboard has columns for; pages of methods have all
LEADERBOARD = (
    "Oracle gap: nats below the true model at the end of a fit, the mean over problems of the median over seeds, with "
    "a 95% interval that resamples problems and seeds. Mean rank: by final test log-likelihood; 1 is the best. Against "
    "it: on how many problems the baseline is worse (▼) or better (▲) than the method of the row, equivalent (≈) or "
    f"undecided (?). To match it: the baseline's FLOPs to reach the row's final test log-likelihood less {SLACK:g} "
    "nats, over those that the row's method needs, median over problems. FLOPs and wall time: the lowest … the highest "
    "median, by problem. –: no mean, as a problem has no finished run, or no rank, as reference implementations take "
    "no part. A heading sorts."
)
MATRIX = (
    "The median over finished seeds with its 95% interval, or the range with fewer than six seeds. Marked: the best "
    "test log-likelihood among fitted methods, by differences at the same seeds. Each number leads to its problem."
)


def front(content: Content) -> Page:
    """The first page."""
    study, placed = content.study, _placed(content)
    incident = study_notes.incident(study)
    lead = sentences.overview(content.found, placed.reset_index().to_dict("records"))
    lead = lead or sentences.summary_sentences(content.found, study.runs, content.summary)
    answers: list[Block] = [Paragraph(_linked(content.note), "lead")] if content.note else []
    answers += [Paragraph(text, "lead") for text in lead]
    baselines = dict.fromkeys(each.baseline for each in content.found)
    about = {name: method_facts(content.about("methods", name))[0] for name in baselines}
    answers += [Paragraph(f"{name}: {summary}.", "") for name, summary in about.items() if summary]
    answers += [Paragraph(incident, "warning")] if incident else []
    disputed = [dataset for dataset in study.datasets if " @ " in dataset]
    if len(content.studies) > 1:
        apart = "They disagree on nothing that both have" if not disputed else "Kept apart, as they disagree"
        text = f"{len(content.studies)} studies: {units.listed(content.names)}. {apart}"
        answers.append(Paragraph(f"{text}{f': {units.listed(disputed)}' if disputed else ''}.", ""))
    links = [Links(kind.capitalize(), content.pages(kind)) for kind in content.pages_of]
    notes = [Paragraph(text) for text in study_notes.notes(study, content.summary, bool(content.paired))]
    parts = [
        Part("answers", "", answers),
        Part("leaderboard", "Leaderboard", [_leaderboard(content, placed), Paragraph(LEADERBOARD)]),
        Part("problems", "Every method on every problem", [_matrix(content, placed), Paragraph(MATRIX), *links]),
        Part("notes", "Before you use a number", notes),
    ]
    return Page("index.html", content.title, study_notes.size(study), parts)


def _linked(note: str) -> Markup:
    """A text whose '[words](address)' are links, to pages beside the site's own or on the web."""
    found = _LINK.sub(r'<a href="\2">\1</a>', str(escape(note)))
    if "](" in found:
        raise UsageError(f"--note has a link that is neither [TEXT](https://...) nor [TEXT](FILE): {note!r}")
    return Markup(found)


def _leaderboard(content: Content, placed: pd.DataFrame) -> Table:
    """A row per fitted method: the mean gap, the mean rank, the verdicts on it, and the cost to match it."""
    most = axis_end(placed["mean"].tolist(), placed["high"].tolist())
    costs = {cost: content.summary.groupby("method")[cost] for cost in ("flops", "wall_s")}
    baselines = list(dict.fromkeys(each.baseline for each in content.found))[:BASELINES]
    pairs = {(each.baseline, each.other): each for each in content.paired}
    borrowed = content.study.borrowed
    has_gap = most > 0
    columns = [Column("method", number=False)]
    columns += [Column("oracle gap", "nats, mean over problems"), Column("", "95% interval")] if has_gap else []
    columns += [Column("mean rank")]
    columns += [Column(f"{name} against it", "problems", number=False) for name in baselines]
    columns += [Column(f"{name}'s FLOPs to match it", "of its own") for name in baselines]
    columns += [Column("FLOPs", "of a fit, by problem"), Column("wall time", "of a fit, by problem"), Column("runs")]
    rows = []
    for row in placed.reset_index().to_dict("records"):
        method = str(row["method"])
        against = [pairs.get((name, method)) for name in baselines]
        cells = [Cell(study_notes.marked(method, borrowed), link=content.pages_of["methods"][method])]
        if has_gap:
            interval, whole = units.interval(row["low"], row["high"]), math.isfinite(row["mean"])
            mean = units.number(row["mean"]) if whole else units.MISSING
            cells += [
                Cell(mean, interval if whole else "not on every problem", value=row["mean"]),
                Cell(interval_bar(row["low"], row["mean"], row["high"], most)),
            ]
        rank = units.interval(row["low_rank"], row["high_rank"], 2)
        cells.append(Cell(units.number(row["rank"], 2), rank, value=row["rank"]))
        cells += [Cell(_counts(each), value=_losses(each), style="name") for each in against]
        cells += [_match(each) for each in against]
        cells += [_range(name, of.get_group(method)) for name, of in costs.items()]
        done = int(row["runs"]) - int(row["missing"])
        cells.append(Cell(f"{done}/{row['runs']}", style="" if done == row["runs"] else "short"))
        rows.append(Row([*map(slim, cells)]))
    return Table("Leaderboard", columns, rows, 0, "yes", "numbers")


def _matrix(content: Content, placed: pd.DataFrame) -> Table:
    """The median oracle gap, or test log-likelihood, of each method on each problem."""
    cells = {(row["dataset"], row["method"]): row for row in content.summary.to_dict("records")}
    columns = [Column("method", number=False)]
    datasets = sorted(content.study.datasets, key=lambda name: content.problems.index(problem_of(name)))
    columns += [Column(name, define(content.metric(name)).label) for name in datasets]
    rows = []
    others = [method for method in content.study.methods if method not in placed.index]
    for method in [*map(str, placed.index), *others]:
        shown = [Cell(method, link=content.pages_of["methods"][method])]
        for dataset in datasets:
            row = cells.get((dataset, method))
            cell = Cell(units.MISSING) if row is None else _end(content, row, content.metric(dataset))
            shown.append(slim(replace(cell, link=content.address(dataset))))
        rows.append(Row(shown, bound=method in others))
    return Table("Every method on every problem", columns, rows, 0, "yes")


def _placed(content: Content) -> pd.DataFrame:
    """The mean gap over problems with a known true model, and the mean rank, of each fitted method, best first."""
    measurements, runs = content.study.measurements, content.study.runs
    among = runs[runs["dataset"].isin(content.with_truth)] if content.with_truth else runs
    means, ranked = aggregate(measurements, among), ranks(measurements, runs)
    placed = means.merge(ranked, on="method", how="left", suffixes=("", "_rank")).set_index("method")
    return placed.sort_values(["mean", "rank"], kind="stable")


def _end(content: Content, row: Mapping[Hashable, Any], metric: str) -> Cell:
    if f"{metric}_median" not in row:
        return Cell(units.MISSING)
    cell = content.ends.metric(row, metric)
    return replace(cell, best=bool(row["best"]))


def _range(cost: str, medians: pd.Series) -> Cell:
    """The lowest and the highest of the median costs of a fit, by problem: a middle may be no problem's."""
    ends = [units.quantity(cost, float(end)) for end in (medians.min(), medians.max())]
    return Cell(" … ".join(dict.fromkeys(ends)), value=float(medians.median()))


def _counts(comparison: Comparison | None) -> str:
    """On how many problems each verdict on a method holds, losses first."""
    if comparison is None:
        return ""
    return Markup(" ").join(
        Markup(
            '<span class="chip {0}" title="{0} on {2}"><span aria-hidden="true">{1}</span>'
            '<span class="hidden">{0}</span> {2}</span>'
        ).format(word, sign, count)
        for word, sign, count in verdict_counts(comparison)
    )


def _losses(comparison: Comparison | None) -> float:
    """By which the leaderboard sorts the verdicts of a baseline: its losses, then fewer wins."""
    if comparison is None:
        return math.nan
    worse, better = (len(comparison.having(word)) for word in VERDICTS[:2])
    return worse - better / 1000


def _match(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return Cell("")
    return ratio_cell(comparison.match.flops, comparison.match.flops_interval)
