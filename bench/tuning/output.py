"""What is written of tuning: the trials, and tuned.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.registry.registry import Registry, code_version
from bench.store import provenance, tables
from bench.study.hyperparameters import SCHEMA
from bench.tuning.selection import Chosen, by_dataset

if TYPE_CHECKING:
    import pandas as pd

    from bench.study.execute import Settings

CONDITIONS = (
    *("trials", "first_seed", "size", "validation_size", "latent_dim", "noise", "device"),
    *("max_flops", "max_seconds", "parameters"),
)


def write(
    folder: Path, settings: Settings, rows: pd.DataFrame, choices: list[Chosen], known: Registry, command: str
) -> Path:
    """Write trials.parquet, trials.csv and tuned.json, whose path is returned."""
    stored = rows.apply(tables.of_one_type)
    for suffix in ("parquet", "csv"):
        tables.write_table(folder / f"trials.{suffix}", stored)
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
    tables.write_json(folder / "tuned.json", content)
    return folder / "tuned.json"
