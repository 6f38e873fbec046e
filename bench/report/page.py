"""Writes report.html, report.md and figures/ from a study's tables."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Collection
from functools import cache
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from bench.common import units
from bench.report import citations, latex, study_notes
from bench.report.document import document
from bench.report.figures.inline import VARIABLES, colours
from bench.report.figures.palette import styles
from bench.report.gallery import gallery
from bench.report.rows import rows
from bench.stats.summary import learners, summary
from bench.store.files import atomic_write
from bench.store.study_tables import Study, read

PAGES = ("html", "md")
FORMATS = (*PAGES, "latex", "png")
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")


def write(folder: Path, formats: Collection[str] = PAGES) -> Path:
    """Write the report of a study. Each file is replaced in one step.

    Args:
        folder: The study's folder.
        formats: 'html' and 'md' for the report as a page and as Markdown, 'png' for figures as PNG too, 'latex' for
            figures as PDF, tables as LaTeX and references.bib. Figures are always written as SVG.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: If the folder holds no study.
        ValueError: If the study cannot be read (`bench.store.study_tables.read`).
    """
    study = read(Path(folder))
    table = summary(study.measurements, study.runs)
    kinds = ["svg", *(kind for form, kind in {"png": "png", "latex": "pdf"}.items() if form in formats)]
    pictures = gallery(study, table, kinds)
    (study.folder / "figures").mkdir(exist_ok=True)
    for picture in chain.from_iterable(pictures.values()):
        for kind, image in picture.images.items():
            atomic_write(study.folder / "figures" / f"{picture.stem}.{kind}", image)
    sections = document(study, table, pictures)
    context = {"study": study, "size": study_notes.size(study), "sections": sections}
    page = study.folder / "report.html"
    if "md" in formats:
        atomic_write(page.with_suffix(".md"), _render("report.md.j2", context | {"star": Markup("**")}))
    if "html" in formats:
        atomic_write(page, _render("report.html.j2", context | _interactive(study)))
    if "latex" in formats:
        latex.write(study)
        citations.write(study)
    return page


def _interactive(study: Study) -> dict[str, Any]:
    """What only the page has: its program, the rows behind its numbers, and its colours.

    The page names the hash of its program to the browser, so that nothing else can run.
    """
    program = "\n".join(map(template, ("page.js", "report.js")))
    known = styles(study.roles, study.colour_groups)
    return {
        "program": Markup(program),
        "program_hash": "sha256-" + base64.b64encode(hashlib.sha256(program.encode()).digest()).decode(),
        "rows": htmlsafe_json_dumps(rows(study), separators=(",", ":"), ensure_ascii=False),
        "colours": colours(),
        "methods": [(name, known[name].mark, VARIABLES[known[name].color]) for name in learners(study.runs)],
        "missing": units.MISSING,
    }


def template(name: str) -> str:
    """The text of a file of the folder of templates."""
    return resources.files("bench.report").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def markdown(text: object) -> str:
    """Text as one line of Markdown that shows it literally, also within a table."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", line)


def _literally(value: object) -> object:
    return value if isinstance(value, Markup) else markdown(value)


def _indented(text: str) -> Markup:
    """A Markdown code block by indentation, which no content can end."""
    return Markup("\n".join("    " + line for line in text.splitlines()))


def _render(template: str, context: dict[str, Any]) -> str:
    """Render a template in which every value is escaped for its language."""
    return environment(html=".html" in template).get_template(template).render(context).strip() + "\n"


@cache
def environment(*packages: str, html: bool = True) -> jinja2.Environment:
    """What renders templates of some packages and of the report; it compiles each of them once.

    Args:
        packages: Packages with a folder of templates, which go before those of the report.
        html: Whether values are escaped for HTML; else for Markdown.
    """
    finalize: Callable[[object], object] | None = None if html else _literally
    found = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in (*packages, "bench.report")]),
        autoescape=html,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(indented=_indented, address=_address, trailing=_without_trailing)
    return found


def _address(name: str) -> str:
    """A name as part of a link within the page, whose parts are separated by colons."""
    return quote(name, safe="")


def _without_trailing(text: str) -> Markup:
    """Rendered text without blank lines around it."""
    return Markup(text.strip("\n"))
