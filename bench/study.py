"""A study: a grid of cells in a folder, run once, resumed at will."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from bench import provenance, store
from bench.cell import CellResult, CellSpec, run_cell
from bench.errors import UsageError
from bench.options import flag
from bench.registry import Registry, code_version, registry

# What a folder's cells have in common; methods, datasets and seeds may be added to it later.
SHARED = ("size", "validation_size", "test_size", "latent_dim", "noise", "device", "max_flops", "max_seconds")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Settings:
    """What a study compares, and under which conditions; sizes are numbers of data."""

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: int = 3
    size: int = 500
    validation_size: int = 500
    test_size: int = 2000
    latent_dim: int | None = None
    noise: str = "known"
    device: str = "cpu"
    max_flops: float | None = None
    max_seconds: float | None = None
    plugins: tuple[str, ...] = ()


class Progress(Protocol):
    """Who is told how a study goes on."""

    def begin(self, total: int, waiting: list[CellSpec], jobs: int) -> None:
        """`waiting` of `total` cells are to run, `jobs` at a time."""
        ...

    def finish(self, result: CellResult) -> None:
        """A cell is over and written."""
        ...


class Silent:
    """Tells nobody."""

    def begin(self, total: int, waiting: list[CellSpec], jobs: int) -> None:
        """Nothing."""

    def finish(self, result: CellResult) -> None:
        """Nothing."""


class InterruptedStudyError(Exception):
    """A study that was stopped, or lost a worker, before its last cell; what is finished is kept."""


def run(settings: Settings, folder: Path, jobs: int, progress: Progress, command: str) -> list[CellResult]:
    """Run what is missing of a study, write its tables and report, and return all of its cells' results.

    Raises UsageError for settings that cannot be run or do not fit the folder, and InterruptedStudyError.
    """
    known = registry(settings.plugins)
    check(settings, known)
    settings, began, ended = _open(settings, folder)
    known = registry(settings.plugins)  # those of the folder's cells, too
    specs = list(cells(settings, known))
    found = {spec: store.read_cell(folder, spec) for spec in specs}
    waiting = [spec for spec, result in found.items() if result is None]
    progress.begin(len(specs), waiting, jobs)
    info = _describe(settings, known, command, jobs, began, folder)
    store.write_json(folder / "study.json", info)
    try:
        for result in _run_all(waiting, jobs):
            found[result.spec] = result
            store.write_cell(folder, result)
            progress.finish(result)
    except KeyboardInterrupt:
        raise InterruptedStudyError("interrupted") from None
    finally:
        done = [result for result in found.values() if result is not None]
        info["provenance"]["finished"] = provenance.now() if waiting else ended
        store.write_tables(folder, done)
        store.write_json(folder / "study.json", info)
    return done


def check(settings: Settings, known: Registry) -> None:
    """Raise UsageError for unknown names, dimensions that do not fit, and plugins that lack the contract."""
    for name in settings.methods:
        if known.method(name).origin != "built in":
            known.make_method(name)
    for name in settings.datasets:
        item = known.dataset(name)
        if item.origin != "built in":
            known.make_problem(name, settings.latent_dim)
        elif item.latent_dim is not None and settings.latent_dim not in (None, item.latent_dim):
            raise UsageError(
                f"dataset {name!r} has latent dimension {item.latent_dim}, got --latent-dim {settings.latent_dim}"
            )


def cells(settings: Settings, known: Registry) -> Iterator[CellSpec]:
    """The cells of a study, dataset by dataset, then seed by seed."""
    codes: dict[tuple[str, ...], str] = {}
    versions = tuple(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "scipy", "scikit-learn"))
    shared = {name: getattr(settings, name) for name in SHARED}
    for dataset in settings.datasets:
        for seed in range(settings.seeds):
            for method in settings.methods:
                files = {known.dataset(dataset).file, known.method(method).file} - {None}
                used = tuple(sorted(str(file) for file in files))
                if used not in codes:
                    codes[used] = code_version(used)
                yield CellSpec(
                    dataset=dataset,
                    method=method,
                    seed=seed,
                    density=seed == 0,
                    code=codes[used],
                    versions=versions,
                    plugins=settings.plugins,
                    **shared,
                )


def _open(settings: Settings, folder: Path) -> tuple[Settings, str, str | None]:
    """Create or check the folder; settings extended by what it holds already, and when it was begun and finished."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out needs a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with store.replacing(folder / "writable") as probe:
            probe.write_text("")
        (folder / "writable").unlink()
        (folder / "cells").mkdir(exist_ok=True) if _is_ours(folder) else None
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}") from None
    if not (folder / "study.json").exists():
        (folder / "cells").mkdir(exist_ok=True)
        return settings, provenance.now(), None
    held = store.read_json(folder / "study.json")
    if not isinstance(held, dict) or held.get("schema") != store.SCHEMA:
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
    """Settings with what the folder holds added; raises UsageError where its cells have other conditions."""
    for name in SHARED:
        if before.get(name) != getattr(settings, name):
            raise UsageError(
                f"{folder} holds a study with {flag(name)} {before.get(name)}, got {getattr(settings, name)}; "
                "use another --out, or --fresh to set it aside"
            )
    return replace(
        settings,
        methods=_union(before["methods"], settings.methods),
        datasets=_union(before["datasets"], settings.datasets),
        seeds=max(before["seeds"], settings.seeds),
        plugins=_union(before["plugins"], settings.plugins),
    )


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty or holds a study; raises UsageError if it holds anything else."""
    names = [path.name for path in folder.iterdir() if path.name not in ("cells", "README.md")]
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


def _union(first: Any, second: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def _run_all(specs: list[CellSpec], jobs: int) -> Iterator[CellResult]:
    """Run cells in worker processes of one thread each, yielding results as they come."""
    if not specs:
        return
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    from loky import ProcessPoolExecutor

    threads = dict.fromkeys(THREAD_VARIABLES, "1")
    executor = ProcessPoolExecutor(
        min(jobs, len(specs)), env=threads, initializer=_prepare_worker, initargs=(os.getpid(),)
    )
    try:
        for future in as_completed([executor.submit(run_cell, spec, jobs > 1) for spec in specs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InterruptedStudyError("a worker process died, perhaps for lack of memory") from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _prepare_worker(parent: int) -> None:
    """Leave interrupts to the parent, and do not outlive it: it may be killed without a chance to end its workers."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _describe(settings: Settings, known: Registry, command: str, jobs: int, began: str, folder: Path) -> dict[str, Any]:
    """The content of study.json."""
    chosen = {name: known.dataset(name) for name in settings.datasets}
    return {
        "schema": store.SCHEMA,
        "name": folder.resolve().name,
        "command": command,
        "settings": {**asdict(settings), "jobs": jobs},
        "provenance": {**provenance.collect(), "started": began, "finished": None},
        "datasets": {
            name: {
                "summary": i.summary,
                "source": i.source,
                "latent_dim": i.latent_dim,
                "data_dim": i.data_dim,
                "expected_log_prob": i.expected_log_prob,
            }
            for name, i in chosen.items()
        },
        "methods": {
            name: {"summary": known.method(name).summary, "source": known.method(name).source}
            for name in settings.methods
        },
    }
