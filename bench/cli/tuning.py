"""Prints what tuning chose."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from bench.cli.tables import make_console
from bench.common.units import MISSING, quantity
from bench.registry.registry import Registry
from bench.tuning.selection import Chosen, changes


def show(choices: list[Chosen], known: Registry) -> None:
    """Print the choices, their gain over the defaults, and the cost of choosing."""
    table = Table(title="median over seeds of the validation log-likelihood, in nats", title_justify="left", box=None)
    for name in ("dataset", "method", "defaults", "best", "chosen", "trials", "FLOPs", "seconds"):
        table.add_column(name, justify="left" if name in ("dataset", "method", "chosen") else "right")
    for each in choices:
        found = ", ".join(changes(each, known)) or "the defaults"
        tried = f"{each.trials}" + (f" ({each.unscored} unscored)" if each.unscored else "")
        cost = quantity("flops", each.flops), quantity("wall_s", each.wall_s)
        names = escape(each.dataset), escape(each.method)
        table.add_row(*names, _score(each.default), _score(each.best), found, tried, *cost)
    console = make_console()
    console.print(table)
    console.print("\nThe best of several scores is optimistic. `compare --tuned` measures what the choice is worth.")


def _score(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else MISSING
