"""A study's tables made into a page, figures and a summary; it reads tables only, and never torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bench.report.summary import summary

__all__ = ["FORMATS", "PAGES", "summary", "write"]

PAGES = ("html", "md")
FORMATS = (*PAGES, "latex", "png")


def write(folder: Path, formats: Collection[str] = PAGES) -> Path:
    """Write a study's figures and its report in each of the formats into its folder; the path of report.html.

    html: report.html. md: report.md. latex: tables/*.tex, references.bib and the figures as PDF, too. png: the figures
    as PNG, too. The folder holds study.json, cells.parquet, measurements.parquet and perhaps densities.parquet. Raises
    FileNotFoundError where one of the first three is missing, ValueError where one cannot be read as such.
    """
    from bench.report.page import write as write_page  # which imports the plotting libraries

    page = write_page(folder, formats)
    if "latex" in formats:
        from bench.report import bibliography, latex
        from bench.report.study import read

        study = read(Path(folder))
        latex.write(study)
        bibliography.write(study)
    return page
