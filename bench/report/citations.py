"""The papers that a study rests on, as BibTeX and as text. references.bib is the only place that describes papers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from bench.report.typeset import text as latex
from bench.store.files import atomic_write
from bench.store.study_tables import Study

if TYPE_CHECKING:
    from pybtex.database import Person

SUMMARIES = ("difference", "verdict", "cost_to_target", "ranking")  # measures of every report
KINDS = ("methods", "datasets", "measures")  # fields of references.bib: names that an entry is cited for


@dataclass(frozen=True)
class Reference:
    """An entry of a bibliography.

    Args:
        kind: The BibTeX type, such as 'article'.
        key: The key.
        fields: The fields, without authors.
        authors: The authors, as pybtex reads them.
        cited_for: The names of methods, datasets and measures that it is cited for.
    """

    kind: str
    key: str
    fields: dict[str, str]
    authors: tuple[Person, ...] = ()
    cited_for: tuple[str, ...] = ()

    @property
    def bibtex(self) -> str:
        """The entry in BibTeX; its keywords are the names that it is cited for."""
        authors = {"author": " and ".join(map(str, self.authors))} if self.authors else {}
        fields = {**authors, **self.fields, "keywords": ", ".join(map(latex, self.cited_for))}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}\n"])

    @property
    def text(self) -> str:
        """The entry for readers: authors, year, title and where it appeared."""
        fields = {name: _plain(value) for name, value in self.fields.items()}
        year = f" ({fields['year']})" if "year" in fields else ""
        authors = ", ".join(map(_full_name, self.authors))
        where = [
            fields[name] for name in ("booktitle", "journal", "publisher", "howpublished", "note") if name in fields
        ]
        number = [f"arXiv {fields['eprint']}"] if "eprint" in fields else []
        parts = [authors + year, fields["title"], *where, *number]
        return " ".join(part if part.endswith("?") else f"{part}." for part in parts if part)


def _plain(value: str) -> str:
    """A field without braces and escapes."""
    return re.sub(r"[{}]|\\(?=[&%])", "", value)


def _full_name(person: Any) -> str:
    parts = (person.first_names, person.middle_names, person.prelast_names, person.last_names, person.lineage_names)
    return _plain(" ".join(chain.from_iterable(parts)))


@cache
def known() -> tuple[Reference, ...]:
    """The entries of references.bib; their fields KINDS name what each is cited for."""
    from pybtex.database import parse_string

    content = resources.files("bench.report").joinpath("references.bib").read_text(encoding="utf-8")
    entries = parse_string(content, "bibtex").entries.values()
    return tuple(Reference(e.type, e.key, dict(e.fields), tuple(e.persons.get("author", ()))) for e in entries)


def cited(study: Study) -> list[Reference]:
    """The papers to cite for a study: entries of references.bib in its order, then those of third parties.

    A method or dataset that references.bib does not name gets an entry with the summary and source that study.json
    states. Parameters in brackets, and what follows ' @ ', are not part of a name.
    """
    measured = {*study.measurements["metric"], *SUMMARIES}
    names = {"methods": _names(study.methods), "datasets": _names(study.datasets), "measures": measured}
    ours = [_cited_for(entry, names) for entry in known()]
    return [entry for entry in ours if entry.cited_for] + _third_parties(study, names)


def write(study: Study) -> None:
    """Write references.bib into a study's folder."""
    atomic_write(study.folder / "references.bib", "\n".join(each.bibtex for each in cited(study)))


def _names(labels: list[str]) -> set[str]:
    return {_name(label) for label in labels}


def _name(label: str) -> str:
    """'vae' of 'vae[steps=8]', 'circle' of 'circle @ study'."""
    return re.split(r"\[| @ ", label, maxsplit=1)[0]


def _listed(entry: Reference, kind: str) -> list[str]:
    return [name for name in entry.fields.get(kind, "").split(", ") if name]


def _cited_for(entry: Reference, names: dict[str, set[str]]) -> Reference:
    """An entry with those of the names that it is cited for."""
    found = [name for kind in KINDS for name in _listed(entry, kind) if name in names[kind]]
    fields = {name: value for name, value in entry.fields.items() if name not in KINDS}
    return Reference(entry.kind, entry.key, fields, entry.authors, tuple(found))


def _third_parties(study: Study, names: dict[str, set[str]]) -> list[Reference]:
    found: dict[str, Reference] = {}
    for kind in ("methods", "datasets"):
        ours = {name for entry in known() for name in _listed(entry, kind)}
        about = {_name(label): each for label, each in study.section(kind).items()}
        for name in sorted(names[kind] - ours):
            stated = about.get(name) or {}
            key = _key(kind.removesuffix("s"), name, {*found, *(entry.key for entry in known())})
            title = ": ".join(filter(None, (name, stated.get("summary"))))
            fields = {"title": f"{{{latex(title)}}}", "note": latex(stated.get("source") or "no source is stated")}
            found[key] = Reference("misc", key, fields, cited_for=(name,))
    return list(found.values())


def _key(kind: str, name: str, taken: set[str]) -> str:
    """A key that BibTeX accepts and that is not taken. BibTeX does not distinguish capital letters."""
    base = f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}"
    return next(key for key in chain([base], (f"{base}-{i}" for i in count(2))) if key not in taken)
