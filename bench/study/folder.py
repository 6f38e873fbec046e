"""A study's folder: made, checked against what it holds already, described, or set aside."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.common.errors import UsageError
from bench.common.units import plural
from bench.config import labels
from bench.config.fields import flag
from bench.config.schema import CONDITIONS, REPORT, STUDIES, Conditions, Settings
from bench.registry.fingerprints import Fingerprints
from bench.store import locks, provenance
from bench.store.files import read_json, refuse_links, replacing
from bench.store.records import KEY
from bench.store.schema import SCHEMA, check_schema
from bench.study.plan import Pair, Plan, resolve

OURS = re.compile(r"runs|locks|data|README\.md|\.lock|\.?writable|\..*\.tmp")  # what a study has before study.json
OF_A_RUN = re.compile(rf"{KEY.pattern}(\.not-believed-\d+)?\.json|\..*\.tmp")
SET_ASIDE = "use another --out, or --fresh to set it aside"


def made(folder: Path) -> Path:
    """The folder itself, created if needed.

    Raises:
        UsageError: If it cannot be written to, holds something other than a study, or a damaged one.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out needs a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "writable") as probe:
            probe.write_text("")
        (folder / "writable").unlink(missing_ok=True)  # which another process may have done
        _check_is_study(folder)
        if (folder / "study.json").exists():
            held(folder)
        (folder / "runs").mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}") from None
    return folder


def _check_is_study(folder: Path) -> None:
    """Raise UsageError if a folder holds anything but a study."""
    refuse_links(folder)
    names = [path.name for path in folder.iterdir() if not OURS.fullmatch(path.name)]
    if not (folder / "study.json").exists():
        names += [f"{part}/{path.name}" for part in ("runs", "locks") for path in _foreign(folder / part)]
    if names and not (folder / "study.json").exists():
        raise UsageError(f"{folder} is not empty and holds no study ({names[0]}, ...); use another --out")


def _foreign(folder: Path) -> list[Path]:
    """The files in a folder for runs or locks that are neither."""
    return [path for path in folder.glob("*") if OF_A_RUN.fullmatch(path.name) is None]


@dataclasses.dataclass(frozen=True)
class Held:
    """What a folder holds already.

    Args:
        settings: Its settings.
        pairs: Its pairs of dataset and method; None for all.
        info: The content of study.json.
    """

    settings: Settings
    pairs: tuple[Pair, ...] | None
    info: dict[str, Any]

    @property
    def started(self) -> str:
        """When its first command began, in UTC."""
        return str(self.info["provenance"]["started"])

    @property
    def finished(self) -> str | None:
        """When its last command ended, in UTC; None if it has not."""
        finished: str | None = self.info["provenance"]["finished"]
        return finished


def held(folder: Path) -> Held:
    """What the study in a folder holds. A plugin file that is gone is looked for in the folder.

    Raises:
        UsageError: Where there is no study, for one of another schema, and for one that is damaged.
    """
    refuse_links(folder)
    if not (folder / "study.json").is_file():
        raise UsageError(f"{folder} holds no study: there is no study.json in it")
    info = read_json(folder / "study.json")
    if not isinstance(info, dict):
        raise UsageError(f"{folder}/study.json is damaged; {SET_ASIDE}")
    if info.get("kind") == REPORT:
        raise UsageError(
            f"{folder} is a report over several studies, not a study; `python -m bench merge` makes a study of them"
        )
    try:
        check_schema(folder, info.get("schema"))
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        settings = msgspec.convert(info["settings"], STUDIES[info["kind"]])
        if info["tuned"] is not None:
            file = folder / "tuned" / Path(info["tuned"]["file"]).name
            settings = msgspec.structs.replace(settings, tuned=str(file))
        data = tuple(str(folder.resolve() / file) for file in settings.data)
        beside = tuple(str(folder.resolve() / Path(file).name) for file in settings.plugins)
        plugins = tuple(
            there if Path(there).is_file() and not Path(file).is_file() else file
            for file, there in zip(settings.plugins, beside, strict=True)
        )
        settings = msgspec.structs.replace(settings, data=data, plugins=plugins)
        pairs = info["pairs"]
        return Held(
            settings,
            None if pairs is None else tuple((dataset, method) for dataset, method in pairs),
            info | {"provenance": {"started": info["provenance"]["started"], **info["provenance"]}},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{folder}/study.json is damaged; {SET_ASIDE}") from None


def extended(plan: Plan, folder: Path) -> tuple[Plan, Held | None]:
    """A plan with all that its folder holds already, and that.

    Args:
        plan: What is asked for.
        folder: The folder, as `made` leaves it.

    Raises:
        UsageError: Where the folder's runs were made under other conditions, or its study.json is damaged.
    """
    if not (folder / "study.json").exists():
        return plan, None
    before = held(folder)
    if before.settings.KIND != plan.settings.KIND:
        kinds = f"`{before.settings.KIND}`, not of `{plan.settings.KIND}`"
        raise UsageError(f"{folder} holds results of {kinds}; use another --out")
    if differences := different_conditions(before.settings, plan.settings, before.info["tuned"], tuned_info(plan)):
        name, old, new = differences[0]
        raise UsageError(f"{folder} holds a study with {name} {old}, got {new}; {SET_ASIDE}")
    pairs = None if plan.pairs is None else tuple(dict.fromkeys([*(before.pairs or ()), *plan.pairs]))
    together = msgspec.structs.replace(united(before.settings, plan.settings), tuned=plan.settings.tuned)
    return (plan if (together, pairs) == (plan.settings, plan.pairs) else resolve(together, pairs)), before


def different_conditions(
    one: Settings, two: Settings, tuned_one: Mapping[str, Any] | None, tuned_two: Mapping[str, Any] | None
) -> list[tuple[str, object, object]]:
    """The conditions that two studies do not share: how each is spelled, and both values."""
    shared = (*CONDITIONS, *(name for name in ("budget", "trials", "repeats") if name in one.__struct_fields__))
    defaults = {} if one.data or two.data else msgspec.structs.asdict(Conditions())

    def stated(settings: Settings, name: str) -> str:
        value = getattr(settings, name)
        return _spelled(defaults.get(name) if value is None else value)

    told: list[tuple[str, object, object]] = [(flag(name), stated(one, name), stated(two, name)) for name in shared]
    both = {*map(labels.name_of, one.methods)} & {*map(labels.name_of, two.methods)}
    told += [(f"--set {name}", _assigned(one, name), _assigned(two, name)) for name in sorted(both)]
    if one.data and two.data:
        told.append(("--columns", ",".join(one.columns) or "none", ",".join(two.columns) or "none"))
    told.append(("--tuned", _cited(tuned_one), _cited(tuned_two)))
    return [(name, old, new) for name, old, new in told if old != new]


def _spelled(value: object) -> str:
    return labels.spell_value(value)


def _assigned(settings: Settings, name: str) -> str:
    """The hyperparameters of every use of a method, as the command line gives them."""
    given = settings.set.get(name, {})
    return " ".join(f"{key}={labels.spell_value(value)}" for key, value in given.items()) or "nothing"


def _cited(tuned: Mapping[str, Any] | None) -> str:
    return "none" if tuned is None else f"{tuned['file']} (sha256 {tuned['sha256'][:16]})"


def united(*every: Settings) -> Settings:
    """The settings of several studies in one: all that any has; the baseline and the margin of the last one."""

    def union(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each for settings in every for each in getattr(settings, name)))

    names = dict.fromkeys(name for settings in every for name in (settings.author or "").split(", ") if name)
    first = min(settings.first_seed for settings in every)
    stop = max(settings.every_seed.stop for settings in every)
    return msgspec.structs.replace(
        every[0],
        methods=union("methods"),
        datasets=union("datasets"),
        baseline=next((settings.baseline for settings in reversed(every) if settings.baseline), ()),
        margin=every[-1].margin,
        author=", ".join(names) or None,
        first_seed=first,
        seeds=stop - first,
        plugins=present(union("plugins")),
        data=_latest(union("data")),
        columns=next((settings.columns for settings in reversed(every) if settings.data), ()),
        set={name: given for settings in every for name, given in settings.set.items()},
    )


def present(plugins: tuple[str, ...]) -> tuple[str, ...]:
    """Plugin files without those that were moved: that are gone, while one of the same name is there."""
    here = {Path(file).name for file in plugins if Path(file).is_file()}
    return tuple(file for file in plugins if Path(file).is_file() or Path(file).name not in here)


def _latest(data: tuple[str, ...]) -> tuple[str, ...]:
    """Files of data, each name once: of those that are there, the last one, since files may be moved."""
    there = [file for file in data if Path(file).is_file()]
    return tuple({Path(file).name: file for file in (*data, *there)}.values())


def tuned_info(plan: Plan) -> dict[str, Any] | None:
    """What study.json says of the tuned hyperparameters."""
    if plan.tuned is None:
        return None
    found: dict[str, Any] = plan.tuned.described(plan.datasets, plan.methods, plan.settings.set, plan.registry)
    return found


def describe_study(plan: Plan, folder: Path, command: str, before: Held | None) -> dict[str, Any]:
    """The content of study.json.

    Args:
        plan: What the folder holds.
        folder: The study's folder.
        command: The command that runs it.
        before: What the folder held before.
    """
    started = provenance.now() if before is None else before.started
    kept = {} if before is None else {name: before.info[name] for name in ("sources",) if name in before.info}
    return {
        **kept,
        "schema": SCHEMA,
        "name": folder.resolve().name,
        "kind": plan.settings.KIND,
        "scored_on": plan.settings.scored_on,
        "command": command,
        "settings": stated_settings(plan, folder),
        "pairs": plan.pairs,
        "tuned": tuned_info(plan),
        "evaluation": dataclasses.asdict(Fingerprints().of()),
        "provenance": {**provenance.collect(), "started": started, "finished": None},
        "datasets": {
            label: {
                "summary": entry.summary,
                "source": entry.source,
                "latent_dim": entry.latent_dim,
                "data_dim": entry.data_dim,
                "likelihood": plan.family(label),
                "expected_log_prob": entry.expected_log_prob,
                "data": plan.data(label),
                "test_points": plan.test_points(label),
            }
            for label, entry in plan.datasets.items()
        },
        "methods": {label: _method_info(plan, label) for label in plan.methods},
    }


def stated_settings(plan: Plan, folder: Path) -> dict[str, Any]:
    """The settings as a study's folder states them: the files that it holds by their paths within it."""
    home, settings = folder.resolve(), msgspec.to_builtins(plan.settings)
    paths = [Path(file) for file in plan.settings.data]
    settings["data"] = [str(p.relative_to(home) if p.is_relative_to(home) else p) for p in paths]
    if plan.tuned is not None:
        settings["tuned"] = f"tuned/{plan.tuned.file}"
    return settings


def _method_info(plan: Plan, label: str) -> dict[str, Any]:
    entry, method = plan.methods[label], plan.registry.make_method(label)
    group = method.colour_group or labels.name_of(label)
    return {
        "summary": entry.summary,
        "source": entry.source,
        "role": method.role,
        "stacks": method.stacks,
        "colour_group": group,
    }


def set_aside(folder: Path) -> Path | None:
    """Rename a study's folder.

    Returns:
        Its new path; None if there was none.

    Raises:
        UsageError: If the folder holds no study, or one of whose runs some are being made.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    _check_is_study(folder)
    if running := locks.held(folder):
        count = plural(len(running), "run")
        raise UsageError(f"another process is making {count} in {folder}; end it, or use another --out")
    for number in range(1, 10_000):
        aside = folder.with_name(f"{folder.name}.old-{number}")
        if not aside.exists():
            folder.rename(aside)
            return aside
    raise UsageError(f"{folder} has been set aside 9,999 times; remove some of its copies")
