"""Studies made on different machines, joined into one: the union of their runs, where these agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import methods
from bench.common.errors import StoppedError, UsageError
from bench.registry import labels
from bench.store import provenance, tables
from bench.store.locks import alone
from bench.store.records import RunResult, RunSpec
from bench.study.agreement import difference
from bench.study.folder import SHARED, cited, open_folder, spanned, union
from bench.study.log import held, log, write_study_file
from bench.study.options import flag

if TYPE_CHECKING:
    from bench.study.execute import Settings

SHOWN = 10


@dataclass(frozen=True)
class Run:
    """A run's result as a folder holds it, and as it stands in its file."""

    folder: Path
    result: RunResult
    content: dict[str, Any]

    @property
    def spec(self) -> RunSpec:
        """What was run."""
        return self.result.spec


@dataclass(frozen=True)
class Part:
    """A study to be merged: its folder, settings, study.json and runs."""

    folder: Path
    settings: Settings
    info: dict[str, Any]
    runs: tuple[Run, ...]


def merge(folders: Sequence[Path], out: Path, command: str) -> list[RunResult]:
    """Write the union of the studies in folders, and of what `out` holds, to `out`; all of its runs' results.

    Raises UsageError for folders that hold no study or were made under other conditions, and StoppedError where two
    hold different values of a run. Nothing is written then, and to `folders` never.
    """
    unique = list({folder.resolve(): folder for folder in folders}.values())
    if out.resolve() in [folder.resolve() for folder in unique]:
        raise UsageError(f"--out {out} is one of the folders to be merged; give another one")
    present = [out] if (out / "study.json").is_file() else []
    parts = [_read(folder) for folder in [*present, *unique]]
    for part in parts[1:]:
        _check_conditions(parts[0], part)
    runs = _union([run for part in parts for run in part.runs])
    if not runs:
        raise UsageError(f"there are no finished runs in {', '.join(map(str, unique))}")
    settings = _joined(parts)
    open_folder(settings, out)
    with alone(out):
        return _write(out, settings, parts, runs, command)


def _read(folder: Path) -> Part:
    """The study in a folder with the runs in its table, and those that were finished since that was written."""
    settings, info = held(folder)
    if settings.kind != "compare":
        raise UsageError(f"{folder} holds results of `{settings.kind}`; only studies of `compare` can be merged")
    listed = _listed(folder)
    runs = [_run(path, folder) for path in sorted((folder / "runs").glob("*.json"))]
    current = tuple(run for run in runs if listed.get(run.spec.name, run.spec.key) == run.spec.key)
    return Part(folder, settings, info, current)


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
    content = tables.read_json(path)
    try:
        stated = {key: _frozen(value) for key, value in content["spec"].items()}
        spec = RunSpec(**stated)
        result = tables.read_run(folder, spec) if spec.key == path.stem else None
    except (KeyError, TypeError, AttributeError):
        result = None
    if result is None:
        raise UsageError(f"{path} is damaged, or was written by another version of mapa-bench")
    return Run(folder, result, content)


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _check_conditions(first: Part, other: Part) -> None:
    """Raise UsageError where two studies have other conditions."""
    one, two = first.settings, other.settings
    both = {*map(labels.name_of, one.methods)} & {*map(labels.name_of, two.methods)}
    told = [
        *((flag(name), getattr(one, name), getattr(two, name)) for name in SHARED),
        ("--tuned", cited(one.tuned), cited(two.tuned)),
        *((f"--set {name}", one.parameters.get(name, {}), two.parameters.get(name, {})) for name in sorted(both)),
    ]
    for what, here, there in told:
        if here != there:
            raise UsageError(f"{first.folder} holds a study with {what} {here}, {other.folder} one with {there}")


def _union(runs: Iterable[Run]) -> list[Run]:
    """Each run once; raises what `_check_code` raises, and StoppedError where values of a run differ."""
    found: dict[str, Run] = {}
    kinds: dict[tuple[str, ...], Run] = {}
    clashes = []
    for run in runs:
        _check_code(kinds.setdefault(_code_of(run.spec), run), run)
        _check_spec(found.setdefault(run.spec.name, run), run)
        clashes += _clash(found[run.spec.name], run)
    if clashes:
        more = [f"and {len(clashes) - SHOWN} runs more"] if len(clashes) > SHOWN else []
        told = "\n".join([*clashes[:SHOWN], *more])
        raise StoppedError(f"the same runs have other values, so that nothing was written:\n{told}", 1)
    return list(found.values())


def _code_of(spec: RunSpec) -> tuple[str, ...]:
    """What a run runs of code that is not built in: all runs of which this is the same share their code."""
    pairs = ((spec.dataset, datasets.BUILTIN), (spec.method, methods.BUILTIN))
    return tuple(name for label, builtin in pairs if (name := labels.name_of(label)) not in builtin)


def _check_code(first: Run, other: Run) -> None:
    for name in ("code", "versions"):
        if getattr(first.spec, name) != getattr(other.spec, name):
            raise UsageError(
                f"{first.folder} and {other.folder} were not made with the same {name}: "
                f"{_told(getattr(first.spec, name))} and {_told(getattr(other.spec, name))}"
            )


def _told(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _check_spec(first: Run, other: Run) -> None:
    """Raise UsageError where two runs of one name were not run under the same conditions."""
    if first.spec.key == other.spec.key:
        return
    names = [each.name for each in dataclasses.fields(RunSpec) if each.name != "plugins"]
    differ = [name for name in names if getattr(first.spec, name) != getattr(other.spec, name)]
    raise UsageError(f"{first.folder} and {other.folder} ran {first.spec.name} with other {', '.join(differ)}")


def _clash(first: Run, other: Run) -> list[str]:
    """How two results of one run differ, in a line, or nothing."""
    what, one, two = difference(first.content, other.content)
    if not what:
        return []
    return [f"{first.spec.name}: {what} is {one} in {first.folder} and {two} in {other.folder}"]


def _joined(parts: Sequence[Part]) -> Settings:
    """The settings of all parts in one."""
    every = [part.settings for part in parts]
    seeds = spanned(*(settings.every_seed for settings in every))
    return dataclasses.replace(
        every[0],
        methods=union((), (method for settings in every for method in settings.methods)),
        datasets=union((), (dataset for settings in every for dataset in settings.datasets)),
        first_seed=seeds.start,
        seeds=len(seeds),
        plugins=_files(union((), (file for settings in every for file in settings.plugins))),
        parameters={name: given for settings in every for name, given in settings.parameters.items()},
    )


def _files(plugins: Sequence[str]) -> tuple[str, ...]:
    """Plugin files without those that are not on this machine but have a namesake that is."""
    here = {Path(file).name for file in plugins if Path(file).is_file()}
    return tuple(file for file in plugins if Path(file).is_file() or Path(file).name not in here)


def _write(out: Path, settings: Settings, parts: Sequence[Part], runs: list[Run], command: str) -> list[RunResult]:
    """Write runs, tables, study file and study.json; the results in the order of a study's tables."""
    order = {name: place for place, name in enumerate((*settings.datasets, *settings.methods))}
    runs = sorted(runs, key=lambda run: (order[run.spec.dataset], run.spec.seed, order[run.spec.method]))
    tables.write_json(out / "study.json", _described(out, settings, parts, command))
    for run in runs:
        if run.folder != out:
            with tables.replacing(tables.run_path(out, run.spec)) as temporary:
                temporary.write_bytes(tables.run_path(run.folder, run.spec).read_bytes())
    results = [run.result for run in runs]
    tables.write_tables(out, results)
    write_study_file(out, settings)
    log(out, f"merged: {command} ({len(runs)} runs)")
    return results


def _described(out: Path, settings: Settings, parts: Sequence[Part], command: str) -> dict[str, Any]:
    """The content of study.json, with that of the parts as `sources`."""
    infos = [part.info for part in parts]
    sections = {name: dict(item for info in infos for item in info[name].items()) for name in ("datasets", "methods")}
    joined = ("methods", "datasets", "seeds", "first_seed", "plugins", "parameters")
    stated = {name: getattr(settings, name) for name in joined}
    return {
        **infos[0],
        **sections,
        "name": out.resolve().name,
        "command": command,
        "settings": {**infos[0]["settings"], **stated},
        "tuned": _tuned(infos),
        "provenance": _provenance(infos),
        "sources": [source for part in parts for source in _sources(part)],
    }


def _tuned(infos: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What parts took of one tuned.json."""
    if infos[0]["tuned"] is None:
        return None
    used: dict[str, Any] = {}
    for info in infos:
        for method, choices in info["tuned"]["methods"].items():
            used[method] = {**used.get(method, {}), **choices}
    return {**infos[0]["tuned"], "methods": used}


def _provenance(infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all parts were made with, each value that there is; begun with the first, finished with the merge."""
    each = [info["provenance"] for info in infos]
    names = dict.fromkeys(name for found in each for name in found)
    values = {name: list(dict.fromkeys(found.get(name) for found in each)) for name in names}
    shared = {name: found[0] if len(found) == 1 else "; ".join(map(str, found)) for name, found in values.items()}
    return shared | {"started": min(found["started"] for found in each), "finished": provenance.now()}


def _sources(part: Part) -> list[dict[str, Any]]:
    """Where a part comes from: itself, or what it was merged from."""
    own = {"folder": str(part.folder), "command": part.info.get("command"), "provenance": part.info["provenance"]}
    return part.info.get("sources") or [own]
