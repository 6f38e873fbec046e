"""What is written of tuning: the trials, and tuned.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.config.schema import CONDITIONS
from bench.registry.fingerprints import project_digest
from bench.store import provenance, tables
from bench.store.files import write_json
from bench.study.hyperparameters import SCHEMA
from bench.study.plan import Plan
from bench.tuning.design import FRESH_SEEDS, SEARCH, searched, settings_of
from bench.tuning.selection import AHEAD, Chosen, by_dataset

if TYPE_CHECKING:
    import pandas as pd

SCORED = "median over seeds of the mean log-likelihood of validation data"
RULE = (
    f"the defaults are kept unless the trial with the best score is ahead of them on at least {AHEAD} of {FRESH_SEEDS} "
    "fresh seeds, and by a mean difference of more than its standard error"
)


def write(folder: Path, plan: Plan, rows: pd.DataFrame, choices: list[Chosen], command: str) -> Path:
    """Write trials.parquet, trials.csv and tuned.json.

    Args:
        folder: The study's folder.
        plan: The plan of the tuning.
        rows: The table of trials.
        choices: What was chosen.
        command: The command.

    Returns:
        The path of tuned.json.
    """
    stored = rows.apply(tables.of_one_type)
    for suffix in ("parquet", "csv"):
        tables.write_table(folder / f"trials.{suffix}", stored)
    settings = settings_of(plan)
    stated = msgspec.to_builtins(settings)
    asked = ("trials", "repeats", "jointly", "set", *CONDITIONS)
    conditions = {name: stated[name] for name in asked if name != "n_test"}
    of_search = rows[rows["stage"] == SEARCH].groupby("tuning")["seed"]
    ranges = {m: {name: str(each) for name, each in searched(plan, m).items()} for m in rows["method"].unique()}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "datasets": by_dataset(choices),
        "score": SCORED + (", its mean over datasets" if settings.jointly else ""),
        "rule": RULE,
        "budget": {"flops": settings.budget, "seeds": int(of_search.nunique().max()), **conditions},
        "seeds": sorted(rows["seed"].unique().tolist()),
        "search": ranges,
        "choices": [asdict(each) for each in choices],
        "command": command,
        "code": project_digest(),
        "provenance": provenance.collect(),
    }
    write_json(folder / "tuned.json", content)
    return folder / "tuned.json"
