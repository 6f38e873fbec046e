"""What is written and shown of tuning: trials, tuned.json, and a table."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import provenance, store
from bench.registry import Registry, code_version
from bench.report.format import MISSING, quantity
from bench.tuned import SCHEMA
from bench.tuning.selection import Chosen, by_dataset, changes

if TYPE_CHECKING:
    import pandas as pd

    from bench.study import Settings

CONDITIONS = (
    *("trials", "first_seed", "size", "validation_size", "latent_dim", "noise", "device"),
    *("max_flops", "max_seconds", "parameters"),
)


def write(
    folder: Path, settings: Settings, rows: pd.DataFrame, choices: list[Chosen], known: Registry, command: str
) -> Path:
    """Write trials.parquet, trials.csv and tuned.json, whose path is returned."""
    stored = rows.apply(store.of_one_type)
    for suffix in ("parquet", "csv"):
        store.write_table(folder / f"trials.{suffix}", stored)
    conditions = {name: asdict(settings)[name] for name in CONDITIONS}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "datasets": by_dataset(choices),
        "score": "median over seeds of the mean log-likelihood of validation data",
        "budget": {"flops": settings.budget, "seeds": rows["seed"].nunique(), **conditions},
        "search": {m: {name: str(r) for name, r in known.search(m).items()} for m in rows["method"].unique()},
        "choices": [asdict(each) for each in choices],
        "command": command,
        "code": code_version(settings.plugins),
        "provenance": provenance.collect(),
    }
    store.write_json(folder / "tuned.json", content)
    return folder / "tuned.json"


def show(choices: list[Chosen], known: Registry) -> None:
    """Print what was chosen, what it gains over the defaults, and what choosing cost."""
    from rich.markup import escape
    from rich.table import Table

    from bench.terminal import make_console

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
    console.print("\nThe best of several scores flatters: what the choice is worth, `compare --tuned` tells.")


def _score(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else MISSING
