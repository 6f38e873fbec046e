"""A study's folder: made, checked against what it holds already, or set aside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.common.errors import UsageError
from bench.registry import labels
from bench.store import provenance, tables
from bench.store.schema import SHARED as SHARED
from bench.study.options import flag

if TYPE_CHECKING:
    from bench.study.execute import Settings
    from bench.study.hyperparameters import Tuned


OURS = re.compile(r"runs|claims|README\.md|\.lock|\.?writable|\..*\.tmp")  # what a study has before study.json


def made(folder: Path) -> Path:
    """The folder itself, created if need be; raises UsageError if it cannot be written to, or is of something else."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out needs a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tables.replacing(folder / "writable") as probe:
            probe.write_text("")
        (folder / "writable").unlink(missing_ok=True)  # which another process may have done
        (folder / "runs").mkdir(exist_ok=True) if _is_ours(folder) else None
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}") from None
    return folder


def open_folder(settings: Settings, folder: Path) -> tuple[Settings, str, str | None]:
    """Create or check the folder; settings extended by what it holds already, and when it was begun and finished."""
    made(folder)
    if not (folder / "study.json").exists():
        (folder / "runs").mkdir(exist_ok=True)
        return settings, provenance.now(), None
    held = tables.read_json(folder / "study.json")
    if not isinstance(held, dict) or held.get("schema") != tables.SCHEMA:
        raise UsageError(f"{folder} holds results of another schema; use another --out, or --fresh to set it aside")
    try:
        return (
            _extended(settings, held["settings"], folder),
            held["provenance"]["started"],
            held["provenance"]["finished"],
        )
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{folder}/study.json is damaged; use another --out, or --fresh to set it aside") from None


def _extended(settings: Settings, before: dict[str, Any], folder: Path) -> Settings:
    """Settings with what the folder holds added; raises UsageError where its runs have other conditions."""
    kind = before.get("kind", "compare")
    if kind != settings.kind:
        raise UsageError(f"{folder} holds results of `{kind}`, not of `{settings.kind}`; use another --out")
    for name in (*SHARED, "budget", "trials"):
        if before.get(name) != getattr(settings, name):
            raise UsageError(
                f"{folder} holds a study with {flag(name)} {before.get(name)}, got {getattr(settings, name)}; "
                "use another --out, or --fresh to set it aside"
            )
    _check_parameters(settings, before, folder)
    first = before.get("first_seed", 0)
    seeds = spanned(range(first, first + before["seeds"]), settings.every_seed)
    pairs = None if settings.pairs is None else _pairs((*before["pairs"], *settings.pairs))
    return replace(
        settings,
        methods=union(before["methods"], settings.methods),
        datasets=union(before["datasets"], settings.datasets),
        first_seed=seeds.start,
        seeds=len(seeds),
        plugins=union(before["plugins"], settings.plugins),
        parameters={**before.get("parameters", {}), **settings.parameters},
        pairs=pairs,
    )


def spanned(*seeds: range) -> range:
    """The least range that holds all of several, and what lies between them."""
    return range(min(each.start for each in seeds), max(each.stop for each in seeds))


def _check_parameters(settings: Settings, before: dict[str, Any], folder: Path) -> None:
    """Raise UsageError where the folder's runs of a method have other parameters."""
    both = {labels.name_of(m) for m in before["methods"]} & {labels.name_of(m) for m in settings.methods}
    held = before.get("parameters", {})
    pairs = [(_assigned(n, held.get(n, {})), _assigned(n, settings.parameters.get(n, {}))) for n in sorted(both)]
    pairs.append((f"--tuned {before.get('tuned')}", f"--tuned {cited(settings.tuned)}"))
    for old, new in pairs:
        if old != new:
            raise UsageError(
                f"{folder} holds a study with {old}, got {new}; use another --out, or --fresh to set it aside"
            )


def _assigned(name: str, parameters: Mapping[str, Any]) -> str:
    """Parameters of every use of a method, as they are given on the command line."""
    given = [f"--set {name}.{key}={labels.spell_value(value)}" for key, value in parameters.items()]
    return " ".join(given) or f"no --set {name}"


def cited(tuned: Tuned | None) -> str | None:
    """How study.json says which tuned.json was used."""
    return None if tuned is None else tuned.citation


def _pairs(pairs: Iterable[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Each pair once, in order."""
    return tuple(dict.fromkeys((dataset, method) for dataset, method in pairs))


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty or holds a study; raises UsageError if it holds anything else."""
    names = [path.name for path in folder.iterdir() if not OURS.fullmatch(path.name)]
    if names and not (folder / "study.json").exists():
        raise UsageError(f"{folder} is not empty and holds no study ({names[0]}, ...); use another --out")
    return True


def set_aside(folder: Path) -> Path | None:
    """Rename a study folder out of the way, and return its new path; None if there was none."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    _is_ours(folder)
    for number in range(1, 10_000):
        aside = folder.with_name(f"{folder.name}.old-{number}")
        if not aside.exists():
            folder.rename(aside)
            return aside
    raise UsageError(f"{folder} has been set aside 9,999 times; remove some of its copies")


def union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in order."""
    return tuple(dict.fromkeys([*first, *second]))
