"""Methods and datasets of third parties: installed under an entry-point group, or in a plugin file."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.common.errors import UsageError, describe
from bench.common.text import plain
from bench.config import labels
from bench.process.containment import importing

GROUPS = {"methods": "mapa_bench.methods", "datasets": "mapa_bench.datasets"}
VARIABLES = {"methods": "METHODS", "datasets": "DATASETS"}
RESERVED = ("curves", "surfaces", "discrete", "all")


@dataclass(frozen=True)
class Entry:
    """A method or dataset that can be asked for by name.

    Args:
        name: Its name.
        summary: What it is, in a line.
        source: Where it comes from.
        origin: Who offers it: "built in", a package or a plugin file.
        load: Imports what the name stands for, and returns it.
        module: The module that defines it; empty for a plugin file.
        file: The plugin file that defines it; None for anything else.
        distribution: The installed package that offers it, with its version; empty for anything else.
        latent_dim: L of a dataset; None if it takes any.
        data_dim: D of a dataset; None if it takes any.
        expected_log_prob: E log p(x) of a dataset's true model in nats, and its standard error; None if not known.
        data_file: The file that a dataset is read from; None for anything else.
        conditions: The conditions of a dataset's runs for which no value is given.
    """

    name: str
    summary: str
    source: str
    origin: str
    load: Callable[[], Any]
    module: str = ""
    file: str | None = None
    distribution: str = ""
    latent_dim: int | None = None
    data_dim: int | None = None
    expected_log_prob: tuple[float, float] | None = None
    data_file: str | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PluginFile:
    """A file of data or of a plugin as it is sent to another machine.

    Args:
        path: Its path where the study was started.
        files: Its content and that of the modules beside it that it imports, by path relative to its folder.
    """

    path: str
    files: tuple[tuple[str, bytes], ...]


def installed(kind: str) -> Iterator[Entry]:
    """What installed packages offer under an entry-point group.

    Args:
        kind: "methods" or "datasets".
    """
    for point in _entry_points(GROUPS[kind], tuple(map(_dated, sys.path))):
        origin = f"package {point.dist.name}" if point.dist else point.value
        version = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        missing = "" if util.find_spec(point.module.partition(".")[0]) else ", which is not installed"
        load = partial(_load_point, point, origin)
        yield Entry(point.name, f"from {point.value}{missing}", origin, origin, load, point.module, None, version)


@cache
def _entry_points(group: str, path: tuple[tuple[str, int], ...]) -> metadata.EntryPoints:  # noqa: ARG001 - a key
    """The entry points of a group on a path. They are read again once a folder of the path has changed."""
    return metadata.entry_points(group=group)


def _dated(folder: str) -> tuple[str, int]:
    """A folder and when packages were last added to it or removed; 0 if it is gone."""
    try:
        return folder, os.stat(folder).st_mtime_ns  # noqa: PTH116 - the folder may be ""
    except OSError:
        return folder, 0


def _load_point(point: metadata.EntryPoint, origin: str) -> Any:
    try:
        with importing(origin):
            return point.load()
    except KeyboardInterrupt:
        _interrupted(origin)
        raise
    except BaseException as error:
        raise UsageError(f"{origin} cannot be imported: {describe(error)}") from error


def _interrupted(what: str) -> None:
    """Say what was being imported, since the command that is interrupted ends without another word."""
    import click

    click.echo(f"interrupted while {plain(what)} was imported", err=True)


def offered(file: str) -> dict[str, list[Entry]]:
    """What a plugin file offers, by kind.

    Args:
        file: Path of a Python file that defines METHODS = {name: class} or DATASETS = {name: factory}.

    Raises:
        UsageError: For a file that cannot be imported or offers nothing, and for names that cannot be asked for.
    """
    module = load_plugin(str(Path(file).resolve()))
    offers = {kind: vars(module).get(variable) for kind, variable in VARIABLES.items()}
    if not any(offers.values()):
        raise UsageError(
            f"plugin {file} offers nothing: it needs METHODS = {{name: class}} or DATASETS = {{name: factory}}"
        )
    return {kind: list(_entries(found or {}, VARIABLES[kind], file)) for kind, found in offers.items()}


def _entries(offers: Any, variable: str, file: str) -> Iterator[Entry]:
    if not isinstance(offers, Mapping):
        raise UsageError(f"plugin {file}: {variable} must map names to classes, got {type(offers).__name__}")
    for name, target in offers.items():
        if not isinstance(name, str) or not (callable(target) or hasattr(target, "fit")):
            raise UsageError(f"plugin {file}: {variable} must map names to callables, got {name!r}: {target!r}")
        if not labels.NAME.fullmatch(name) or name in RESERVED:
            raise UsageError(
                f"plugin {file}: {variable} has the name {name!r}, which cannot be asked for: "
                f"use letters, digits and . _ + -, and none of {', '.join(RESERVED)}"
            )
        origin = f"plugin {Path(file).name}"
        yield Entry(name, first_line(target), origin, origin, partial(_identity, target), file=file)


def _identity(target: Any) -> Any:
    return target


def first_line(target: object) -> str:
    """The claim that a docstring opens with, or nothing."""
    return (inspect.getdoc(target) or "").partition("\n")[0].rstrip(".")


@cache
def load_plugin(file: str) -> ModuleType:
    """The module of a plugin file, imported once per process; it may import modules that lie beside it.

    Raises:
        UsageError: If the file cannot be read or fails on import.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"plugin {file} is not a file")
    spec = util.spec_from_file_location(f"mapa_bench_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"plugin {file} is not a Python file")
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        with importing(f"plugin {path.name}"):
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        _interrupted(f"plugin {file}")
        raise
    except BaseException as error:
        raise UsageError(f"plugin {file} cannot be imported: {describe(error)}") from error
    return module
