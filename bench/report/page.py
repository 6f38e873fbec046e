"""The page: report.html, report.md and figures/ from a study's tables."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bench.report import densities, figures, format, overlays
from bench.report.content import statements
from bench.report.study import Study, read
from bench.report.summary import ORACLE, finished, oracle_levels, summary

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
    glance, quality, learned, followed = _overview(study), _curves(study), _densities(study), _overlays(study)
    (study.folder / "figures").mkdir(exist_ok=True)
    for picture in (*glance, *quality, *learned, *followed):
        for kind, content in (("png", picture.png), ("svg", picture.svg)):
            _replace(study.folder / "figures" / f"{picture.stem}.{kind}", content)
    context = statements(study, table) | {
        "overview": glance,
        "curves": quality,
        "densities": learned,
        "overlays": followed,
        "star": Markup("**"),
    }
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


def _overview(study: Study) -> list[Picture]:
    rows = finished(study.measurements, study.cells)
    with figures.look():
        fig = figures.overview(rows[rows["metric"] == "oracle_gap"], figures.styles(study.methods))
        caption = "Oracle gap against FLOPs, per dataset: lower and further left is better"
        return [] if fig is None else [_picture(fig, "overview", "", caption)]


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
            name, seed = str(dataset), densities.seed_shown(every)
            rows = every[every["seed"] == seed]
            fig = densities.beside_truth(rows, study.methods, name)
            present = set(rows["method"].unique())
            absent = [m for m in study.methods if m not in present and m != ORACLE]
            caption = f"{name}: learned densities beside the true one, seed {seed}"
            caption += f"; none for {format.listed(absent)}" if absent else ""
            pictures.append(_picture(fig, f"{stems.get(name, 'other')}-density", name, caption))
    return pictures


def _overlays(study: Study) -> list[Picture]:
    stems = _stems(study.datasets)
    known = figures.styles(study.methods)
    pictures = []
    with figures.look():
        for dataset, every in study.posteriors.groupby("dataset", sort=False):
            name, seed = str(dataset), densities.seed_shown(every)
            rows = every[every["seed"] == seed]
            if names := overlays.overlaid(rows, study.methods):
                fig = overlays.over_truth(rows, names, known, name)
                caption = f"{name}: the index posterior of {format.listed(names)} over the true one, seed {seed}"
                pictures.append(_picture(fig, f"{stems.get(name, 'other')}-posterior", name, caption))
    return pictures


def _picture(fig: Any, stem: str, title: str, caption: str) -> Picture:
    return Picture(stem, title, caption, figures.image(fig, "png"), figures.image(fig, "svg"))


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
