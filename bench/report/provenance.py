"""What was run, with which code, and what did not finish; what each quantity is, and what to cite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.common import units
from bench.report import texts
from bench.report.blocks import Block, Cell, Code, Column, Entries, Entry, Heading, Paragraph, References, Row, Table
from bench.report.citations import cited
from bench.report.hyperparameters import settings_used
from bench.store.schema import PAIRED, RUN_COSTS, Definition
from bench.store.study_tables import Study

ALWAYS_WRITTEN = ("figures/", "report.md", "report.html")


def run_blocks(study: Study) -> list[Block]:
    """The command, settings, provenance, datasets, methods and hyperparameters of a study."""
    command = str(study.info.get("command") or "")
    settings = stated(study.section("settings"))
    sections = (
        ("Datasets", [Entry(name, *dataset_facts(about)) for name, about in study.section("datasets").items()]),
        ("Methods", [Entry(name, *method_facts(about)) for name, about in study.section("methods").items()]),
        ("Hyperparameters", [Entry(name, text) for name, text in settings_used(study.info)]),
    )
    blocks: list[Block] = [Paragraph(texts.RUN_AGAIN, ""), Code(command)] if command else []
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
    words = {
        "latent_dim": "latent dimension {}",
        "data_dim": "data dimension {}",
        "noise_variance": "noise variance {}",
    }
    facts = [text.format(_short(about[key])) for key, text in words.items() if about.get(key) is not None]
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


def unfinished(study: Study) -> Table:
    """The runs that did not finish, with their reasons; without rows if all did."""
    names = ("dataset", "method", "seed", "status")
    rows = [
        Row(
            [
                *(Cell(str(row[name])) for name in names),
                Cell(str(row["message"] or texts.NO_REASON), style="reason"),
            ],
            str(row["dataset"]),
            str(row["method"]),
        )
        for row in study.unfinished.fillna({"message": ""}).to_dict("records")
    ]
    columns = [Column(name, number=name == "seed") for name in (*names, "reason")]
    return Table("What did not finish", columns, rows, -1, layout="")


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


def files(study: Study) -> list[Block]:
    """The files of the study, with their content."""
    entries = [
        Entry(name, text)
        for name, text in texts.FILES.items()
        if name in ALWAYS_WRITTEN or (study.folder / name).exists()
    ]
    return [Entries(entries, ("file", "content"))]
