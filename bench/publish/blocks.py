"""What the pages of a site are made of, beside the parts of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from bench.publish.drawing import Drawing
from bench.report.blocks import Block, Cell, Table


@dataclass(frozen=True)
class Curves:
    """The curves of a problem against each cost, of which the reader chooses one.

    Args:
        name: A prefix for identifiers, unique on the page.
        drawings: The drawings.
        legend: The name, mark, swatch and final value of each method, the best first.
    """

    kind: ClassVar[str] = "curves"
    name: str
    drawings: Sequence[Drawing]
    legend: Sequence[tuple[str, str, Markup, str]]


@dataclass(frozen=True)
class Links:
    """Links to other pages of the site, as texts and addresses."""

    kind: ClassVar[str] = "links"
    label: str
    links: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Explorer:
    """Tables of which the reader chooses one, its rows and its columns; the address of the page keeps the choice.

    Args:
        tables: The tables by their name in the address.
        hidden: The headings of the columns that are hidden at first.
        links: The page of each method and dataset.
    """

    kind: ClassVar[str] = "explorer"
    tables: Mapping[str, Table]
    hidden: Sequence[str]
    links: Mapping[str, str]

    @property
    def content(self) -> Markup:
        """The tables as JSON for the page's program, which shows them as they are."""
        found = [
            {
                "name": name,
                "label": table.label,
                "head": table.head,
                "columns": [
                    [_unique(table, k), each.heading, each.unit, each.meaning, each.number]
                    for k, each in enumerate(table.columns)
                ],
                "hidden": [k for k, each in enumerate(table.columns) if each.heading in self.hidden],
                "rows": [[row.dataset, row.method, *map(_packed, row.cells)] for row in table.rows],
            }
            for name, table in self.tables.items()
        ]
        return htmlsafe_json_dumps({"tables": found, "links": self.links}, separators=(",", ":"), ensure_ascii=False)


AnyBlock = Block | Curves | Links | Explorer


@dataclass(frozen=True)
class Part:
    """A section of a page."""

    anchor: str
    title: str
    blocks: Sequence[AnyBlock]


@dataclass(frozen=True)
class Page:
    """A page of the site.

    Args:
        path: Its path within the site.
        title: Its heading.
        about: The line below it.
        parts: Its sections.
    """

    path: str
    title: str
    about: str
    parts: Sequence[Part]

    @property
    def root(self) -> str:
        """The way from the page to the root of the site."""
        return "../" * self.path.count("/")


def laid_out(page: Page) -> Page:
    """A page without empty sections, whose tables have filters of their own; a table of one row needs none."""
    numbers = count()

    def own(block: AnyBlock) -> AnyBlock:
        if isinstance(block, Table) and block.filters:
            return replace(block, filters=f"filter-{next(numbers)}" if len(block.rows) > 1 else "")
        return block

    parts = [replace(part, blocks=[own(block) for block in part.blocks]) for part in page.parts if part.blocks]
    return replace(page, parts=parts)


def _unique(table: Table, place: int) -> str:
    """The name of a column in an address: its heading, with the unit where several have the same heading."""
    column = table.columns[place]
    alike = [each.heading for each in table.columns].count(column.heading) > 1
    return f"{column.heading}, {column.unit}" if alike else column.heading


def _packed(cell: Cell) -> object:
    """A cell as a list without its empty end: text, small text, value, whether it is the best, style."""
    parts: list[object] = [cell.text, cell.small, cell.value, int(cell.best), cell.style]
    while len(parts) > 1 and parts[-1] in ("", None, 0):
        parts.pop()
    return parts[0] if len(parts) == 1 else parts
