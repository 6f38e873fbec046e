"""Begins a study with the runs of a stored one that have the same hyperparameters, so that only the others are made.

python -m tools.borrow STORED STUDY.toml OUT

A tuning keeps the defaults of most methods on most problems, and these runs are in the reference already. Both studies
must have the same conditions, but for datasets, methods and tuned hyperparameters. A stored run is taken if today's
code would make it, and if all its hyperparameters are those of the new one. `source` in runs says where it is from.
Then `python -m bench run STUDY.toml --out OUT` makes what is missing.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bench.store import run_files, stored, study_tables
from bench.store.locks import alone
from bench.study.file import read_plan
from bench.study.folder import different_conditions, held, made
from bench.study.plan import resolve


def borrow(folder: Path, study_file: Path, out: Path) -> str:
    """Write the runs that can be taken into the folder of the new study; what was done, in words.

    Runs that the folder holds already stay as they are.

    Raises:
        ValueError: If the studies have other conditions.
    """
    before, study = held(folder), study_tables.read(folder)
    plan, _ = read_plan(study_file, ())
    for name, old, new in different_conditions(before.settings, plan.settings, None, None):
        raise ValueError(f"{folder} has {name} {old}, {study_file} has {new}")
    kept = stored.keys(study)
    same_code = {spec.name: spec for spec in resolve(before.settings, before.pairs).runs if kept[spec.name] == spec.key}
    missing = (spec for spec in plan.runs if spec.name in same_code and not run_files.read_run(out, spec))
    each = ((spec, plan.parameters_of(spec)) for spec in missing)
    wanted = [(spec, own) for spec, own in each if own == plan.parameters_of(same_code[spec.name])]
    source = f"the study {study.info['name']}, at the same hyperparameters"
    with alone(made(out)):
        for result in stored.results(study, wanted):
            run_files.write_run(out, replace(result, source=source))
    return f"{len(wanted)} of {plan.size} runs are those of {folder}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="STORED", help="the folder of a stored study")
    parser.add_argument("study_file", type=Path, metavar="STUDY.toml", help="the settings of the new one")
    parser.add_argument("out", type=Path, metavar="OUT", help="its folder")
    print(borrow(**vars(parser.parse_args())), flush=True)
