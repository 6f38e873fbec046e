"""The page of a problem: which methods end best on it, their curves against each cost, and method against method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.common import units
from bench.publish.blocks import Curves, Links, Page, Part
from bench.publish.content import Content, narrowed, problem_of, query
from bench.publish.drawing import drawings, swatch
from bench.report import sentences, texts
from bench.report.blocks import Paragraph, Table
from bench.report.comparison_tables import differences_table
from bench.report.provenance import dataset_facts
from bench.stats.comparisons import Comparison
from bench.stats.matching import SLACK
from bench.store.schema import LEARNS

BRIEF = ("methods", "difference", "verdict", "FLOPs", "FLOPs to match", "seeds that reach it")
CURVES = (
    "Lines: the median over seeds of the value at the last checkpoint within each cost. A line begins where every seed "
    "has a checkpoint; its marker is where the last seed ended. The band, or with more than six methods the bar at the "
    "marker, shows the lowest and the highest seed. Oracle gaps at or below 0.001 nats are drawn at the edge."
)
DIFFERENCES = (
    "Difference: the median over shared seeds of the first method's final test log-likelihood minus the second's, with "
    "its 95% interval. FLOPs: the first method's total, over the second's. To match: the first method's cost to reach "
    f"the second's final test log-likelihood less {SLACK:g} nats, over the second's cost to reach it."
)


def problem_page(content: Content, problem: str) -> Page:
    """The page of a problem; its sections stand once for each group of studies that agrees on it."""
    datasets = [name for name in content.study.datasets if problem_of(name) == problem]
    apart = [Paragraph(f"{text}.", "") for text, among in content.disagreements.items() if problem in among]
    parts = [Part("apart", "What differs between the studies", apart)]
    several = len(datasets) > 1
    for place, dataset in enumerate(datasets):
        parts += _dataset(content, dataset, f"{place}-" if place else "", dataset if several else "")
    views = content.views(query("text" if several else "dataset", problem))
    parts.append(Part("more", "More", [views, Links("Problems", content.pages("problems"))]))
    about = ". ".join(filter(None, dataset_facts(content.about("datasets", datasets[0]))))
    return Page(content.pages_of["problems"][problem], problem, about, parts)


def _dataset(content: Content, dataset: str, prefix: str, title: str) -> list[Part]:
    """The sections of a dataset: its answers, curves and tables."""
    own = [
        replace(each, differences=tuple(found), missing=())
        for each in content.paired
        if (found := [difference for difference in each.differences if difference.dataset == dataset])
    ]
    lead = [Paragraph(text, "lead") for text in sentences.overview(own, [])] if own else []
    suffix = f", {title}" if title else ""
    curves = _curves(content, dataset, f"{prefix}cost")
    places = {method: place for place, method in enumerate(content.order(dataset))}
    rows = [row for row in content.ends_table.rows if row.dataset == dataset]
    ends = narrowed(content.ends_table, "dataset", sorted(rows, key=lambda row: places[row.method]))
    return [
        Part(f"{prefix}answers", title, [*lead, *ends, Paragraph(texts.TABLE)]),
        Part(f"{prefix}curves", f"Quality against cost{suffix}", [curves, Paragraph(CURVES)] if curves else []),
        Part(
            f"{prefix}comparisons",
            f"Method against method{suffix}",
            [_differences(content, own), Paragraph(DIFFERENCES)] if own else [],
        ),
        Part(
            f"{prefix}unfinished",
            f"What did not finish{suffix}",
            content.unfinished(lambda row: row.dataset == dataset),
        ),
    ]


def _curves(content: Content, dataset: str, name: str) -> Curves | None:
    rows = content.measured[content.measured["dataset"] == dataset]
    drawn = drawings(rows, content.known, content.levels.get(dataset), dataset)
    if not drawn:
        return None
    metric, own = content.metric(dataset), content.summary[content.summary["dataset"] == dataset]
    ends = own[own["role"].isin(LEARNS)].set_index("method")[f"{metric}_median"]
    legend = [
        (method, content.known[method].mark, swatch(content.known[method]), units.number(ends[method]))
        for method in content.order(dataset)
        if method in ends.index
    ]
    return Curves(name, drawn, legend)


def _differences(content: Content, found: Sequence[Comparison]) -> Table:
    """The differences of comparisons on one dataset by the columns that a page has room for; the explorer has all."""
    table = content.prepared(differences_table(found))
    places = [place for place, column in enumerate(table.columns) if column.heading in BRIEF]
    rows = [replace(row, cells=[row.cells[k] for k in places], dataset="", first=False) for row in table.rows]
    return replace(table, columns=[table.columns[place] for place in places], rows=rows)
