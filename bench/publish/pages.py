"""The pages of a site: views of the tables and sentences of the report, by method, by problem and by question."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from bench.common import units
from bench.publish.blocks import Curves, Explorer, Links, Page, Part, numbered
from bench.publish.drawing import drawings, interval_bar, swatch
from bench.report import document, sentences
from bench.report.blocks import Block, Cell, Claims, Column, Entries, Entry, Paragraph, Row, Table
from bench.report.combine import kept_apart, names
from bench.report.figures.palette import styles
from bench.report.gallery import stems
from bench.stats.comparisons import Comparison, comparisons
from bench.stats.estimates import aggregate, ranks
from bench.stats.summary import finished, oracle_levels, summary
from bench.stats.verdicts import VERDICTS, WORSE
from bench.store.join import conflicts, parameters
from bench.store.schema import LEARNS, MAIN_METRICS, PAIR, RUN, RUN_COSTS, define
from bench.store.study_tables import Study

BASELINES = 2  # the most that the leaderboard has columns for; pages of methods have all
BRIEF = ("methods", "dataset", "difference", "verdict", "FLOPs", "FLOPs to match", "seeds that reach it")
AT_FIRST = ("study", "dataset", "method", "seeds", "test log-likelihood", "oracle gap", "ELBO", "wall time", "FLOPs",
            "decoder passes")  # fmt: skip

LEADERBOARD = (
    "Oracle gap: nats below the true model at the end of a fit, the mean over problems of the median over seeds, with "
    "a 95% interval that resamples problems and seeds. Mean rank: by final test log-likelihood; 1 is the best. Against "
    "it: on how many problems the baseline is worse (▼) or better (▲) than the method of the row, equivalent (≈) or "
    "undecided (?). To match it: the baseline's FLOPs to reach the row's final test log-likelihood less 0.01 nats, "
    "over those that the row's method needs, median over problems. –: no mean, as a problem has no finished run, or "
    "no rank, as reference implementations take no part. A heading sorts."
)
MATRIX = (
    "The median over finished seeds with its 95% interval, or the range with fewer than six seeds. Marked: the best "
    "test log-likelihood among fitted methods, by differences at the same seeds. Each number leads to its problem."
)
CURVES = (
    "Lines: the median over seeds of the value at the last checkpoint within each cost. A line begins where every seed "
    "has a checkpoint; its marker is where the last seed ended. The band, or with more than six methods the bar at the "
    "marker, shows the lowest and the highest seed. Oracle gaps at or below 0.001 nats are drawn at the edge."
)
DIFFERENCES = (
    "Difference: the median over shared seeds of the first method's final test log-likelihood minus the second's, with "
    "its 95% interval. FLOPs: the first method's total, over the second's. To match: the first method's cost to reach "
    "the second's final test log-likelihood less 0.01 nats, over the second's cost to reach it."
)
EXPLORER = "Sort, filter and choose columns; the address of the page keeps the view, so that it can be shared"
CEILING = "A ceiling: it is told what no method knows, and shows what could be reached."
FLOOR = "A floor: it learns nothing, and shows where methods start."
APART = (
    "Runs were not made alike, so these datasets stand once for each group of studies that agrees. No comparison spans "
    "two groups."
)
ALIKE = "Nothing: the studies agree on each dataset that both have, and a run that several hold is taken once."


def problem_of(dataset: str) -> str:
    """'circle' of 'circle @ one study': what has a page of its own."""
    return dataset.partition(" @ ")[0]


class Site:
    """All pages of a site.

    Args:
        studies: The studies, in order of precedence.
        study: Their union, as `bench.report.combine.combined` returns it; of one study, the study itself.
    """

    def __init__(self, studies: Sequence[Study], study: Study):
        self.studies, self.study = list(studies), study
        self.names = names(self.studies)
        self.title = study.name if len(self.studies) == 1 else units.listed(self.names)
        self.found = comparisons(study.measurements, study.runs, study.baseline, study.margin)
        self.paired = [each for each in self.found if each.differences]
        self.summary = summary(study.measurements, study.runs)
        self.ends = document.Ends(study, self.summary)
        self.known = styles(study.roles, study.colour_groups)
        self.problems = list(dict.fromkeys(map(problem_of, study.datasets)))
        self.pages_of = {
            kind: {name: f"{kind}/{stem}.html" for name, stem in stems(each).items()}
            for kind, each in (("methods", study.methods), ("problems", self.problems))
        }

    def pages(self) -> Iterator[Page]:
        """Each page, the first one last, so that what it links to is there."""
        return map(numbered, self._pages())

    def _pages(self) -> Iterator[Page]:
        yield from map(self._method, self.study.methods)
        yield from map(self._problem, self.problems)
        yield self._costs()
        yield self._explorer()
        yield self._failures()
        yield self._studies()
        yield self._definitions()
        yield self._front()

    # The tables of the report, of which the pages show parts

    @cached_property
    def metrics(self) -> tuple[list[Any], list[Any]]:
        """The definitions of the main metrics, and of the others."""
        every = document.metrics_of(self.study.measurements)
        return [m for m in every if m.name in MAIN_METRICS], [m for m in every if m.name not in MAIN_METRICS]

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Where methods ended by the measures that a page has room for, and the costs to come near the true model."""
        main = [metric for metric in self.metrics[0] if metric.label in AT_FIRST]
        costs = [cost for cost in RUN_COSTS if cost.label in AT_FIRST]
        return {
            "ends": self._prepared(self.ends.table("Where each method ended", "yes", main, costs)),
            "targets": self._prepared(document.targets_table(self.study)),
        }

    @cached_property
    def origins(self) -> dict[tuple[str, str], str]:
        """The names of the studies that the runs of each dataset and method come from."""
        taken: set[tuple[Any, ...]] = set()
        found: dict[tuple[str, str], list[str]] = {}
        for name, study in zip(self.names, kept_apart(self.studies), strict=True):
            for dataset, method, seed in study.runs[RUN].itertuples(index=False):
                if (dataset, method, seed) not in taken:
                    found.setdefault((str(dataset), str(method)), []).append(name)
            taken.update(study.runs[RUN].itertuples(index=False, name=None))
        return {pair: ", ".join(dict.fromkeys(each)) for pair, each in found.items()}

    def _prepared(self, table: Table, meanings: bool = False) -> Table:
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
            cells = [_slim(cell) if column.number else self._named(cell) for column, cell in pairs]
            if several:
                cells.insert(len(PAIR), Cell(self.origins.get((row.dataset, row.method), ""), style="name"))
            rows.append(replace(row, cells=cells, match=""))
        if several:
            columns.insert(len(PAIR), Column("study", number=False))
        return replace(table, columns=columns, rows=rows)

    def _named(self, cell: Cell) -> Cell:
        """A cell of text, with a link if it is the name of a method or dataset."""
        return replace(cell, link=self._address(cell.text), rows=(), style=f"name {cell.style}".strip())

    def _address(self, name: str) -> str:
        """The page of a method or dataset; empty if it is neither."""
        return self.pages_of["methods"].get(name) or self.pages_of["problems"].get(problem_of(name), "")

    def _of(self, name: str, table: str, kind: str) -> list[Table]:
        """The rows of a method or a dataset, without the column that names it, if there are any."""
        whole = self.tables[table]
        rows = [row for row in whole.rows if getattr(row, kind) == name]
        if kind == "dataset":
            places = {method: place for place, method in enumerate(self._order(name))}
            rows.sort(key=lambda row: places[row.method])
        if not rows or not any(column.number for column in whole.columns[3:]):
            return []
        place = [column.heading for column in whole.columns].index(kind)
        cut = [replace(row, cells=[*row.cells[:place], *row.cells[place + 1 :]], first=False) for row in rows]
        cut = [replace(row, dataset="") if kind == "dataset" else replace(row, method="") for row in cut]
        columns = [column for k, column in enumerate(whole.columns) if k != place]
        known = [k for k in range(len(columns)) if any(row.cells[k].text != units.MISSING for row in cut)]
        cut = [replace(row, cells=[row.cells[k] for k in known]) for row in cut]
        return [replace(whole, columns=[columns[k] for k in known], rows=cut, head=0)]

    # The first page

    def _front(self) -> Page:
        study, incident = self.study, sentences.incident(self.study)
        lead = sentences.overview(self.found, [])
        lead = lead or sentences.summary_sentences(self.found, study.runs, self.summary)
        answers: list[Block] = [Paragraph(text, "lead") for text in lead]
        answers += [Paragraph(incident, "warning")] if incident else []
        disputed = [dataset for dataset in study.datasets if " @ " in dataset]
        if len(self.studies) > 1:
            apart = "They disagree on nothing that both have" if not disputed else "Kept apart, as they disagree"
            text = f"{len(self.studies)} studies: {units.listed(self.names)}. {apart}"
            answers.append(Paragraph(f"{text}{f': {units.listed(disputed)}' if disputed else ''}.", ""))
        matrix = [Links(kind.capitalize(), list(pages.items())) for kind, pages in self.pages_of.items()]
        notes = [Paragraph(text) for text in sentences.notes(study, self.summary, bool(self.paired))]
        parts = [
            Part("answers", "", answers),
            Part("leaderboard", "Leaderboard", [self._leaderboard(), Paragraph(LEADERBOARD)]),
            Part("problems", "Every method on every problem", [self._matrix(), Paragraph(MATRIX), *matrix]),
            Part("notes", "Before you use a number", notes),
        ]
        return Page("index.html", self.title, sentences.size(study), [part for part in parts if part.blocks])

    @cached_property
    def _with_truth(self) -> pd.DataFrame:
        """The runs on datasets whose true model is known; all runs if it is known nowhere."""
        rows = self.study.measurements
        known = rows.loc[rows["metric"] == "oracle_gap", "dataset"].unique()
        runs = self.study.runs
        return runs[runs["dataset"].isin(known)] if len(known) else runs

    @cached_property
    def _placed(self) -> pd.DataFrame:
        """The mean gap over problems with a known true model, and the mean rank, of each fitted method, best first."""
        means = aggregate(self.study.measurements, self._with_truth)
        ranked = ranks(self.study.measurements, self.study.runs)
        placed = means.merge(ranked, on="method", how="left", suffixes=("", "_rank")).set_index("method")
        return placed.sort_values(["mean", "rank"], kind="stable")

    def _leaderboard(self) -> Table:
        """A row per fitted method: the mean gap, the mean rank, the verdicts on it, and the cost to match it."""
        placed = self._placed
        finite = placed[["mean", "high"]].to_numpy(dtype=float)
        most = max(finite[pd.notna(finite) & (abs(finite) < math.inf)].tolist(), default=0.0)
        middles = {cost: self.summary.groupby("method")[cost].median().to_dict() for cost in ("flops", "wall_s")}
        baselines = list(dict.fromkeys(each.baseline for each in self.found))[:BASELINES]
        pairs = {(each.baseline, each.other): each for each in self.paired}
        has_gap = most > 0
        columns = [Column("method", number=False)]
        columns += [Column("oracle gap", "nats, mean over problems"), Column("", "95% interval")] if has_gap else []
        columns += [Column("mean rank")]
        columns += [Column(f"{name} against it", "problems", number=False) for name in baselines]
        columns += [Column(f"{name}'s FLOPs to match it", "of its own") for name in baselines]
        columns += [Column("FLOPs", "of a fit, median"), Column("wall time", "of a fit, median"), Column("runs")]
        rows = []
        for row in placed.reset_index().to_dict("records"):
            method = str(row["method"])
            against = [pairs.get((name, method)) for name in baselines]
            cells = [Cell(method, link=self.pages_of["methods"][method])]
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
            cells += [
                Cell(units.quantity(name, float(of[method])), value=float(of[method])) for name, of in middles.items()
            ]
            done = int(row["runs"]) - int(row["missing"])
            cells.append(Cell(f"{done}/{row['runs']}", style="" if done == row["runs"] else "short"))
            rows.append(Row([*map(_slim, cells)]))
        return Table("Leaderboard", columns, rows, 0, "yes", "numbers")

    def _matrix(self) -> Table:
        """The median oracle gap, or test log-likelihood, of each method on each problem."""
        cells = {(row["dataset"], row["method"]): row for row in self.summary.to_dict("records")}
        columns = [Column("method", number=False)]
        datasets = sorted(self.study.datasets, key=lambda name: self.problems.index(problem_of(name)))
        columns += [Column(name, define(self._metric(name)).label) for name in datasets]
        rows = []
        others = [method for method in self.study.methods if method not in self._placed.index]
        for method in [*map(str, self._placed.index), *others]:
            shown = [Cell(method, link=self.pages_of["methods"][method])]
            for dataset in datasets:
                row = cells.get((dataset, method))
                cell = Cell(units.MISSING) if row is None else self._end(row, self._metric(dataset))
                shown.append(_slim(replace(cell, link=self._address(dataset))))
            rows.append(Row(shown, reference=method in others))
        return Table("Every method on every problem", columns, rows, 0, "yes")

    @property
    def _has_truth(self) -> bool:
        return bool((self.study.measurements["metric"] == "oracle_gap").any())

    def _end(self, row: Mapping[Hashable, Any], metric: str) -> Cell:
        if f"{metric}_median" not in row:
            return Cell(units.MISSING)
        cell = self.ends.metric(row, metric)
        return replace(cell, best=bool(row["best"]))

    # A page for each method, and for each problem

    def _method(self, method: str) -> Page:
        own = [each for each in self.paired if method in (each.baseline, each.other)]
        about = self._about("methods", method)
        lead: list[Block] = []
        if len(own) > sentences.MANY:
            losses_first = sorted(own, key=lambda each: -len(each.having(WORSE)))
            lead = [
                *(Paragraph(text, "lead") for text in sentences.overview(own, [])),
                document.standings(losses_first),
            ]
        elif own:
            lead = [Claims(document.claims(own, self.study, self.summary))]
        told = {"floor": FLOOR, "ceiling": CEILING}.get(self.study.roles[method], "")
        lead += [Paragraph(told, "")] if told else []

        def keep(row: Row) -> bool:
            return row.method == method

        query = f"method={quote(method, safe='')}"
        curves = [
            (name, f"{path}#methods={quote(method, safe='')}") for name, path in self.pages_of["problems"].items()
        ]
        parts = [
            Part("answers", "", lead),
            Part("problems", "On each problem", [*self._of(method, "ends", "method"), Links("Its curves", curves)]),
            Part("settings", "Hyperparameters", self._hyperparameters(method)),
            Part("work", "Where the FLOPs went", self._work(method)),
            Part("unfinished", "What did not finish", self._unfinished(keep)),
            Part("more", "More", [self._views(query), Links("Methods", list(self.pages_of["methods"].items()))]),
        ]
        return Page(self.pages_of["methods"][method], method, about, [part for part in parts if part.blocks])

    def _problem(self, problem: str) -> Page:
        datasets = [name for name in self.study.datasets if problem_of(name) == problem]
        apart = [Paragraph(f"{text}.", "") for text, among in self.disagreements.items() if problem in among]
        parts = [Part("apart", "What differs between the studies", apart)]
        for place, dataset in enumerate(datasets):
            parts += self._dataset(dataset, f"{place}-" if place else "", dataset if len(datasets) > 1 else "")
        query = f"text={quote(problem, safe='')}" if len(datasets) > 1 else f"dataset={quote(problem, safe='')}"
        problems = list(self.pages_of["problems"].items())
        parts.append(Part("more", "More", [self._views(query), Links("Problems", problems)]))
        about = self._about("datasets", datasets[0])
        return Page(self.pages_of["problems"][problem], problem, about, [part for part in parts if part.blocks])

    def _dataset(self, dataset: str, prefix: str, title: str) -> list[Part]:
        """The sections of a dataset: its answers, curves and tables."""
        own = [
            replace(each, differences=tuple(found), missing=())
            for each in self.paired
            if (found := [difference for difference in each.differences if difference.dataset == dataset])
        ]
        lead = [Paragraph(text, "lead") for text in sentences.overview(own, [])] if own else []

        def keep(row: Row) -> bool:
            return row.dataset == dataset

        suffix = f", {title}" if title else ""
        curves = self._curves(dataset, f"{prefix}cost")
        ends = self._of(dataset, "ends", "dataset")
        return [
            Part(f"{prefix}answers", title, [*lead, *ends, Paragraph(sentences.TABLE)]),
            Part(f"{prefix}curves", f"Quality against cost{suffix}", [curves, Paragraph(CURVES)] if curves else []),
            Part(
                f"{prefix}comparisons",
                f"Method against method{suffix}",
                [self._differences(own), Paragraph(DIFFERENCES)] if own else [],
            ),
            Part(f"{prefix}unfinished", f"What did not finish{suffix}", self._unfinished(keep)),
        ]

    def _views(self, query: str) -> Links:
        """Views of the explorer."""
        links = [("all measures", f"explore.html#table=results&{query}")]
        if self.paired:
            links.append(("comparisons", f"explore.html#table=comparisons&{query}"))
        if self.tables["targets"].rows:
            links.append(("cost to come near the true model", f"explore.html#table=near&{query}"))
        return Links("In the explorer", links)

    def _about(self, section: str, name: str) -> str:
        about = self.study.section(section).get(name) or self.study.section(section).get(name.partition("[")[0]) or {}
        text, source = document.dataset_facts(about) if section == "datasets" else document.method_facts(about)
        return ". ".join(filter(None, (text, source)))

    def _metric(self, dataset: str) -> str:
        """What the methods of a dataset are ordered by: the oracle gap, or without a true model test_ll."""
        return "oracle_gap" if self._has_truth and dataset in set(self._with_truth["dataset"]) else "test_ll"

    def _order(self, dataset: str) -> list[str]:
        """The methods of a dataset by their final median, the best first; ceilings and floors last."""
        metric = self._metric(dataset)
        rows = self.summary[self.summary["dataset"] == dataset].reindex(columns=["method", "role", f"{metric}_median"])
        keys = [
            (role not in LEARNS, math.inf if math.isnan(value) else value if metric == "oracle_gap" else -value, method)
            for method, role, value in rows.itertuples(index=False)
        ]
        return [str(method) for *_, method in sorted(keys)]

    @cached_property
    def _measured(self) -> tuple[pd.DataFrame, dict[str, float]]:
        """The measurements of finished runs, and the true model's test_ll."""
        tables = self.study.measurements, self.study.runs
        return finished(*tables), oracle_levels(*tables)

    def _curves(self, dataset: str, name: str) -> Curves | None:
        rows, levels = self._measured
        drawn = drawings(rows[rows["dataset"] == dataset], self.known, levels.get(dataset), dataset)
        if not drawn:
            return None
        metric, own = self._metric(dataset), self.summary[self.summary["dataset"] == dataset]
        ends = own[own["role"].isin(LEARNS)].set_index("method")[f"{metric}_median"]
        legend = [
            (method, self.known[method].mark, swatch(self.known[method]), units.number(ends[method]))
            for method in self._order(dataset)
            if method in ends.index
        ]
        return Curves(name, drawn, legend)

    def _differences(self, found: Sequence[Comparison]) -> Table:
        """The differences of comparisons by the columns that a page has room for; the explorer has all."""
        table = self._prepared(document.differences_table(found))
        one = len({row.dataset for row in table.rows}) == 1
        places = [
            place for place, column in enumerate(table.columns) if column.heading in BRIEF and not (one and place == 1)
        ]
        rows = [
            replace(
                row,
                cells=[row.cells[k] for k in places],
                dataset="" if one else row.dataset,
                first=not one and row.first,
            )
            for row in table.rows
        ]
        return replace(table, columns=[table.columns[place] for place in places], rows=rows)

    def _hyperparameters(self, method: str) -> list[Block]:
        """The hyperparameters of the finished runs; problems are named where they differ."""
        runs = self.study.runs[self.study.runs["method"] == method]
        groups: dict[str, list[str]] = {}
        for dataset, each in runs.groupby("dataset", sort=False):
            for text in parameters(each).values():
                shown = re.sub(r"\d+\.\d{10,}", lambda found: f"{float(found[0]):.10g}", text)
                groups.setdefault(shown, []).append(str(dataset))
        if not groups:
            return []
        everywhere = len(groups) == 1
        entries = [Entry("everywhere" if everywhere else ", ".join(on), text) for text, on in groups.items()]
        return [Entries(entries)]

    @cached_property
    def _kinds_of_work(self) -> list[Entry]:
        return [entry for each in document.work(self.study) if isinstance(each, Entries) for entry in each.entries]

    def _work(self, method: str) -> list[Block]:
        own = [Entry(entry.source, entry.text) for entry in self._kinds_of_work if entry.name == method]
        return [Entries(own)] if own else []

    @cached_property
    def _failed(self) -> list[Table]:
        return [self._prepared(each) for each in document.unfinished(self.study) if isinstance(each, Table)]

    def _unfinished(self, keep: Callable[[Row], bool]) -> list[Block]:
        kept = [replace(table, rows=[row for row in table.rows if keep(row)]) for table in self._failed]
        return [table for table in kept if table.rows]

    # Costs, tables, failures, studies, definitions

    def _costs(self) -> Page:
        matches = replace(document.matches_table(self.paired), filters="yes")
        near = self.tables["targets"]
        curves = [(name, f"{path}#curves") for name, path in self.pages_of["problems"].items()]
        to_match: list[Block] = [self._prepared(matches), Paragraph(sentences.MATCHES)] if self.paired else []
        views = [("dataset by dataset", "explore.html#table=near")]
        to_near: list[Block | Links] = (
            [Paragraph(sentences.TARGETS), Links("In the explorer", views)] if near.rows else []
        )
        parts = [
            Part("matches", "Costs to match another method", to_match),
            Part("near", near.label, to_near),
            Part("curves", "Quality against each cost", [Paragraph(CURVES), Links("Curves of each problem", curves)]),
        ]
        about = "What it costs to be as good as another method, or as the true model"
        return Page("costs.html", "Costs", about, [part for part in parts if part.blocks])

    def _explorer(self) -> Page:
        main, others = self.metrics
        ends = self._prepared(self.ends.table("Results", "", [*main, *others], RUN_COSTS), meanings=True)
        tables = {"results": ends}
        if self.paired:
            tables["comparisons"] = self._prepared(document.differences_table(self.paired))
        if self.tables["targets"].rows:
            tables["near"] = self.tables["targets"]
        hidden = [column.heading for column in ends.columns if column.heading not in AT_FIRST]
        links = {name: self._address(name) for name in (*self.study.methods, *self.study.datasets)}
        parts = [Part("tables", "", [Explorer(tables, hidden, links)])]
        return Page("explore.html", "Table explorer", EXPLORER, parts)

    def _failures(self) -> Page:
        incident = sentences.incident(self.study)
        blocks: list[Block] = [Paragraph(incident, "lead")] if incident else []
        blocks += document.unfinished(self.study) if not incident else self._unfinished(lambda _: True)
        about = "Runs that failed, were skipped or ended early, with their reasons"
        return Page("failures.html", "Failures", about, [Part("answers", "", blocks)])

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

    def _studies(self) -> Page:
        parts = []
        if len(self.studies) > 1:
            parts.append(Part("differences", "What differs between their settings", self._differing()))
            entries = [Entry(", ".join(on), f"{text}.") for text, on in self.disagreements.items()]
            told: list[Block] = [Paragraph(APART), Entries(entries)] if entries else [Paragraph(ALIKE, "")]
            parts.append(Part("disagreements", "Where results were kept apart", told))
        for place, (name, study) in enumerate(zip(self.names, self.studies, strict=True)):
            blocks = [Paragraph(sentences.size(study)), *document.run_blocks(study)]
            parts.append(Part(f"study-{place}", name, blocks))
        return Page("studies.html", "Studies and provenance", "Who ran what, with which code, on which machine", parts)

    def _differing(self) -> list[Block]:
        """The settings and the provenance that differ, a column for each study."""
        of_each = [
            {each.name: each.text for key in ("settings", "provenance") for each in document.stated(study.section(key))}
            for study in self.studies
        ]
        rows = [
            Row([Cell(key), *(Cell(each.get(key, units.MISSING), style="name") for each in of_each)])
            for key in dict.fromkeys(key for each in of_each for key in each)
            if len({each.get(key) for each in of_each}) > 1
        ]
        columns = [Column("setting", number=False), *(Column(name, number=False) for name in self.names)]
        if not rows:
            return [Paragraph("All settings are the same.", "")]
        return [Table("What differs between the studies", columns, rows, 0, layout="")]

    def _definitions(self) -> Page:
        main, others = self.metrics
        parts = [
            Part("definitions", "What is measured", document.definitions([*main, *others], bool(self.paired))),
            Part("references", "To cite", document.references(self.study)),
        ]
        return Page(
            "definitions.html",
            "Definitions",
            "What each column means, and the papers to cite",
            [p for p in parts if p.blocks],
        )


def _slim(cell: Cell) -> Cell:
    """A cell without rows behind it, and with a value to sort by only where its text does not say it."""
    text = cell.text.split()[0] if cell.text else ""
    told = cell.value is None or math.isnan(cell.value) or text == units.number(cell.value)
    return replace(cell, rows=(), value=None if told else float(f"{cell.value:.4g}"))


def _counts(comparison: Comparison | None) -> str:
    """On how many problems each verdict on a method holds, losses first."""
    if comparison is None:
        return ""
    found = [sentences.verdict_of(each) for each in comparison.differences]
    words = [word for word in (*VERDICTS, sentences.TOO_FEW) if word in found]
    return Markup(" ").join(
        Markup(
            '<span class="chip {0}" title="{0} on {2}"><span aria-hidden="true">{1}</span>'
            '<span class="hidden">{0}</span> {2}</span>'
        ).format(word, document.SIGNS[word], found.count(word))
        for word in words
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
    return document.ratio_cell(comparison.match.flops, comparison.match.flops_interval)
