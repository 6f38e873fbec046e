"""Studies made on different machines, joined into one: the union of their runs, where these agree.

Result files are compared as a whole, since the joined study keeps them. A report over several studies has their tables
alone, and keeps apart what disagrees (`bench.store.join`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.common.errors import StoppedError, UsageError
from bench.store import provenance, records, run_files, seconds, tables
from bench.store.files import read_json, replacing, write_json
from bench.store.locks import alone
from bench.store.records import NOT_IN_KEY, RunResult, RunSpec
from bench.study import file
from bench.study.agreement import difference
from bench.study.folder import Held, describe_study, different_conditions, extended, held, made, united
from bench.study.log import write_event
from bench.study.plan import Plan, resolve

SHOWN = 10


@dataclass(frozen=True)
class Run:
    """A run's result as a folder holds it.

    Args:
        folder: The study's folder.
        result: The result.
        content: The content of its file.
    """

    folder: Path
    result: RunResult
    content: dict[str, Any]

    @property
    def spec(self) -> RunSpec:
        """What was run."""
        return self.result.spec


@dataclass(frozen=True)
class Part:
    """A study to be merged.

    Args:
        folder: Its folder.
        held: What the folder holds.
        runs: Its finished runs.
    """

    folder: Path
    held: Held
    runs: tuple[Run, ...]


def merge(folders: Sequence[Path], out: Path, command: str) -> list[RunResult]:
    """Write the union of several studies, and of what `out` holds, to `out`.

    Args:
        folders: The studies' folders; they are left as they are.
        out: Where the union goes.
        command: The command, for study.json.

    Returns:
        The results of all its runs.

    Raises:
        UsageError: For folders that hold no study, or were made under other conditions; nothing is written.
        StoppedError: Where two folders hold different values of a run; nothing is written.
    """
    unique = list({folder.resolve(): folder for folder in folders}.values())
    if out.resolve() in [folder.resolve() for folder in unique]:
        raise UsageError(f"--out {out} is one of the folders to be merged; use another folder")
    present = [out] if (out / "study.json").is_file() else []
    parts = [read(folder) for folder in [*present, *unique]]
    for part in parts[1:]:
        _check_conditions(parts[0], part)
    runs = _union(run for part in parts for run in part.runs)
    if not runs:
        raise UsageError(f"there are no finished runs in {', '.join(map(str, unique))}")
    settings = united(*(part.held.settings for part in parts))
    plan = resolve(msgspec.structs.replace(settings, tuned=parts[0].held.settings.tuned))
    with alone(made(out)):
        plan, _ = extended(plan, out)
        return _write(out, plan, parts, runs, command)


def read(folder: Path) -> Part:
    """The study in a folder with the runs in its table, and those that were finished after it was written.

    Raises:
        UsageError: For a folder without a study of `compare`, and for a run that is damaged.
    """
    found = held(folder)
    kind = found.settings.KIND
    if kind != "compare":
        raise UsageError(f"{folder} holds results of `{kind}`; only studies of `compare` can be merged")
    listed = _listed(folder)
    runs = [_run(path, folder) for path in sorted((folder / "runs").glob("*.json")) if records.KEY.fullmatch(path.stem)]
    current = tuple(run for run in runs if listed.get(run.spec.name, run.spec.key) == run.spec.key)
    return Part(folder, found, current)


def _listed(folder: Path) -> dict[str, str]:
    """The keys of the runs in a study's table, by their names; a study that was killed may have none."""
    if not (folder / "runs.parquet").is_file():
        return {}
    try:
        rows = tables.read_table(folder, "runs").to_dict("records")
        return {f"{row['dataset']} / {row['method']} / seed {row['seed']}": str(row["key"]) for row in rows}
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}/runs.parquet cannot be read: {error}") from None


def _run(path: Path, folder: Path) -> Run:
    content = read_json(path)
    try:
        spec = msgspec.convert(content["spec"], RunSpec)
        result = run_files.read_run(folder, spec) if spec.key == path.stem else None
    except (KeyError, TypeError, AttributeError, ValueError):
        result = None
    if result is None:
        raise UsageError(f"{path} is damaged, or was written by another version of mapa-bench")
    return Run(folder, result, content)


def _check_conditions(first: Part, other: Part) -> None:
    """Raise UsageError where two studies have other conditions."""
    one, two = first.held, other.held
    for name, here, there in different_conditions(one.settings, two.settings, one.info["tuned"], two.info["tuned"]):
        raise UsageError(f"{first.folder} holds a study with {name} {here}, {other.folder} one with {there}")
    drawn = [{label: about.get("data") for label, about in part.info["datasets"].items()} for part in (one, two)]
    for label in drawn[0]:
        if drawn[0][label] != drawn[1].get(label, drawn[0][label]):
            raise UsageError(f"{first.folder} and {other.folder} hold studies of different data called {label}")


def _union(runs: Iterable[Run]) -> list[Run]:
    """Each run once; a borrowed copy, of which a study need not hold all rows, gives way to the run itself.

    Raises:
        UsageError: For two runs of one name that were not made alike.
        StoppedError: Where two results of a run have other values.
    """
    found: dict[str, Run] = {}
    clashes = []
    for run in sorted(runs, key=lambda run: bool(run.result.source)):
        first = found.setdefault(run.spec.name, run)
        _check_spec(first, run)
        if run.result.source:
            continue
        what, one, two = difference(first.content, run.content)
        if what:
            clashes.append(f"{run.spec.name}: {what} is {one} in {first.folder} and {two} in {run.folder}")
    if clashes:
        more = [f"and {len(clashes) - SHOWN} more runs"] if len(clashes) > SHOWN else []
        shown = "\n".join([*clashes[:SHOWN], *more])
        raise StoppedError(f"the same runs have different values; nothing was written:\n{shown}", 1)
    return list(found.values())


def _check_spec(first: Run, other: Run) -> None:
    """Raise UsageError where two runs of one name were not made under the same conditions, by the same code."""
    if first.spec.key == other.spec.key:
        return
    names = [name for name in RunSpec.__struct_fields__ if name not in NOT_IN_KEY]
    here, there = (msgspec.structs.asdict(run.spec) for run in (first, other))
    told = [f"{name} ({here[name]} and {there[name]})" for name in names if here[name] != there[name]]
    raise UsageError(f"{first.folder} and {other.folder} made {first.spec.name} with different {', '.join(told)}")


def _write(out: Path, plan: Plan, parts: Sequence[Part], runs: list[Run], command: str) -> list[RunResult]:
    """Write runs, tables, study file and study.json; the results in the order of a study's tables."""
    order = {name: place for place, name in enumerate((*plan.datasets, *plan.methods))}
    runs = sorted(runs, key=lambda run: (order[run.spec.dataset], run.spec.seed, order[run.spec.method]))
    write_json(out / "study.json", _described(out, plan, parts, command))
    for run in runs:
        if run.folder != out:
            with replacing(run_files.run_path(out, run.spec)) as temporary:
                temporary.write_bytes(run_files.run_path(run.folder, run.spec).read_bytes())
    results = [run.result for run in runs]
    tables.write_tables(out, seconds.quoted(results))
    file.write(plan, out)
    write_event(out, f"merged: {command} ({len(runs)} runs)")
    return results


def _described(out: Path, plan: Plan, parts: Sequence[Part], command: str) -> dict[str, Any]:
    """The content of study.json, with that of the parts as `sources`."""
    described = describe_study(plan, out, command, None)
    return described | {
        "provenance": _provenance([part.held.info for part in parts]),
        "sources": [source for part in parts for source in _sources(part)],
    }


def _provenance(infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all parts were made with, each value there is; begun with the first, finished with the merge."""
    each = [info["provenance"] for info in infos]
    names = dict.fromkeys(name for found in each for name in found)
    values = {name: list(dict.fromkeys(found.get(name) for found in each)) for name in names}
    shared = {name: found[0] if len(found) == 1 else "; ".join(map(str, found)) for name, found in values.items()}
    return shared | {"started": min(found["started"] for found in each), "finished": provenance.now()}


def _sources(part: Part) -> list[dict[str, Any]]:
    """Where a part comes from: itself, or what it was merged from."""
    info = part.held.info
    own = {"folder": str(part.folder), "command": info.get("command"), "provenance": info["provenance"]}
    return info.get("sources") or [own]
