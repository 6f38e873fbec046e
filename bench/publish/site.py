"""Writes a static site of one or several studies. It asks for nothing elsewhere and can be read from a folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from bench.common import units
from bench.common.errors import UsageError
from bench.publish.blocks import laid_out
from bench.publish.content import Content
from bench.publish.drawing import colour_rules
from bench.publish.pages import pages
from bench.report.combine import combined
from bench.report.figures.inline import colours
from bench.report.page import environment, template
from bench.store.files import atomic_write, write_json
from bench.store.study_tables import NEEDED, Study, read

_OPTIONAL = re.compile(r"</t[dhr]>\n?(?=\s*<(?:t[dhr]\b|/t(?:r|body|head)>))")  # end tags that HTML lets one leave out
KIND, MANIFEST = "site", "site.json"
NAVIGATION = (
    ("index.html", "Leaderboard"),
    ("costs.html", "Costs"),
    ("explore.html", "Explorer"),
    ("failures.html", "Failures"),
    ("studies.html", "Studies"),
    ("definitions.html", "Definitions"),
)


def write(folders: Sequence[Path], out: Path, command: str, note: str = "") -> Path:
    """Write the site of some studies. Each file is replaced in one step, the first page last.

    Args:
        folders: The folders of the studies, in order of precedence.
        out: The folder to write to: new, empty, or a site that this function wrote. Of such a site pages that are no
            longer needed are deleted; files that it does not list are left as they are.
        command: The command, which the pages show.
        note: What the first page says besides, in the words of whoever publishes it.

    Returns:
        The path of index.html.

    Raises:
        UsageError: If a study cannot be read, or if the site would overwrite what is not its own.
    """
    try:
        studies = [read(folder) for folder in folders]
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    before = _made_before(out, folders)
    study = studies[0] if len(studies) == 1 else combined(studies, out, command)
    content = Content(studies, study, note)
    made = {page.path: laid_out(page) for page in pages(content)}
    assets = _assets(content)
    _refuse_foreign(out, {*made, *assets}, before)
    for path in made:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    about = {"kind": KIND, "command": command, "studies": [_digest(each) for each in studies]}
    write_json(out / MANIFEST, about | {"files": sorted({*before, *made, *assets})})  # its own, if this is cut short
    for name, text in assets.items():
        atomic_write(out / name, text)
    sheet = environment("bench.publish").get_template("site.html.j2")
    shared = {
        "title": content.title,
        "command": command,
        "version": metadata.version("mapa-bench"),
        "navigation": NAVIGATION,
        "missing": units.MISSING,
    }
    for path, page in made.items():
        text = (
            sheet.render(shared | {"page": page, "root": page.root, "reasons": f"{page.root}failures.html"}).strip()
            + "\n"
        )
        atomic_write(out / path, _OPTIONAL.sub("", text))
    for path in before - {*made, *assets}:
        (out / path).unlink(missing_ok=True)
    write_json(out / MANIFEST, about | {"files": sorted({*made, *assets})})
    return out / "index.html"


def _assets(content: Content) -> dict[str, str]:
    """The style sheet and the program of all pages."""
    folder = resources.files("bench.publish").joinpath("templates")
    own = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("site.css", "site.js")}
    return {
        "site.css": f"{colours()}\n{template('report.css')}\n{own['site.css']}\n{colour_rules(content.known)}\n",
        "site.js": f"{template('page.js')}\n{own['site.js']}",
    }


def _digest(study: Study) -> dict[str, Any]:
    """What a study was when the site was made."""
    sums = {f"{name}.parquet": hashlib.sha256((study.folder / f"{name}.parquet").read_bytes()) for name in NEEDED}
    return {"name": study.name, "folder": str(study.folder), **{name: each.hexdigest() for name, each in sums.items()}}


def _made_before(out: Path, folders: Sequence[Path]) -> set[str]:
    """The files of a site that is there already; none if the folder is new or empty."""
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise UsageError(f"{out} is one of the studies to publish; give another --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out needs a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return set()
    try:
        content = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        listed = {str(name) for name in content["files"]} if content["kind"] == KIND else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        listed = None
    if listed is None:
        raise UsageError(f"{out} is not empty and holds no site of `publish`; give another --out")
    if outside := [name for name in sorted(listed) if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise UsageError(f"{out / MANIFEST} lists {outside[0]}, which is outside the site; give another --out")
    return listed


def _refuse_foreign(out: Path, names: set[str], before: set[str]) -> None:
    """Refuse to write over files that are not the site's own, or through symbolic links."""
    for name in sorted({*names, *before, MANIFEST}):
        path = out / name
        links = [each for each in (path, *path.parents) if each != out and out in each.parents and each.is_symlink()]
        if links:
            raise UsageError(f"{links[0]} is a symbolic link; a site must hold its files itself")
        if name in names - before and path.exists():
            raise UsageError(
                f"{path} is there already and was not written by `publish`; move it, or give another --out"
            )
