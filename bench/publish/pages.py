"""All pages of a site, and those that are neither the first nor of a method or problem: costs, failures, studies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.common import units
from bench.publish.blocks import AnyBlock, Explorer, Links, Page, Part
from bench.publish.content import AT_FIRST, Content
from bench.publish.leaderboard import front
from bench.publish.method_page import method_page
from bench.publish.problem_page import CURVES, problem_page
from bench.report import study_notes, texts
from bench.report.blocks import Block, Cell, Column, Entries, Entry, Paragraph, Row, Table
from bench.report.comparison_tables import differences_table, matches_table
from bench.report.provenance import definitions, references, run_blocks, stated
from bench.store.schema import RUN_COSTS

EXPLORER = "Sort, filter and choose columns; the address of the page keeps the view, so that it can be shared"
APART = (
    "Runs were not made alike, so these datasets stand once for each group of studies that agrees. No comparison spans "
    "two groups."
)
ALIKE = "Nothing: the studies agree on each dataset that both have, and a run that several hold is taken once."


def pages(content: Content) -> Iterator[Page]:
    """Each page, the first one last, so that what it links to is there."""
    yield from (method_page(content, method) for method in content.study.methods)
    yield from (problem_page(content, problem) for problem in content.problems)
    yield from (make(content) for make in (_costs, _explorer, _failures, _studies, _definitions, front))


def _costs(content: Content) -> Page:
    matches = replace(matches_table(content.paired), filters="yes")
    near = content.targets
    curves = Links("Curves of each problem", content.pages("problems", "#curves"))
    to_match: list[AnyBlock] = [content.prepared(matches), Paragraph(texts.MATCHES)] if content.paired else []
    views = Links("In the explorer", [("dataset by dataset", "explore.html#table=near")])
    to_near: list[AnyBlock] = [Paragraph(texts.TARGETS), views] if near.rows else []
    parts = [
        Part("matches", "Costs to match another method", to_match),
        Part("near", near.label, to_near),
        Part("curves", "Quality against each cost", [Paragraph(CURVES), curves]),
    ]
    about = "What it costs to be as good as another method, or as the true model"
    return Page("costs.html", "Costs", about, parts)


def _explorer(content: Content) -> Page:
    main, others = content.metrics
    ends = content.prepared(content.ends.table("Results", "", [*main, *others], RUN_COSTS), meanings=True)
    tables = {"results": ends}
    if content.paired:
        tables["comparisons"] = content.prepared(differences_table(content.paired))
    if content.targets.rows:
        tables["near"] = content.targets
    hidden = [column.heading for column in ends.columns if column.heading not in AT_FIRST]
    links = {name: content.address(name) for name in (*content.study.methods, *content.study.datasets)}
    parts = [Part("tables", "", [Explorer(tables, hidden, links)])]
    return Page("explore.html", "Table explorer", EXPLORER, parts)


def _failures(content: Content) -> Page:
    incident = study_notes.incident(content.study)
    lead = Paragraph(incident, "lead") if incident else Paragraph(texts.ALL_FINISHED, "")
    ended = study_notes.endings(content.study.runs)
    blocks: list[AnyBlock] = [lead, *([Paragraph(ended, "")] if ended else []), *content.unfinished(lambda _: True)]
    about = "Runs that failed, were skipped or ended early, with their reasons"
    return Page("failures.html", "Failures", about, [Part("answers", "", blocks)])


def _studies(content: Content) -> Page:
    parts = []
    if len(content.studies) > 1:
        parts.append(Part("differences", "What differs between their settings", _differing(content)))
        entries = [Entry(", ".join(on), f"{text}.") for text, on in content.disagreements.items()]
        told: list[Block] = [Paragraph(APART), Entries(entries)] if entries else [Paragraph(ALIKE, "")]
        parts.append(Part("disagreements", "Where results were kept apart", told))
    for place, (name, study) in enumerate(zip(content.names, content.studies, strict=True)):
        blocks = [Paragraph(study_notes.size(study)), *run_blocks(study)]
        parts.append(Part(f"study-{place}", name, blocks))
    return Page("studies.html", "Studies and provenance", "Who ran what, with which code, on which machine", parts)


def _differing(content: Content) -> list[Block]:
    """The settings and the provenance that differ, a column for each study."""
    of_each = [
        {each.name: each.text for key in ("settings", "provenance") for each in stated(study.section(key))}
        for study in content.studies
    ]
    rows = [
        Row([Cell(key), *(Cell(each.get(key, units.MISSING), style="name") for each in of_each)])
        for key in dict.fromkeys(key for each in of_each for key in each)
        if len({each.get(key) for each in of_each}) > 1
    ]
    columns = [Column("setting", number=False), *(Column(name, number=False) for name in content.names)]
    if not rows:
        return [Paragraph("All settings are the same.", "")]
    return [Table("What differs between the studies", columns, rows, 0, layout="")]


def _definitions(content: Content) -> Page:
    main, others = content.metrics
    parts = [
        Part("definitions", "What is measured", definitions([*main, *others], bool(content.paired))),
        Part("references", "To cite", references(content.study)),
    ]
    return Page("definitions.html", "Definitions", "What each column means, and the papers to cite", parts)
