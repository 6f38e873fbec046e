"""A study's tables made into a page, figures and a summary; it reads tables only, and never torch."""

from __future__ import annotations

from pathlib import Path

from bench.report.summary import summary

__all__ = ["summary", "write"]


def write(folder: Path) -> Path:
    """Write report.html, report.md and figures/ into a study folder, and return the path of report.html.

    The folder holds study.json, cells.parquet, measurements.parquet and perhaps densities.parquet. Raises
    FileNotFoundError where one of the first three is missing, ValueError where one cannot be read as such.
    """
    from bench.report.page import write as write_page  # which imports the plotting libraries

    return write_page(folder)
