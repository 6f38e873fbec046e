"""Prints what tuning chose."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from bench.cli.tables import make_console
from bench.common.units import MISSING, plural, quantity
from bench.registry.registry import Registry
from bench.study.hyperparameters import EVERY
from bench.tuning.output import RULE
from bench.tuning.selection import Chosen, changes


def show(choices: list[Chosen], known: Registry) -> None:
    """Print the scores, the choices and the cost of each tuning, and why each choice was made."""
    table = Table(title="median over seeds of the validation log-likelihood, in nats", title_justify="left", box=None)
    for name in ("dataset", "method", "tuning", "defaults", "best", "chosen", "trials", "FLOPs", "confirmation"):
        table.add_column(name, justify="left" if name in ("dataset", "method", "chosen") else "right")
    for each in choices:
        found = ", ".join(changes(each, known)) if each.trial else "the defaults"
        tried = f"{each.trials}" + (f" ({each.unscored} unscored)" if each.unscored else "")
        fresh = MISSING if each.confirmation is None else quantity("flops", each.confirmation.flops)
        names = escape(_named(each.dataset)), escape(each.method), f"{each.tuning}"
        scores = _score(each.default_score), _score(each.best_score)
        table.add_row(*names, *scores, found, tried, quantity("flops", each.flops), fresh)
    console = make_console()
    console.print(table)
    lines = [f"{_named(each.dataset)} / {each.method}, tuning {each.tuning}: {each.reason}." for each in choices]
    kept = sum(each.trial == 0 for each in choices)
    lines.append(f"\n{plural(kept, 'choice')} of {len(choices)} are the defaults. The rule: {RULE}.")
    for line in ("", *lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _named(dataset: str) -> str:
    """What a choice is for, in words."""
    return "all datasets" if dataset == EVERY else dataset


def _score(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else MISSING
