"""Prints one line for each check as it ends, and a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import click

from bench.check.conformance import Outcome

STATUSES = {"pass": "passed", "fail": "failed", "excused": "excused", "skipped": "skipped"}
COLOURS = {"pass": "green", "fail": "red", "excused": "yellow", "skipped": "yellow"}
WIDTH = 12


def show(outcomes: Iterable[Outcome]) -> int:
    """Print outcomes as they come. Returns the exit code: 1 if a check failed, else 0."""
    count: Counter[str] = Counter()
    for outcome in outcomes:
        count[outcome.status] += 1
        status = click.style(f"{outcome.status:7}", fg=COLOURS[outcome.status])
        click.echo(f"{status}  {outcome.check:{WIDTH}}  {outcome.seen} ({outcome.seconds:.1f} s)")
    click.echo(", ".join(f"{count[status]} {word}" for status, word in STATUSES.items() if count[status]))
    return 1 if count["fail"] else 0
