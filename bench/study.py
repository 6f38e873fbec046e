"""A study: a grid of cells in a folder, run once, resumed at will."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from bench import labels, provenance, store
from bench.cell import CellResult, CellSpec, run_cell
from bench.errors import UsageError
from bench.folder import SHARED, cited, open_folder, union
from bench.registry import Registry, code_version, dataset_parameters, registry
from bench.tuned import Tuned

RARE = ("parameters", "tuned", "pairs", "first_seed", "budget", "trials")  # told of only where they are used
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Settings:
    """What a study compares, and under which conditions; sizes are numbers of data.

    methods, datasets: labels. parameters: those of every use of a method, by its name, where a label does not say
    otherwise. tuned: those chosen on each dataset, where neither does. pairs: the (dataset, method) to run; None for
    all. kind: the command that the study is of. scored_on: 'test' or 'validation'. budget: FLOPs that `tune` may spend
    on each method and dataset. trials: how many settings of a method it tries at most.
    """

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
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Tuned | None = None
    pairs: tuple[tuple[str, str], ...] | None = None
    first_seed: int = 0
    kind: str = "compare"
    scored_on: str = "test"
    budget: float | None = None
    trials: int | None = None


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
    settings = checked(settings, known)
    settings, began, ended = open_folder(settings, folder)
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


def checked(settings: Settings, known: Registry) -> Settings:
    """The settings with each label spelled in one way and parameters of their declared types.

    Raises UsageError for unknown names and parameters, values and dimensions that do not fit, and plugins that lack
    the contract.
    """
    methods = union((), map(known.method_label, settings.methods))
    parameters = _parameters(settings, methods, known)
    for label in methods:
        given = parameters.get(labels.name_of(label))
        if given or "[" in label or known.method(label).origin != "built in":
            known.make_method(label, given)
    datasets = union((), map(known.dataset_label, settings.datasets))
    for label in datasets:
        _check_dataset(label, settings.latent_dim, known)
    if settings.tuned is not None:
        settings.tuned.check(datasets, methods, known)
    return replace(settings, methods=methods, datasets=datasets, parameters=parameters)


def _check_dataset(label: str, latent_dim: int | None, known: Registry) -> None:
    item = known.dataset(label)
    if item.origin != "built in" or "[" in label:
        known.make_problem(label, latent_dim)
    elif item.latent_dim is not None and latent_dim not in (None, item.latent_dim):
        raise UsageError(f"dataset {label!r} has latent dimension {item.latent_dim}, got --latent-dim {latent_dim}")


def _parameters(settings: Settings, methods: tuple[str, ...], known: Registry) -> dict[str, dict[str, Any]]:
    """The parameters of every use of a method, converted; raises UsageError for those of a method that has no use."""
    used = union((), map(labels.name_of, methods))
    for name, given in settings.parameters.items():
        known.method(name)
        if name not in used:
            raise UsageError(f"--set {name}.{', '.join(given)}: {name!r} is not among the methods ({', '.join(used)})")
    return {name: known.parameters(name, given) for name, given in settings.parameters.items() if given}


def _under(settings: Settings, dataset: str, method: str) -> dict[str, Any]:
    """The parameters that a method has on a dataset where its label leaves them open."""
    tuned = {} if settings.tuned is None else settings.tuned.parameters(dataset, method)
    return {**tuned, **settings.parameters.get(labels.name_of(method), {})}


def cells(settings: Settings, known: Registry) -> Iterator[CellSpec]:
    """The cells of a study, dataset by dataset, then seed by seed."""
    codes: dict[tuple[str, ...], str] = {}
    versions = tuple(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "scipy", "scikit-learn"))
    shared = {name: getattr(settings, name) for name in SHARED}
    chosen = None if settings.pairs is None else set(settings.pairs)
    for dataset in settings.datasets:
        methods = [method for method in settings.methods if chosen is None or (dataset, method) in chosen]
        parameters = {m: tuple(known.parameters(m, _under(settings, dataset, m)).items()) for m in methods}
        for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
            for method in methods:
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
                    parameters=parameters[method],
                    scored_on=settings.scored_on,
                    **{**shared, **_sizes(dataset)},
                )


def _sizes(dataset: str) -> dict[str, Any]:
    """What a dataset's label says of sizes: of the training set, the validation set and the latent space."""
    stated = dataset_parameters(dataset)[1]
    sizes = {"size": "size", "validation_size": "size", "latent_dim": "latent_dim"}
    return {name: stated[key] for name, key in sizes.items() if key in stated}


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
    stated = {**asdict(replace(settings, tuned=None)), "tuned": cited(settings.tuned), "jobs": jobs}
    return {
        "schema": store.SCHEMA,
        "name": folder.resolve().name,
        "command": command,
        "settings": {name: value for name, value in stated.items() if value or name not in RARE},
        "tuned": None if settings.tuned is None else settings.tuned.described(settings, known),
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
