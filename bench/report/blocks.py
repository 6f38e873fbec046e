"""The parts that a report is made of. The page and the Markdown file are two renderings of the same sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from bench.report.gallery import Picture


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Args:
        text: The text.
        style: 'muted', 'lead', 'warning' or nothing.
        page_only: Whether it is left out of the Markdown.
    """

    kind: ClassVar[str] = "paragraph"
    text: str
    style: str = "muted"
    page_only: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section; the page can link to its anchor, if it has one."""

    kind: ClassVar[str] = "heading"
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Claim:
    """A result that opens the report.

    Args:
        text: The sentence in full.
        title: Which methods are compared; empty for another sentence.
        short: What the page shows above the full sentence.
        verdicts: Each verdict, a sign for it, and on how many datasets it holds.
    """

    text: str
    title: str = ""
    short: str = ""
    verdicts: Sequence[tuple[str, str, int]] = ()


@dataclass(frozen=True)
class Claims:
    """The results that open the report."""

    kind: ClassVar[str] = "claims"
    claims: Sequence[Claim]


@dataclass(frozen=True)
class Legend:
    """The buttons that highlight methods in all figures of the page. Markdown has none."""

    kind: ClassVar[str] = "legend"


@dataclass(frozen=True)
class Figures:
    """Figures, one below the other.

    Args:
        pictures: The figures.
        wide: Whether they take the whole width of the page.
        captioned: Whether the page shows captions.
    """

    kind: ClassVar[str] = "figures"
    pictures: Sequence[Picture]
    wide: bool = True
    captioned: bool = True


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        heading: Its heading.
        unit: Its unit.
        meaning: What it means.
        number: Whether it holds numbers, which Markdown aligns to the right.
    """

    heading: str
    unit: str = ""
    meaning: str = ""
    number: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: What it shows.
        small: What it shows below or beside the text.
        rows: The address of the rows behind it: dataset, method, name, and perhaps another method.
        value: What the page sorts it by, if not by its text.
        best: Whether it is marked as the best of its dataset.
        style: A class of the page's style sheet.
        link: Where it leads to on a site, whose cells have no rows behind them.
    """

    text: str
    small: str = ""
    rows: tuple[str, ...] = ()
    value: float | None = None
    best: bool = False
    style: str = ""
    link: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        cells: One per column.
        dataset: The dataset that the page filters by.
        method: The method that the page filters by.
        match: JSON with the cost to match of each seed.
        first: Whether it begins a group of rows.
        bound: Whether it is of the ceiling or the floor, or of a method that was not compared.
    """

    cells: Sequence[Cell]
    dataset: str = ""
    method: str = ""
    match: str = ""
    first: bool = False
    bound: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        label: What it is, for readers who cannot see it.
        columns: The columns.
        rows: The rows.
        head: Which column names the row, from 0.
        filters: The identifier of its filter on the page; without one it can be neither filtered nor sorted.
        layout: Classes of the page's style sheet.
    """

    kind: ClassVar[str] = "table"
    label: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    head: int = 0
    filters: str = ""
    layout: str = "numbers"


@dataclass(frozen=True)
class Entry:
    """A name, what is said of it, and in smaller type its source or unit."""

    name: str
    text: str
    source: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Entries:
    """A list of names and what is said of each.

    Args:
        entries: The entries.
        headings: The headings of the Markdown table, as many as it needs columns: name, text, source, unit.
    """

    kind: ClassVar[str] = "entries"
    entries: Sequence[Entry]
    headings: Sequence[str] = ("", "")


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class References:
    """Papers to cite, each with what it is cited for."""

    kind: ClassVar[str] = "references"
    entries: Sequence[tuple[str, str]]


Block = Paragraph | Heading | Claims | Legend | Figures | Table | Entries | Code | References


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Args:
        anchor: Its address on the page.
        title: Its heading; empty for the first.
        short: Its name in the page's navigation; empty to leave it out.
        blocks: Its parts.
    """

    anchor: str
    title: str
    short: str = ""
    blocks: Sequence[Block] = field(default_factory=tuple)
