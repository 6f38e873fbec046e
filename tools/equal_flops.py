"""Finds what the methods of a stored study reach with the FLOPs that its first baseline took at the same seed.

The looks of a study are three to a factor of ten in FLOPs, so that its tables say only what a method had reached with
half to all of them. Here each fit ends at them. Adds what is missing to results/reference/gaps/equal-NAME.csv, with the
rows of the baseline as the study has them.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from bench.config.labels import name_of, spell
from bench.stats.summary import final, learners
from bench.store.records import RunSpec
from bench.store.study_tables import Study, read
from bench.study.folder import held
from bench.study.plan import resolve
from tools.gaps import OUT, fitted

RUN = ["method", "dataset", "seed"]


def path_of(study: Study) -> Path:
    """Where the table of a study is kept."""
    return OUT / f"equal-{study.name}.csv"


def ends(study: Study) -> pd.DataFrame:
    """The oracle gap and FLOPs at the end of each run, by method, dataset and seed."""
    gaps = final(study.measurements, study.runs)[["oracle_gap"]].reorder_levels(RUN).sort_index()
    return gaps.rename_axis(columns=None).join(study.runs.set_index(RUN)["flops"])


def _label(spec: RunSpec) -> str:
    return spell(name_of(spec.method), dict(spec.parameters))


def at_budget(given: tuple[str, str, str, int, int, float]) -> dict[str, object]:
    """One row of the table, for a method's name, its label, dataset, seed, training points and budget in FLOPs."""
    torch.set_num_threads(1)
    name, label, dataset, seed, n_train, budget = given
    return fitted(label, dataset, seed, n_train, budget) | {"method": name}


def main() -> None:
    """Fit what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the folder of a study on problems whose true model is known")
    parser.add_argument("-m", "--methods", nargs="+", help="names of methods; all that learn by default")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    study = read(asked.study)
    mine, before = ends(study).loc[study.baseline[0]], held(asked.study)
    specs = {(spec.method, spec.dataset, spec.seed): spec for spec in resolve(before.settings, before.pairs).runs}
    names = asked.methods or [name for name in learners(study.runs) if name != study.baseline[0]]
    own = mine.assign(method=study.baseline[0]).reset_index()[[*RUN, "oracle_gap", "flops"]]
    path = path_of(study)
    there = pd.read_csv(path) if path.exists() else own
    others = there[there["method"] != study.baseline[0]]
    rows = [*own.to_dict("records"), *others.to_dict("records")]
    done = {tuple(row[key] for key in RUN) for row in rows}
    wanted = [
        (name, _label(specs[name, *of]), *of, specs[name, *of].n_train, mine.loc[of, "flops"])
        for of, name in product(mine.index, names)
        if (name, *of) not in done
    ]
    with ProcessPoolExecutor(asked.jobs) as pool:
        for count, row in enumerate(pool.map(at_budget, wanted), 1):
            rows.append({key: row[key] for key in own})
            pd.DataFrame(rows).to_csv(path, index=False)
            print(f"[{count}/{len(wanted)}] {row['method']} on {row['dataset']}, seed {row['seed']}", flush=True)


if __name__ == "__main__":
    main()
