"""Times the fits of a stored study again on this machine, and gives its runs these seconds.

python -m tools.retime DIR... [--datasets DATASET,...]

Seconds of two machines cannot be compared. When some runs of a study were made again elsewhere, this times one fit of
each method on each of the datasets, with nothing beside it, as a study does; runs of other seeds are given its seconds
for as many FLOPs. No other value changes. `retimed` in study.json says when, which datasets, and on which machine.
Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.config.labels import split
from bench.execution import scheduler
from bench.store import provenance, study_tables
from bench.store.files import write_json
from bench.store.records import RunResult, RunSpec
from bench.store.seconds import at
from bench.store.tables import write_table
from bench.study.folder import held
from bench.study.plan import resolve

SECONDS = ["wall_s", "cpu_s"]


def retime(folder: Path, datasets: Sequence[str] = ()) -> str:
    """Give the runs of a stored study the seconds of fits on this machine; what was done, in words.

    Args:
        folder: The study.
        datasets: Labels of the datasets; all if empty.

    Raises:
        ValueError: If the study has no such dataset, or if a fit cannot be timed.
    """
    before, study = held(folder), study_tables.read(folder)
    chosen = tuple(datasets) or study.datasets
    if unknown := set(chosen) - set(study.datasets):
        raise ValueError(f"{folder} has {', '.join(study.datasets)}, not {', '.join(sorted(unknown))}")
    done = study.runs[study.runs["status"] == "done"]
    made = set(zip(done["dataset"], done["method"], done["seed"], strict=True))
    first: dict[tuple[str, str], RunSpec] = {}
    for spec in resolve(before.settings, before.pairs).runs:
        if spec.dataset in chosen and (spec.dataset, spec.method, spec.seed) in made:
            first.setdefault((spec.dataset, spec.method), spec)
    timed: dict[tuple[str, str], RunResult] = {}
    for result in scheduler.time_alone(list(first.values())):
        timed[result.spec.dataset, result.spec.method] = result
        _, wall, _ = result.alone[-1]
        print(f"[{len(timed)}/{len(first)}] {result.spec.name}: {wall:.3g} s", flush=True)
    if untimed := [spec.name for pair, spec in first.items() if pair not in timed]:
        raise ValueError(f"nothing was written, as these fits could not be timed: {', '.join(untimed)}")
    for name in ("runs", "measurements"):
        for path in [path for path in folder.glob(f"{name}.*") if path.suffix in (".parquet", ".csv")]:
            write_table(path, with_seconds(getattr(study, name), timed))
    on = provenance.now()
    retiming = {"on": on, "datasets": list(chosen), "provenance": provenance.collect()}
    info = before.info | {
        "provenance": before.info["provenance"] | {"retimed": f"{', '.join(chosen)}, {on[:10]}"},
        "retimed": [*before.info.get("retimed", ()), retiming],
    }
    write_json(folder / "study.json", info)
    return f"{folder}: {len(timed)} fits were timed"


def with_seconds(table: pd.DataFrame, timed: dict[tuple[str, str], RunResult]) -> pd.DataFrame:
    """A table of a study with the seconds of the timed fit of the same dataset and method, where there is one."""
    table = table.copy()
    for (dataset, method), result in timed.items():
        rows = (table["dataset"] == dataset) & (table["method"] == method)
        wall, cpu = at(result.alone, table.loc[rows, "flops"].tolist())
        table.loc[rows, SECONDS] = list(zip(wall, cpu, strict=True))
        table.loc[rows, "concurrent"] = False
        if "timed_seed" in table:
            table.loc[rows, "timed_seed"] = result.spec.seed
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, metavar="DIR", nargs="+", help="a stored study")
    parser.add_argument("-d", "--datasets", default="", metavar="DATASET,...", help="all by default")
    asked = parser.parse_args()
    for each in asked.folders:
        print(retime(each, split(asked.datasets)), flush=True)
