"""What a study rests on: a reference for each of its methods, datasets and measures, as BibTeX and as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain, count

from bench.report.typeset import text
from bench.store.study_tables import Study, replace

SUMMARIES = ("difference", "verdict", "cost_to_target", "standing")  # what every report says of what was measured
KINDS = ("methods", "datasets", "measures")
_ENTRY = re.compile(r"^@(\w+)\{([^\s,]+),\n(.*?)^\}$", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """An entry of a bibliography. cited_for: names of methods, datasets and measures."""

    kind: str
    key: str
    fields: dict[str, str]
    cited_for: tuple[str, ...] = ()

    @property
    def bibtex(self) -> str:
        """The entry in BibTeX, with what it is cited for as keywords."""
        fields = {**self.fields, "keywords": ", ".join(map(text, self.cited_for))}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}\n"])

    @property
    def told(self) -> str:
        """The entry as a reader sees it: authors, year, title and where it appeared."""
        plain = {name: re.sub(r"[{}]|\\(?=[&%])", "", value) for name, value in self.fields.items()}
        year = f" ({plain['year']})" if "year" in plain else ""
        authors = [" ".join(reversed(each.split(", "))) for each in plain.get("author", "").split(" and ")]
        where = [plain[name] for name in ("booktitle", "journal", "publisher", "howpublished", "note") if name in plain]
        number = [f"arXiv {plain['eprint']}"] if "eprint" in plain else []
        parts = [", ".join(filter(None, authors)) + year, plain["title"], *where, *number]
        return " ".join(part if part.endswith("?") else f"{part}." for part in parts if part)


@cache
def known() -> tuple[Reference, ...]:
    """The entries of references.bib, with what each is for still among their fields."""
    return tuple(parsed(resources.files("bench.report").joinpath("references.bib").read_text(encoding="utf-8")))


def parsed(bibtex: str) -> Iterator[Reference]:
    """The entries of a BibTeX file that has a field to a line."""
    for kind, key, fields in _ENTRY.findall(bibtex):
        yield Reference(kind, key, dict(_FIELD.findall(fields)))


def cited(study: Study) -> list[Reference]:
    """What is to be cited for a study: entries of references.bib in its order, then those of third parties.

    A method or dataset that references.bib does not name gets an @misc entry with the summary and the source that
    study.json states. What follows a name in brackets, or after @, is not part of it.
    """
    measured = {*study.measurements["metric"], *SUMMARIES}
    names = {"methods": _names(study.methods), "datasets": _names(study.datasets), "measures": measured}
    ours = [_for(entry, names) for entry in known()]
    return [entry for entry in ours if entry.cited_for] + _third_parties(study, names)


def write(study: Study) -> None:
    """Write references.bib into a study's folder."""
    replace(study.folder / "references.bib", "\n".join(each.bibtex for each in cited(study)).encode())


def _names(labels: list[str]) -> set[str]:
    return {_name(label) for label in labels}


def _name(label: str) -> str:
    """'vae' of 'vae[steps=8]', 'circle' of 'circle @ study'."""
    return re.split(r"\[| @ ", label, maxsplit=1)[0]


def _listed(entry: Reference, kind: str) -> list[str]:
    return [name for name in entry.fields.get(kind, "").split(", ") if name]


def _for(entry: Reference, names: dict[str, set[str]]) -> Reference:
    """An entry with those of the names that it is for."""
    found = [name for kind in KINDS for name in _listed(entry, kind) if name in names[kind]]
    fields = {name: value for name, value in entry.fields.items() if name not in KINDS}
    return Reference(entry.kind, entry.key, fields, tuple(found))


def _third_parties(study: Study, names: dict[str, set[str]]) -> list[Reference]:
    found: dict[str, Reference] = {}
    for kind in ("methods", "datasets"):
        ours = {name for entry in known() for name in _listed(entry, kind)}
        about = {_name(label): each for label, each in study.section(kind).items()}
        for name in sorted(names[kind] - ours):
            told = about.get(name) or {}
            key = _key(kind.removesuffix("s"), name, {*found, *(entry.key for entry in known())})
            title = ": ".join(filter(None, (name, told.get("summary"))))
            fields = {"title": f"{{{text(title)}}}", "note": text(told.get("source") or "no source is stated")}
            found[key] = Reference("misc", key, fields, (name,))
    return list(found.values())


def _key(kind: str, name: str, taken: set[str]) -> str:
    """A key that BibTeX takes, and that is not taken; it does not tell capital letters from small ones."""
    base = f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}"
    return next(key for key in chain([base], (f"{base}-{i}" for i in count(2))) if key not in taken)
