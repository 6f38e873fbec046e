"""The sections of a report, from a study's tables and figures. Templates only lay them out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pandas as pd

from bench.common import units
from bench.report import sentences
from bench.report.blocks import (
    Block,
    Cell,
    Claim,
    Claims,
    Code,
    Column,
    Entries,
    Entry,
    Figures,
    Heading,
    Legend,
    Paragraph,
    References,
    Row,
    Section,
    Table,
)
from bench.report.citations import cited
from bench.report.gallery import Picture
from bench.report.hyperparameters import settings_used
from bench.stats.comparisons import Comparison, Difference, comparisons
from bench.stats.cost_to_target import SHOWN, targets
from bench.stats.estimates import aggregate, estimates, ranks
from bench.stats.matching import Match
from bench.stats.summary import aggressive_shares, fitted, metric_names, oracle_levels, work_shares
from bench.stats.verdicts import BETTER, EQUIVALENT, UNDECIDED, VERDICTS, WORSE
from bench.store.schema import LEARNS, MAIN_METRICS, PAIR, PAIRED, RUN_COSTS, Definition, define
from bench.store.study_tables import Study

LEAST_SHARE = 1e-3
SIGNS = {WORSE: "▼", BETTER: "▲", EQUIVALENT: "≈", UNDECIDED: "?", sentences.TOO_FEW: "?"}
ALWAYS_WRITTEN = ("figures/", "report.md", "report.html")


def document(study: Study, table: pd.DataFrame, pictures: Mapping[str, Sequence[Picture]]) -> list[Section]:
    """The sections of a report.

    Args:
        study: The study.
        table: Its summary, as `bench.stats.summary.summary` returns it.
        pictures: Its figures by kind, as `bench.report.gallery.gallery` returns them.

    Returns:
        The sections that the study has something for.
    """
    found = comparisons(study.measurements, study.runs, study.baseline, study.margin)
    placed = places(study)
    metrics = metrics_of(study.measurements)
    main, others = ([m for m in metrics if (m.name in MAIN_METRICS) == wanted] for wanted in (True, False))
    paired = [each for each in found if each.differences]
    ends = Ends(study, table)
    candidates = (
        Section("answers", "", "Answers", _answers(study, table, found, placed, pictures["overview"])),
        Section("ranking", "Over all datasets", "Overall", _ranking(placed, pictures["ranking"])),
        Section("table", "Where each method ended", "Table", ends.blocks("filter-ends", main, RUN_COSTS)),
        Section("comparisons", "Method against method", "Comparisons", _comparisons(paired)),
        Section("cost", "Quality against cost", "Cost", _costs(study, pictures["curves"])),
        Section("losses", "What is lost, and where", "Losses", _figures(sentences.LOSSES, pictures["losses"])),
        Section("quality", "Quality of posteriors and samples", "", ends.blocks("filter-others", others, [])),
        Section("posteriors", "Posteriors against the true one", "Posteriors", _posteriors(pictures)),
        Section(
            "densities",
            "Learned densities",
            "Densities",
            _figures(sentences.DENSITIES, pictures["densities"], wide=False),
        ),
        Section("images", "Images", "Images", _figures(sentences.IMAGES, pictures["images"])),
        Section("work", "Where the FLOPs went", "", work(study)),
        Section("unfinished", "What did not finish", "Failures", unfinished(study)),
        Section("run", "What was run", "Run it again", run_blocks(study)),
        Section("definitions", "What is measured", "Definitions", definitions(metrics, bool(paired))),
        Section("references", "To cite", "", references(study)),
        Section("files", "Files", "", _files(study)),
    )
    return [_marked(section, study, found) for section in candidates if section.blocks]


def _marked(section: Section, study: Study, found: Sequence[Comparison]) -> Section:
    """The section with a mark on each method whose runs were borrowed, wherever a table or a title names it."""
    if not study.borrowed:
        return section
    marked = {method: f"{method} {sentences.BORROWED}" for method in study.borrowed}
    pairs = {(each.baseline, each.other) for each in found}
    marked |= {f"{a} against {b}": f"{marked.get(a, a)} against {marked.get(b, b)}" for a, b in pairs}

    def cells(table: Table, row: Row) -> list[Cell]:
        named = [column.heading in ("method", "methods") for column in table.columns]
        each = zip(row.cells, named, strict=True)
        return [replace(cell, text=marked.get(cell.text, cell.text)) if at else cell for cell, at in each]

    def changed(block: Block) -> Block:
        if isinstance(block, Table):
            return replace(block, rows=[replace(row, cells=cells(block, row)) for row in block.rows])
        if isinstance(block, Claims):
            return replace(block, claims=[replace(c, title=marked.get(c.title, c.title)) for c in block.claims])
        return block

    return replace(section, blocks=[changed(block) for block in section.blocks])


def _figures(text: str, pictures: Sequence[Picture], wide: bool = True) -> list[Block]:
    return [Paragraph(text), Figures(pictures, wide)] if pictures else []


# Answers


def _answers(
    study: Study,
    table: pd.DataFrame,
    found: list[Comparison],
    places: Sequence[Mapping[Hashable, Any]],
    overview: Sequence[Picture],
) -> list[Block]:
    many = len(found) > sentences.MANY
    lead = sentences.overview(found, places) if many else []
    incident = sentences.incident(study)
    notes = sentences.notes(study, table, any(each.differences for each in found))
    return [
        *(Paragraph(text, "lead") for text in lead),
        standings(found) if many else Claims(claims(found, study, table)),
        *([Paragraph(incident, "warning")] if incident else []),
        *([Legend()] if overview else []),
        *([Figures(overview, wide=False)] if overview else []),
        *map(Paragraph, notes),
    ]


def claims(found: Sequence[Comparison], study: Study, table: pd.DataFrame) -> list[Claim]:
    """What each comparison found, losses first."""
    if not found:
        return [Claim(text) for text in sentences.summary_sentences(found, study.runs, table)]
    return [
        Claim(
            sentences.sentence(each),
            f"{each.baseline} against {each.other}",
            " ".join(sentences.matching(each)) if each.differences else "",
            _verdicts(each),
        )
        for each in sentences.losses_first(found)
    ]


def _verdicts(comparison: Comparison) -> list[tuple[str, str, int]]:
    """Each verdict with its sign and count, losses first, too few seeds last."""
    words = Counter(sentences.verdict_of(each) for each in comparison.differences)
    return [(word, SIGNS[word], words[word]) for word in (*VERDICTS, sentences.TOO_FEW) if words[word]]


def standings(found: Sequence[Comparison]) -> Table:
    """The verdicts and the cost to match of many comparisons, a row each."""
    columns = [Column("methods", number=False), *map(Column, VERDICTS)]
    columns += [Column("FLOPs to match"), Column("FLOPs to match, methods exchanged")]
    rows = []
    for place, each in enumerate(found):
        counts = Counter(sentences.verdict_of(difference) for difference in each.differences)
        cells = [Cell(f"{each.baseline} against {each.other}"), *(Cell(str(counts[word])) for word in VERDICTS)]
        cells += [ratio_cell(cost.flops, cost.flops_interval) for cost in (each.match, each.back)]
        rows.append(Row(cells, first=place == 0 or each.baseline != found[place - 1].baseline))
    return Table("Verdicts over datasets", columns, rows, 0, layout="numbers compact")


def ratio_cell(middle: float, interval: tuple[float, float]) -> Cell:
    """A ratio of costs with its interval; 'never' for infinity."""
    below = "" if math.isnan(interval[0]) else f"[{', '.join(map(units.ratio, interval))}]"
    return Cell(units.ratio(middle), below, value=middle)


# Tables of numbers


def places(study: Study) -> list[dict[Hashable, Any]]:
    """The mean gap and the rank of each fitted method, the smallest gap first."""
    ranked = ranks(study.measurements, study.runs).drop(columns="missing")
    means = aggregate(study.measurements, study.runs).sort_values("mean", kind="stable")
    return means.merge(ranked, on="method", how="left", suffixes=("_mean", "_rank")).to_dict("records")


def _ranking(places: Sequence[Mapping[Hashable, Any]], pictures: Sequence[Picture]) -> list[Block]:
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
    return [Paragraph(sentences.RANKING), Figures(pictures, captioned=False), table]


class Ends:
    """Tables of where each method ended, by metrics and costs."""

    def __init__(self, study: Study, table: pd.DataFrame):
        self.study, self.summary = study, table
        found = estimates(study.measurements, study.runs, tuple(metric_names(study.measurements)))
        ends = found[["median_low", "median_high"]].to_numpy().tolist()
        self.intervals = dict(zip(map(tuple, found[[*PAIR, "metric"]].to_numpy().tolist()), ends, strict=True))

    def blocks(self, filters: str, metrics: Sequence[Definition], costs: Sequence[Definition]) -> list[Block]:
        """A table of metrics and costs, with what is said above and below it; nothing if there are no metrics."""
        if not metrics and not costs:
            return []
        label = "Where each method ended" if costs else "Quality of posteriors and samples"
        table = self.table(label, filters, metrics, costs)
        if not costs:
            return [Paragraph(sentences.OTHERS), table]
        levels = oracle_levels(self.study.measurements, self.study.runs)
        known = {dataset: levels[dataset] for dataset in self.study.datasets if dataset in levels}
        texts = [Paragraph(sentences.TABLE), Paragraph(sentences.INTERACTION, page_only=True)]
        return [*texts, table, *([Paragraph(sentences.true_levels(known))] if known else [])]

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
        return Row(cells, dataset, method, first=first, reference=row["role"] not in LEARNS)

    def metric(self, row: Mapping[Hashable, Any], name: str) -> Cell:
        """The cell of a metric in a row of the summary: the median over its interval; for too few seeds the range."""
        pair, median = (row["dataset"], row["method"]), row[f"{name}_median"]
        text, below = units.number(median), ""
        if row["seeds_done"] > 1 and text != units.MISSING:
            low, high = self.intervals.get((*pair, name), (math.nan, math.nan))
            below = units.interval(low, high) or units.spread(row[f"{name}_low"], row[f"{name}_high"])
        best = bool(row["best"]) and name == "test_ll"
        return Cell(text, below, (*map(str, pair), name), median, best)


def _comparisons(found: Sequence[Comparison]) -> list[Block]:
    if not found:
        return []
    title = "Costs to match, over datasets"
    both = Heading(title, "matches"), Paragraph(sentences.MATCHES)
    return [Paragraph(sentences.COMPARISONS), differences_table(found), *both, matches_table(found)]


def differences_table(found: Sequence[Comparison]) -> Table:
    """The differences of comparisons on each dataset, with their verdicts and the cost to match."""
    columns = (
        Column("methods", number=False),
        Column("dataset", number=False),
        Column("difference", "nats"),
        Column("verdict", number=False),
        *map(
            Column,
            (
                *("seeds", "wall time", "FLOPs", "wall time to match", "FLOPs to match", "seeds that reach it"),
                *("FLOPs to match back", "seeds that reach it back"),
            ),
        ),
    )
    rows = [
        _difference(comparison, difference, first=place == 0)
        for comparison in found
        for place, difference in enumerate(comparison.differences)
    ]
    return Table("Method against method", columns, rows, 0, "filter-margins")


def _difference(comparison: Comparison, difference: Difference, first: bool) -> Row:
    match, back, verdict = difference.match, difference.back, sentences.verdict_of(difference)
    texts = (
        ("wall_s", units.ratio(difference.wall)),
        ("flops", units.ratio(difference.flops)),
        ("match", units.ratio(match.wall)),
        ("match", units.ratio(match.flops)),
        ("match", f"{match.reached}/{len(match.seeds)}"),
    )

    def address(name: str) -> tuple[str, ...]:
        return difference.dataset, comparison.baseline, name, comparison.other

    seeds = f"about {sentences.needed(difference)} seeds" if verdict == UNDECIDED else ""
    cells = (
        Cell(f"{comparison.baseline} against {comparison.other}"),
        Cell(difference.dataset),
        Cell(units.with_interval(difference.nats, difference.interval), rows=address("test_ll")),
        Cell(verdict, seeds, style=f"verdict {verdict}"),
        Cell(str(difference.seeds)),
        *(Cell(text, rows=address(name)) for name, text in texts),
        Cell(units.ratio(back.flops)),
        Cell(f"{back.reached}/{len(back.seeds)}"),
    )
    return Row(cells, difference.dataset, comparison.other, _by_seed(match), first)


def matches_table(found: Sequence[Comparison]) -> Table:
    """The costs to match over datasets, of every comparison and target."""
    columns = [
        Column("methods", number=False),
        Column("target", number=False),
        *map(Column, ("FLOPs", "wall time", "share")),
        Column("missed on", number=False),
        Column("left out", number=False),
    ]
    rows = []
    for comparison in found:
        targets = [("the other's end", comparison.match), ("exchanged", comparison.back)]
        targets += [(f"within {distance:g} nats of the truth", cost) for distance, cost in comparison.near]
        for place, (target, cost) in enumerate(targets):
            cells = (
                Cell(f"{comparison.baseline} against {comparison.other}"),
                Cell(target),
                ratio_cell(cost.flops, cost.flops_interval),
                ratio_cell(cost.wall, cost.wall_interval),
                Cell(units.percent(cost.passage) if math.isfinite(cost.passage) else units.MISSING),
                Cell(", ".join(cost.missed) or "none"),
                Cell(", ".join(cost.neither) or "none"),
            )
            rows.append(Row(cells, first=place == 0))
    return Table("Costs to match, over datasets", columns, rows, 0, layout="numbers")


def _by_seed(match: Match) -> str:
    """[[seed, ratio of wall times, of FLOPs], ...] as JSON; null is a seed that does not reach the target."""
    each = zip(match.seeds, match.wall_ratios, match.flops_ratios, strict=True)
    return json.dumps([[seed, *(float(f"{v:.8g}") if math.isfinite(v) else None for v in of)] for seed, *of in each])


# Costs


def _costs(study: Study, curves: Sequence[Picture]) -> list[Block]:
    blocks: list[Block] = [Paragraph(sentences.CURVES), Figures(curves, captioned=False)]
    table = targets_table(study)
    if table.rows:
        blocks += [Heading(table.label, "targets"), Paragraph(sentences.TARGETS), table]
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


def work(study: Study) -> list[Block]:
    """The kinds of work of each fitted method, with the share charged by formula and that of aggressive steps."""
    rows = study.work[study.work["method"].isin(fitted(study.runs))]
    shares, aggressive = work_shares(rows), aggressive_shares(rows)
    entries = []
    for method, kinds in shares.groupby("method", sort=False):
        shown = [(k["name"], k["share"], k["by"]) for k in kinds.to_dict("records") if k["share"] >= LEAST_SHARE]
        by_formula = units.percent(kinds.loc[kinds["by"] == "formula", "share"].sum())
        steps = sentences.aggressive_text(*aggressive.loc[method]) if method in aggressive.index else ""
        entries.append(Entry(str(method), f"{sentences.work_text(shown)}{steps}", f"By formula: {by_formula}."))
    headings = ("method", "kinds of work", "share by formula")
    return [Paragraph(sentences.WORK), Entries(entries, headings)] if entries else []


# Posteriors


def _posteriors(pictures: Mapping[str, Sequence[Picture]]) -> list[Block]:
    signals = _figures(sentences.SIGNALS, pictures["signal_posteriors"])
    heading = [Heading("The signal behind x", "signals")] if signals else []
    return [*_figures(sentences.INDEX_POSTERIORS, pictures["index_posteriors"]), *heading, *signals]


# What was run


def unfinished(study: Study) -> list[Block]:
    """The runs that did not finish, with their reasons."""
    if study.unfinished.empty:
        return [Paragraph(sentences.ALL_FINISHED, "")]
    names = ("dataset", "method", "seed", "status")
    rows = [
        Row(
            [
                *(Cell(str(row[name])) for name in names),
                Cell(str(row["message"] or sentences.NO_REASON), style="reason"),
            ],
            str(row["dataset"]),
            str(row["method"]),
        )
        for row in study.unfinished.fillna({"message": ""}).to_dict("records")
    ]
    return [
        Table(
            "What did not finish",
            [Column(name, number=name == "seed") for name in (*names, "reason")],
            rows,
            -1,
            layout="",
        )
    ]


def run_blocks(study: Study) -> list[Block]:
    """The command, settings, provenance, datasets, methods and hyperparameters of a study."""
    command = str(study.info.get("command") or "")
    settings = stated(study.section("settings"))
    sections = (
        ("Datasets", [Entry(name, *dataset_facts(about)) for name, about in study.section("datasets").items()]),
        ("Methods", [Entry(name, *method_facts(about)) for name, about in study.section("methods").items()]),
        ("Hyperparameters", [Entry(name, text) for name, text in settings_used(study.info)]),
    )
    blocks: list[Block] = [Paragraph(sentences.RUN_AGAIN, ""), Code(command)] if command else []
    if settings:
        blocks += [Heading("Settings"), Entries(settings)]
    blocks += [Heading("Provenance"), Code(_provenance(study))]
    if study.sources:
        entries = [_source(each) for each in study.sources]
        blocks += [Heading("Joined from"), Entries(entries, ("study", "where it is from", "commit"))]
    for title, entries in sections:
        headings = ["name", "what it is", *(["source"] if any(each.source for each in entries) else [])]
        blocks += [Heading(title), Entries(entries, headings)] if entries else []
    return blocks


def _source(each: Mapping[str, Any]) -> Entry:
    provenance = each.get("provenance") or {}
    text = ", ".join(filter(None, (str(each.get("folder") or ""), str(each.get("command") or ""))))
    commit, finished = provenance.get("commit") or "unknown", provenance.get("finished") or "unfinished"
    return Entry(str(each.get("name") or units.MISSING), text, f"commit {commit}, {finished}")


def stated(section: Mapping[str, Any]) -> list[Entry]:
    """The settings of a study, or its provenance, in words."""
    return [Entry(key.replace("_", " "), _plain(value)) for key, value in section.items()]


def _provenance(study: Study) -> str:
    """The provenance as lines that can be copied, with the seeds."""
    seeds = ", ".join(str(seed) for seed in sorted(study.runs["seed"].unique()))
    return "\n".join(
        f"{each.name}: {each.text}" for each in [*stated(study.section("provenance")), Entry("seeds", seeds)]
    )


def method_facts(about: Mapping[str, Any]) -> tuple[str, str]:
    """What a method is, and its source."""
    return str(about.get("summary") or ""), str(about.get("source") or "")


def dataset_facts(about: Mapping[str, Any]) -> tuple[str, str]:
    """What a dataset is, with its dimensions and noise variance, and its source."""
    texts = {
        "latent_dim": "latent dimension {}",
        "data_dim": "data dimension {}",
        "noise_variance": "noise variance {}",
    }
    facts = [text.format(_short(about[key])) for key, text in texts.items() if about.get(key) is not None]
    if about.get("expected_log_prob"):
        value, error = about["expected_log_prob"]
        facts.append(f"E log p = {units.number(value)} ± {units.number(error)} nats")
    return "; ".join(filter(None, (about.get("summary"), ", ".join(facts)))), str(about.get("source") or "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# Definitions, references, files


def metrics_of(measurements: pd.DataFrame) -> list[Definition]:
    """The definitions of the metrics that were measured, in the order of the schema."""
    stated = dict(zip(measurements["metric"], measurements["unit"], strict=True))
    return [define(name, str(stated.get(name, ""))) for name in metric_names(measurements)]


def definitions(metrics: Sequence[Definition], paired: bool) -> list[Block]:
    """What each metric and cost of a report is."""
    entries = [
        Entry(d.label, f"{d.meaning}{f'; {d.better} is better' if d.better else ''}.", d.source, d.unit)
        for d in (*metrics, *(PAIRED if paired else ()), *RUN_COSTS)
    ]
    return [Entries(entries, ("quantity", "meaning", "source", "unit"))]


def references(study: Study) -> list[Block]:
    """The papers to cite."""
    entries = [(each.text, units.listed(list(each.cited_for))) for each in cited(study)]
    return [References(entries)] if entries else []


def _files(study: Study) -> list[Block]:
    entries = [
        Entry(name, text)
        for name, text in sentences.FILES.items()
        if name in ALWAYS_WRITTEN or (study.folder / name).exists()
    ]
    return [Entries(entries, ("file", "content"))]
