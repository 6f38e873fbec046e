"""The sections of a report and their order, from a study's tables and figures. Templates only lay them out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.report import sentences, study_notes, texts
from bench.report.blocks import Block, Cell, Claims, Entries, Figures, Heading, Legend, Paragraph, Row, Section, Table
from bench.report.comparison_tables import claims, comparison_blocks, standings
from bench.report.cost_tables import cost_blocks, work
from bench.report.end_tables import Ends, metrics_of, places, ranking
from bench.report.gallery import Picture
from bench.report.provenance import definitions, files, references, run_blocks, unfinished
from bench.stats.comparisons import Comparison, comparisons
from bench.store.schema import MAIN_METRICS
from bench.store.study_tables import Study


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
        Section("ranking", "Over all datasets", "Overall", ranking(placed, pictures["ranking"])),
        Section("table", "Where each method ended", "Table", ends.results(main)),
        Section("comparisons", "Method against method", "Comparisons", comparison_blocks(paired)),
        Section("cost", "Quality against cost", "Cost", [*cost_blocks(study, pictures["curves"]), *ends.costs()]),
        Section("losses", "What is lost, and where", "Losses", _figures(texts.LOSSES, pictures["losses"])),
        Section("quality", "Quality of posteriors and samples", "", ends.quality(others)),
        Section("posteriors", "Posteriors against the true one", "Posteriors", _posteriors(pictures)),
        Section(
            "densities",
            "Learned densities",
            "Densities",
            _figures(texts.DENSITIES, pictures["densities"], wide=False),
        ),
        Section("images", "Images", "Images", _figures(texts.IMAGES, pictures["images"])),
        Section("work", "Where the FLOPs went", "", _work(study)),
        Section("unfinished", "What did not finish", "Failures", _unfinished(study)),
        Section("run", "What was run", "Run it again", run_blocks(study)),
        Section("definitions", "What is measured", "Definitions", definitions(metrics, bool(paired))),
        Section("references", "To cite", "", references(study)),
        Section("files", "Files", "", files(study)),
    )
    return [_marked(section, study, found) for section in candidates if section.blocks]


def _marked(section: Section, study: Study, found: Sequence[Comparison]) -> Section:
    """The section with a mark on each method whose runs were borrowed, wherever a table or a title names it."""
    if not (sources := study.borrowed):
        return section
    marked = {method: study_notes.marked(method, sources) for method in sources}
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


def _answers(
    study: Study,
    table: pd.DataFrame,
    found: list[Comparison],
    places: Sequence[Mapping[Hashable, Any]],
    overview: Sequence[Picture],
) -> list[Block]:
    many = len(found) > sentences.MANY
    lead = sentences.overview(found, places) if many else []
    incident = study_notes.incident(study)
    notes = study_notes.notes(study, table, any(each.differences for each in found))
    return [
        *(Paragraph(text, "lead") for text in lead),
        standings(found) if many else Claims(claims(found, study, table)),
        *([Paragraph(incident, "warning")] if incident else []),
        *([Legend()] if overview else []),
        *([Figures(overview, wide=False)] if overview else []),
        *map(Paragraph, notes),
    ]


def _figures(text: str, pictures: Sequence[Picture], wide: bool = True) -> list[Block]:
    return [Paragraph(text), Figures(pictures, wide)] if pictures else []


def _posteriors(pictures: Mapping[str, Sequence[Picture]]) -> list[Block]:
    signals = _figures(texts.SIGNALS, pictures["signal_posteriors"])
    heading = [Heading("The signal behind x", "signals")] if signals else []
    return [*_figures(texts.INDEX_POSTERIORS, pictures["index_posteriors"]), *heading, *signals]


def _work(study: Study) -> list[Block]:
    entries = work(study)
    headings = ("method", "kinds of work", "share by formula")
    return [Paragraph(texts.WORK), Entries(entries, headings)] if entries else []


def _unfinished(study: Study) -> list[Block]:
    ended = study_notes.endings(study.runs)
    first = Paragraph(texts.ALL_FINISHED, "") if study.unfinished.empty else unfinished(study)
    return [first, *([Paragraph(ended, "")] if ended else [])]
