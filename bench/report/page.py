"""The page: report.html, report.md and figures/ from a study's tables."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Collection
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from bench.common import units
from bench.report import citations, latex
from bench.report.content import statements
from bench.report.figures.inline import VARIABLES, colours
from bench.report.figures.palette import styles
from bench.report.gallery import Picture, pictures
from bench.report.rows import rows
from bench.report.tables import within
from bench.stats.summary import fitted, summary
from bench.store.study_tables import Study, read, replace

PAGES = ("html", "md")
FORMATS = (*PAGES, "latex", "png")
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")


def write(folder: Path, formats: Collection[str] = PAGES) -> Path:
    """Write figures/ and those of report.html and report.md that are asked for; return the path of report.html.

    formats: of 'html' and 'md'; 'png', and 'latex' for PDF, which the figures are written as beside SVG. Each file is
    replaced in one step, so that a reader never meets half of one. Raises what `read` raises.
    """
    study = read(Path(folder))
    table = summary(study.measurements, study.runs)
    drawn = pictures(study, table)
    (study.folder / "figures").mkdir(exist_ok=True)
    kinds = ["svg", *(kind for form, kind in {"png": "png", "latex": "pdf"}.items() if form in formats)]
    for picture in chain.from_iterable(drawn.values()):
        _save(picture, study.folder / "figures", kinds)
    context = statements(study, table) | drawn
    page = study.folder / "report.html"
    if "md" in formats:
        replace(page.with_suffix(".md"), _render("report.md.j2", context | {"star": Markup("**")}).encode())
    if "html" in formats:
        replace(page, _render("report.html.j2", context | _interactive(study)).encode())
    if "latex" in formats:
        latex.write(study)
        citations.write(study)
    return page


def _save(picture: Picture, folder: Path, kinds: list[str]) -> None:
    for kind in kinds:
        replace(folder / f"{picture.stem}.{kind}", picture.image(kind))


def _interactive(study: Study) -> dict[str, Any]:
    """What the page holds beyond the report's text: its program, the rows behind its numbers, and its colours.

    The program is named to the browser by its hash, so that nothing else can run.
    """
    program = resources.files("bench.report").joinpath("templates/report.js").read_text(encoding="utf-8")
    known = styles(study.methods)
    return {
        "program": Markup(program),
        "program_hash": "sha256-" + base64.b64encode(hashlib.sha256(program.encode()).digest()).decode(),
        "rows": htmlsafe_json_dumps(rows(study), separators=(",", ":"), ensure_ascii=False),
        "colours": colours(),
        "legend": [(name, known[name].mark, VARIABLES[known[name].color]) for name in fitted(study.methods)],
        "infinity": math.inf,
    }


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
    named = (units.number, units.quantity, units.listed, units.spread, within)
    environment.filters.update({function.__name__: function for function in named})
    environment.filters.update(indented=_indented, address=_address)
    return environment.get_template(template).render(context)


def _address(name: str) -> str:
    """A name as a part of a link within the page, where colons part them."""
    return quote(name, safe="")
