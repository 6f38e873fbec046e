"""Puts the runs of a finished study into a stored one, in place of the runs of the same methods there.

python -m tools.replace DIR INTO [--instead-of DATASET,...]

A method was changed, or one is added: only its runs are made again. DIR is a study of these methods; INTO is the stored
study, as `tools.pack` or a report left it. Both must have the same conditions and seeds, and DIR no other datasets.
With --instead-of, the datasets of DIR take the place of those of INTO that are named, whose runs are dropped.
Baseline and margin stay those of INTO. `replaced` in study.json says when, which methods, on which datasets and what
made their runs, and the provenance says it in words. The other runs keep the keys of the code that made them: `python
-m tools.renew INTO` then shows that today's code gives their values.
"""

from __future__ import annotations

import argparse
import datetime
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from bench.config.labels import split
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


def replace(folder: Path, into: Path, instead_of: Sequence[str] = ()) -> str:
    """Put the runs of one study into another; what was done, in words.

    Args:
        folder: The finished study.
        into: The stored study.
        instead_of: Datasets of the stored study that are dropped. The other study may then have datasets of its own.

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
    if unknown := set(instead_of) - data.keys():
        raise ValueError(f"{into} has {', '.join(data)}, not {', '.join(unknown)}")
    if data != data | {name: of for name, of in others.items() if name in data or not instead_of}:
        raise ValueError(f"{folder} has datasets that {into} has not, or with other data")
    settings, roles = united(before.settings, after.settings), stored.roles | new.roles
    datasets = tuple(name for name in settings.datasets if name not in instead_of)
    ends_last = tuple(sorted(settings.methods, key=lambda label: roles.get(label) != "method"))
    own = {
        "methods": ends_last,
        "datasets": datasets,
        "baseline": before.settings.baseline,
        "margin": before.settings.margin,
    }
    plan = resolve(msgspec.structs.replace(settings, **own), before.pairs)
    runs = ordered(unite([new.runs, without(stored.runs, instead_of)]), plan)
    made, asked = set(map(tuple, runs[RUN].to_numpy().tolist())), {(s.dataset, s.method, s.seed) for s in plan.runs}
    if made != asked:
        raise ValueError(f"{into} with {folder} would lack {len(asked - made)} runs and have {len(made - asked)} more")
    for name in TABLES:
        for path in [path for path in into.glob(f"{name}.*") if path.suffix in (".parquet", ".csv")]:
            write_table(path, runs if name == "runs" else joined(name, folder, into, plan, instead_of))
    write_json(into / "study.json", described(plan, into, before.info, after.info, instead_of))
    file.write(plan, into, tomllib.loads((into / "study.toml").read_text())["name"])
    return f"{into}: {len(new.runs)} runs of {', '.join(new.methods)} are those of {folder}"


def without(table: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    """The rows of other datasets."""
    return table[~table["dataset"].isin(datasets)]


def joined(name: str, folder: Path, into: Path, plan: Plan, instead_of: Sequence[str]) -> pd.DataFrame:
    """A table of the stored study with the rows of the methods of the other one in place of its own."""
    new, stored = (read_table(each, name) if (each / f"{name}.parquet").is_file() else None for each in (folder, into))
    if stored is None:
        raise ValueError(f"{into} has {name}.csv without {name}.parquet")
    stored = without(stored, instead_of)
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


def described(
    plan: Plan, into: Path, before: dict[str, Any], after: dict[str, Any], instead_of: Sequence[str]
) -> dict[str, Any]:
    """study.json of the stored study with what was replaced, from that of both studies."""
    on, methods = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), list(after["methods"])
    datasets = list(after["datasets"])
    where = "" if set(datasets) == set(before["datasets"]) else f" on {', '.join(datasets)}"
    where += f" instead of {', '.join(instead_of)}" if instead_of else ""
    told = f"{', '.join(methods)}{where}, {on[:10]}"
    earlier = before["provenance"].get("replaced")
    replaced = {"on": on, "methods": methods, "datasets": datasets, "provenance": after["provenance"]}
    replaced |= {"instead_of": list(instead_of)} if instead_of else {}
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
    parser.add_argument("--instead-of", default="", metavar="DATASET,...", help="datasets of INTO that are dropped")
    asked = parser.parse_args()
    print(replace(asked.folder, asked.into, split(asked.instead_of)), flush=True)
