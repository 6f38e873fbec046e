"""Gives a stored study the keys of today's code, once today's code has shown to give the same values.

python -m tools.renew DIR...

Code that changes may leave values as they were: a file is split, a feature is added. The stored runs would still be
refused by `compare --against`, since their keys hold a digest of the code. This repeats one run of each method for
each latent dimension, and at least one of each dataset, drawn at random. If all agree to the last digit, FLOPs and
passes included, the runs get the keys of today's code. `renewed` in study.json says when, from which code, and which
runs were repeated, and the provenance says it in words. If one differs, nothing is written: make the study again.
"""

from __future__ import annotations

import argparse
import datetime
import random
import tempfile
from pathlib import Path

from bench.config.schema import Execution
from bench.execution import scheduler
from bench.registry.fingerprints import Fingerprints
from bench.store import stored, study_tables
from bench.store.files import write_json
from bench.store.records import RunSpec
from bench.store.tables import write_table
from bench.study.against import agreement
from bench.study.folder import held
from bench.study.plan import resolve

JOBS = 2


def drawn(specs: list[RunSpec], dims: dict[str, int]) -> list[RunSpec]:
    """One run of each method for each latent dimension, and at least one of each dataset, drawn at random.

    Args:
        specs: The runs of a study.
        dims: The latent dimension of each dataset.
    """
    chance = random.SystemRandom()
    groups: dict[tuple[str, int], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.method, dims[spec.dataset]), []).append(spec)
    found: list[RunSpec] = []
    for group in groups.values():
        seen = {spec.dataset for spec in found}
        unseen = [spec for spec in group if spec.dataset not in seen]
        found.append(chance.choice(unseen or group))
    left = {spec.dataset for spec in specs} - {spec.dataset for spec in found}
    return [*found, *(chance.choice([spec for spec in specs if spec.dataset == dataset]) for dataset in left)]


def renew(folder: Path) -> str:
    """Repeat runs of a study, and give it the keys of today's code; what was done, in words.

    Raises:
        ValueError: If a repeated run has other values.
    """
    before, study = held(folder), study_tables.read(folder)
    plan = resolve(before.settings, before.pairs)
    there = stored.keys(study)
    old = [spec for spec in plan.runs if there[spec.name] != spec.key]
    if not old:
        return f"{folder} has the keys of today's code"
    dims = {label: plan.registry.make_problem(label, plan.settings.latent_dim).latent_dim for label in study.datasets}
    specs = drawn(old, dims)
    kept = {
        each.spec.name: each for each in stored.results(study, [(spec, plan.parameters_of(spec)) for spec in specs])
    }
    with scheduler.one_server(), tempfile.TemporaryDirectory() as made:
        for result in scheduler.run_all(specs, Execution(jobs=JOBS), Path(made)):
            agreed, told = agreement(result, kept[result.spec.name], margin=0.0, same_machine=True)
            print(f"{result.spec.name}: {told}", flush=True)
            if not agreed:
                raise ValueError(f"{result.spec.name} of {folder} has other values; make the study again")
    keys = {spec.name: spec.key for spec in plan.runs}
    runs = study.runs.copy()
    names = runs["dataset"] + " / " + runs["method"] + " / seed " + runs["seed"].astype(str)
    runs["key"] = names.map(keys)
    today, on = Fingerprints().of(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    renewal = {
        "on": on,
        "code_before": before.info["evaluation"]["code"],
        "repeated": [spec.name for spec in specs],
    }
    told = f"for later code, {on[:10]}: {len(specs)} runs were repeated with the same values"
    info = before.info | {
        "evaluation": {"code": today.code, "versions": list(today.versions)},
        "provenance": before.info["provenance"] | {"renewed": told},
        "renewed": [*before.info.get("renewed", ()), renewal],
    }
    for path in folder.glob("runs.*"):
        if path.suffix in (".parquet", ".csv"):
            write_table(path, runs)
    write_json(folder / "study.json", info)
    return (
        f"{folder}: {len(old)} of {len(plan.runs)} runs renewed, after {len(specs)} were repeated with the same values"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, metavar="DIR", nargs="+", help="a stored study")
    for each in parser.parse_args().folders:
        print(renew(each), flush=True)
