"""The page: report.html, report.md and figures/ from a study's tables."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bench.report import figures, format
from bench.report.compare import answers, rivals
from bench.report.definitions import COSTS, Definition, define, in_order
from bench.report.study import Study, read
from bench.report.summary import ORACLE, UNFITTED, finished, oracle_levels, summary

_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")


@dataclass(frozen=True)
class Picture:
    """A figure as it is written and inlined: file stem, dataset, caption and both renderings."""

    stem: str
    title: str
    caption: str
    png: bytes
    svg: bytes

    @property
    def light(self) -> str:
        """A data URI for a light ground."""
        return _uri(self.svg)

    @property
    def dark(self) -> str:
        """A data URI for a dark ground."""
        return _uri(figures.darkened(self.svg))


def write(folder: Path) -> Path:
    """Write report.html, report.md and figures/ into a study folder, and return the path of report.html.

    Each file is replaced in one step, so that a reader never meets half of one. Raises what `read` raises.
    """
    study = read(Path(folder))
    table = summary(study.measurements, study.cells)
    quality, densities = _curves(study), _densities(study)
    (study.folder / "figures").mkdir(exist_ok=True)
    for picture in (*quality, *densities):
        for kind, content in (("png", picture.png), ("svg", picture.svg)):
            _replace(study.folder / "figures" / f"{picture.stem}.{kind}", content)
    context = _context(study, table) | {"curves": quality, "densities": densities}
    _replace(study.folder / "report.md", _render("report.md.j2", context).encode())
    page = study.folder / "report.html"
    _replace(page, _render("report.html.j2", context).encode())
    return page


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _stems(datasets: list[str]) -> dict[str, str]:
    """A file name for each dataset: safe in a path and in a link, and distinct."""
    stems: dict[str, str] = {}
    for dataset in datasets:
        base = re.sub(r"[^A-Za-z0-9]+", "-", dataset).strip("-").lower()[:60] or "dataset"
        taken = set(stems.values())
        candidates = chain([base], (f"{base}-{i}" for i in count(2)))
        stems[dataset] = next(stem for stem in candidates if stem not in taken)
    return stems


def _curves(study: Study) -> list[Picture]:
    rows = finished(study.measurements, study.cells)
    rows = rows[rows["metric"] == "test_ll"]
    levels = oracle_levels(study.measurements, study.cells)
    known = figures.styles(study.methods)
    pictures = []
    with figures.look():
        for dataset, stem in _stems(study.datasets).items():
            chosen = rows[rows["dataset"] == dataset]
            if len(chosen):
                fig = figures.against_cost(chosen, known, levels.get(dataset), dataset)
                caption = f"{dataset}: test log-likelihood against cost"
                pictures.append(_picture(fig, f"{stem}-cost", dataset, caption))
    return pictures


def _densities(study: Study) -> list[Picture]:
    stems = _stems(study.datasets)
    pictures = []
    with figures.look():
        for dataset, every in study.densities.groupby("dataset", sort=False):
            name, seed = str(dataset), figures.density_seed(every)
            rows = every[every["seed"] == seed]
            fig = figures.beside_truth(rows, study.methods, name)
            present = set(rows["method"].unique())
            absent = [m for m in study.methods if m not in present and m != ORACLE]
            caption = f"{name}: learned densities beside the true one, seed {seed}"
            caption += f"; none for {format.listed(absent)}" if absent else ""
            pictures.append(_picture(fig, f"{stems.get(name, 'other')}-density", name, caption))
    return pictures


def _picture(fig: Any, stem: str, title: str, caption: str) -> Picture:
    return Picture(stem, title, caption, figures.image(fig, "png"), figures.image(fig, "svg"))


def _context(study: Study, table: pd.DataFrame) -> dict[str, Any]:
    metrics = _metrics(study.measurements)
    return {
        "study": study,
        "answers": answers(study.measurements, study.cells, table),
        "incident": _incident(study),
        "notes": _notes(study),
        "run": _run(study),
        "groups": _groups(study, table),
        "metrics": metrics,
        "costs": list(COSTS),
        "problems": study.problems.fillna({"message": ""}).to_dict("records"),
        "definitions": [*metrics, *COSTS],
        "settings": _pairs(study.section("settings")),
        "provenance": _pairs(study.section("provenance")),
        "entries": [("Datasets", _datasets(study)), ("Methods", _methods(study))],
        "command": str(study.info.get("command") or ""),
        "files": _files(study.folder),
        "unfitted": UNFITTED,
        "missing": format.MISSING,
        "star": Markup("**"),
    }


def _metrics(measurements: pd.DataFrame) -> list[Definition]:
    units = dict(zip(measurements["metric"], measurements.get("unit", measurements["metric"]), strict=True))
    return [define(name, str(units[name])) for name in in_order(measurements["metric"])]


def _groups(study: Study, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the table by dataset, each with the level of the true model."""
    levels = oracle_levels(study.measurements, study.cells)
    return [
        {"name": name, "level": levels.get(str(name)), "rows": rows.to_dict("records")}
        for name, rows in table.groupby("dataset", sort=False)
    ]


def _incident(study: Study) -> str:
    """What did not finish, in a sentence; empty where all did."""
    if study.problems.empty:
        return ""
    counts = study.problems["status"].value_counts(sort=False)
    words = {"timeout": "timed out"}
    parts = [f"{n} {words.get(str(status), status)}" for status, n in counts.items()]
    return (
        f"{len(study.problems)} of {format.plural(len(study.cells), 'cell')} did not finish: "
        f"{format.listed(parts)}. What is said of their methods there rests on the other seeds."
    )


def _run(study: Study) -> str:
    """The size of the study in a line."""
    settings = study.section("settings")
    counts = (
        (len(study.datasets), "dataset"),
        (len(study.methods), "method"),
        (study.cells["seed"].nunique(), "seed"),
    )
    parts = [format.plural(n, noun) for n, noun in counts]
    for key, text in (("size", "{} training points"), ("test_size", "{} test points"), ("noise", "noise {}")):
        if settings.get(key) is not None:
            parts.append(text.format(settings[key]))
    return " · ".join(parts)


def _notes(study: Study) -> list[str]:
    """What a reader must know before trusting a number."""
    notes = []
    if rivals(study.methods):
        notes.append(
            "Ahead and behind are by the median test log-likelihood over seeds; "
            "the cost ratios are of whole fits, the median over datasets."
        )
    if study.cells.get("concurrent", pd.Series(dtype=bool)).fillna(False).astype(bool).any():
        notes.append(
            "Cells ran side by side, so wall times are contended; CPU time and FLOPs are the fairer axes."
        )
    last = finished(study.measurements, study.cells)
    errors = last.loc[last["metric"] == "test_ll"].get("stderr", pd.Series(dtype=float)).dropna()
    if len(errors):
        notes.append(
            f"Largest standard error of any test log-likelihood: {format.number(errors.max(), 4)} nats."
        )
    return notes


def _pairs(section: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _plain(value)) for key, value in section.items()]


def _methods(study: Study) -> list[tuple[str, str, str]]:
    """Name, what it is, and its source."""
    about = study.section("methods").items()
    return [(name, str(each.get("summary") or ""), str(each.get("source") or "")) for name, each in about]


def _datasets(study: Study) -> list[tuple[str, str, str]]:
    """Name, what it is with its dimensions and noise, and its source."""
    texts = {"latent_dim": "latent dimension {}", "data_dim": "data dimension {}", "noise": "noise {}"}
    texts["expected_log_prob"] = "E log p = {} nats"
    entries = []
    for name, each in study.section("datasets").items():
        facts = [text.format(_short(each[key])) for key, text in texts.items() if each.get(key) is not None]
        parts = [each.get("summary"), ", ".join(facts)]
        entries.append((name, "; ".join(filter(None, parts)), str(each.get("source") or "")))
    return entries


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _files(folder: Path) -> list[tuple[str, str]]:
    known = {
        "measurements.parquet": "every look at every cell, one metric a row",
        "cells.parquet": "one row per dataset, method and seed, with status and total cost",
        "densities.parquet": "true and learned log densities on a grid, for two-dimensional data",
        "study.json": "settings, provenance and the command",
        "figures/": "every figure as PNG and SVG",
        "report.md": "this report as Markdown",
        "report.html": "this report as one file",
    }
    written = ("figures/", "report.md", "report.html")
    return [(name, what) for name, what in known.items() if name in written or (folder / name).exists()]


def markdown(text: object) -> str:
    """Text as one line of Markdown that shows it literally, in a table too."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", line)


def _literally(value: object) -> object:
    return value if isinstance(value, Markup) else markdown(value)


def _indented(text: str) -> Markup:
    """A Markdown code block, by indentation, which no content can end."""
    return Markup("\n".join("    " + line for line in text.splitlines()))


def _render(template: str, context: dict[str, Any]) -> str:
    """Render a template in which every value is escaped for its language."""
    html = ".html" in template
    finalize: Callable[[object], object] | None = None if html else _literally
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report"),
        autoescape=html,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = (format.number, format.spread, format.quantity, format.listed)
    environment.filters.update({function.__name__: function for function in named}, indented=_indented)
    return environment.get_template(template).render(context)
