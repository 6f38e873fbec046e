"""Puts the runs of a finished study into a stored one, in place of the runs of the same methods there.

python -m tools.replace DIR INTO

A method was changed, or one is added: only its runs are made again. DIR is a study of these methods; INTO is the stored
study, as `tools.pack` or a report left it. Both must have the same conditions and seeds, and DIR no other datasets.
Baseline and margin stay those of INTO. `replaced` in study.json says when, which methods, on which datasets and what
made their runs, and the provenance says it in words. The other runs keep the keys of the code that made them: `python
-m tools.renew INTO` then shows that today's code gives their values.
"""

from __future__ import annotations

import argparse
import datetime
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from bench.store import study_tables
from bench.store.files import write_json
from bench.store.join import unite
from bench.store.schema import RUN
from bench.store.stored import thinned
from bench.store.tables import read_table, write_table
from bench.study import file
from bench.study.folder import describe_study, different_conditions, held, united
from bench.study.plan import Plan, resolve

TABLES = ("measurements", "runs", "work", "diagnostics", "densities", "posteriors", "signals", "images")


def replace(folder: Path, into: Path) -> str:
    """Put the runs of one study into another; what was done, in words.

    Raises:
        ValueError: If the study is not finished, has other conditions or other data, or lacks runs.
    """
    before, after = held(into), held(folder)
    stored, new = study_tables.read(into), study_tables.read(folder)
    if after.finished is None or len(new.unfinished):
        raise ValueError(f"{folder} is not finished, or has runs that are not done")
    for name, old, other in different_conditions(
        before.settings, after.settings, *(each.info["tuned"] for each in (before, after))
    ):
        raise ValueError(f"{into} has {name} {old}, {folder} has {other}")
    data, others = ({name: of["data"] for name, of in each.info["datasets"].items()} for each in (before, after))
    if data != data | others:
        raise ValueError(f"{folder} has datasets that {into} has not, or with other data")
    settings, roles = united(before.settings, after.settings), stored.roles | new.roles
    ends_last = tuple(sorted(settings.methods, key=lambda label: roles.get(label) != "method"))
    own = {"methods": ends_last, "baseline": before.settings.baseline, "margin": before.settings.margin}
    plan = resolve(msgspec.structs.replace(settings, **own), before.pairs)
    runs = ordered(unite([new.runs, stored.runs]), plan)
    made, asked = set(map(tuple, runs[RUN].to_numpy().tolist())), {(s.dataset, s.method, s.seed) for s in plan.runs}
    if made != asked:
        raise ValueError(f"{into} with {folder} would lack {len(asked - made)} runs and have {len(made - asked)} more")
    for name in TABLES:
        for path in [path for path in into.glob(f"{name}.*") if path.suffix in (".parquet", ".csv")]:
            write_table(path, runs if name == "runs" else joined(name, folder, into, plan))
    write_json(into / "study.json", described(plan, into, before.info, after.info))
    file.write(plan, into, tomllib.loads((into / "study.toml").read_text())["name"])
    return f"{into}: {len(new.runs)} runs of {', '.join(new.methods)} are those of {folder}"


def joined(name: str, folder: Path, into: Path, plan: Plan) -> pd.DataFrame:
    """A table of the stored study with the rows of the methods of the other one in place of its own."""
    new, stored = (read_table(each, name) if (each / f"{name}.parquet").is_file() else None for each in (folder, into))
    if stored is None:
        raise ValueError(f"{into} has {name}.csv without {name}.parquet")
    if new is None or new.empty:
        return stored
    thin = name == "measurements" and len(stored) == len(thinned(stored))
    return ordered(unite([thinned(new) if thin else new, stored]), plan)


def ordered(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Rows in the order of a study's tables: by dataset, seed and method."""
    place = {label: i for i, label in enumerate((*plan.datasets, *plan.methods))}
    keys = table[RUN].assign(dataset=table["dataset"].map(place), method=table["method"].map(place))
    order = keys.sort_values(["dataset", "seed", "method"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def described(plan: Plan, into: Path, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """study.json of the stored study with what was replaced, from that of both studies."""
    on, methods = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), list(after["methods"])
    datasets = list(after["datasets"])
    where = "" if set(datasets) == set(before["datasets"]) else f" on {', '.join(datasets)}"
    told = f"{', '.join(methods)}{where}, {on[:10]}"
    earlier = before["provenance"].get("replaced")
    replaced = {"on": on, "methods": methods, "datasets": datasets, "provenance": after["provenance"]}
    return (
        describe_study(plan, into, before["command"], None)
        | {"name": before["name"], "evaluation": before["evaluation"]}
        | {name: before[name] for name in ("renewed", "sources") if name in before}
        | {
            "provenance": before["provenance"] | {"replaced": "; ".join(filter(None, (earlier, told)))},
            "replaced": [*before.get("replaced", ()), replaced],
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a finished study of the methods alone")
    parser.add_argument("into", type=Path, metavar="INTO", help="the stored study")
    asked = parser.parse_args()
    print(replace(asked.folder, asked.into), flush=True)
