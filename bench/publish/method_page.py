"""The page of a method: whom it beats and loses to, its results, its hyperparameters and its costs."""

from __future__ import annotations

import re

from bench.publish.blocks import Links, Page, Part
from bench.publish.content import Content, narrowed, query
from bench.report import sentences
from bench.report.blocks import Block, Claims, Entries, Entry, Paragraph
from bench.report.comparison_tables import claims, standings
from bench.report.provenance import method_facts
from bench.store.join import parameters

CEILING = "A ceiling: it is told what no method knows, and shows what could be reached."
FLOOR = "A floor: it learns nothing, and shows where methods start."


def method_page(content: Content, method: str) -> Page:
    """The page of a method."""
    own = [each for each in content.paired if method in (each.baseline, each.other)]
    lead: list[Block] = []
    if len(own) > sentences.MANY:
        lead = [*(Paragraph(text, "lead") for text in sentences.overview(own, [])), standings(own)]
    elif own:
        lead = [Claims(claims(own, content.study, content.summary))]
    told = {"floor": FLOOR, "ceiling": CEILING}.get(content.study.roles[method], "")
    lead += [Paragraph(told, "")] if told else []
    rows = [row for row in content.ends_table.rows if row.method == method]
    curves = Links("Its curves", content.pages("problems", f"#{query('methods', method)}"))
    parts = [
        Part("answers", "", lead),
        Part("problems", "On each problem", [*narrowed(content.ends_table, "method", rows), curves]),
        Part("settings", "Hyperparameters", _hyperparameters(content, method)),
        Part("work", "Where the FLOPs went", _work(content, method)),
        Part("unfinished", "What did not finish", content.unfinished(lambda row: row.method == method)),
        Part("more", "More", [content.views(query("method", method)), Links("Methods", content.pages("methods"))]),
    ]
    about = ". ".join(filter(None, method_facts(content.about("methods", method))))
    return Page(content.pages_of["methods"][method], method, about, parts)


def _hyperparameters(content: Content, method: str) -> list[Block]:
    """The hyperparameters of the finished runs; problems are named where they differ."""
    runs = content.study.runs[content.study.runs["method"] == method]
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


def _work(content: Content, method: str) -> list[Block]:
    own = [Entry(entry.source, entry.text) for entry in content.work if entry.name == method]
    return [Entries(own)] if own else []
