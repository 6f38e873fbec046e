"""A study: a grid of runs in a folder, run once, resumed at will."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bench.common.errors import INTERRUPTED, TERMINATED, TerminatedError, UsageError
from bench.common.errors import InterruptedStudyError as InterruptedStudyError
from bench.execution.scheduler import Execution, run_all
from bench.execution.worker import package_versions
from bench.registry import labels
from bench.registry.registry import Registry, code_version, dataset_parameters, registry
from bench.store import provenance, tables
from bench.store.locks import alone
from bench.store.records import RunResult, RunSpec
from bench.study.folder import SHARED, cited, made, open_folder, union
from bench.study.hyperparameters import Tuned

RARE = ("parameters", "tuned", "pairs", "first_seed", "budget", "trials")  # told of only where they are used
RETRIED = ("failed", "timeout")


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

    @property
    def every_seed(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)


class Progress(Protocol):
    """Who is told how a study goes on."""

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
        """`waiting` of `total` runs are to run, `jobs` at a time."""
        ...

    def finish(self, result: RunResult) -> None:
        """A run is over and written."""
        ...


class Silent:
    """Tells nobody."""

    def begin(self, total: int, waiting: list[RunSpec], jobs: int) -> None:
        """Nothing."""

    def finish(self, result: RunResult) -> None:
        """Nothing."""


def run(settings: Settings, folder: Path, how: Execution, progress: Progress, command: str) -> list[RunResult]:
    """Run what is missing of a study, write its tables, and return the results of all runs that its folder holds.

    Another process may run the same study in the same folder at the same time; each run is run by one of them. Raises
    UsageError for settings that cannot be run or do not fit the folder, and InterruptedStudyError.
    """
    settings = checked(settings, registry(settings.plugins))
    with alone(made(folder)):
        settings, info = _entered(settings, folder, command, how)
    specs = list(runs(settings, registry(settings.plugins)))
    found = {spec: _kept(folder, spec, how) for spec in specs}
    waiting = [spec for spec, result in found.items() if result is None]
    try:
        with tables.writing(folder):
            progress.begin(len(specs), waiting, how.jobs)
        with closing(_results(waiting, how, folder)) as results:
            for result in results:
                found[result.spec] = result
                with tables.writing(folder):
                    tables.write_run(folder, result)
                    progress.finish(result)
    except TerminatedError:
        raise InterruptedStudyError("terminated", TERMINATED) from None
    except KeyboardInterrupt:
        raise InterruptedStudyError("interrupted", INTERRUPTED) from None
    finally:
        with tables.writing(folder), alone(folder):
            settings, began, ended = open_folder(settings, folder)  # to which others may have added
            info = {**_describe(settings, folder, command, how, began), "provenance": info["provenance"]}
            before = None if waiting else info["provenance"]["finished"] or ended  # the end of what ran last
            info["provenance"]["finished"] = before or provenance.now()
            done = _concluded(settings, folder, info, found)
    return done


def _entered(settings: Settings, folder: Path, command: str, how: Execution) -> tuple[Settings, dict[str, Any]]:
    """Open the folder and write study.json into it; the settings of all that it holds, and the content of that file."""
    settings, began, ended = open_folder(settings, folder)
    info = _describe(settings, folder, command, how, began)
    tables.write_json(folder / "study.json", info)
    info["provenance"]["finished"] = ended
    return settings, info


def _kept(folder: Path, spec: RunSpec, how: Execution) -> RunResult | None:
    """A run's result; None, and removed from the folder, if it is to be had again."""
    result = tables.read_run(folder, spec)
    if result is None or not (how.retry_failed and result.status in RETRIED):
        return result
    tables.run_path(folder, spec).unlink(missing_ok=True)
    return None


def _results(specs: list[RunSpec], how: Execution, folder: Path) -> Generator[RunResult]:
    """Those of `_run_all`, as what can be closed whatever that is."""
    yield from _run_all(specs, how, folder)


_run_all = run_all


def _concluded(
    settings: Settings, folder: Path, info: dict[str, Any], found: Mapping[RunSpec, RunResult | None]
) -> list[RunResult]:
    """Write the tables and study.json of all that the folder holds, what others added included, and return it."""
    every = [found.get(spec) or tables.read_run(folder, spec) for spec in runs(settings, registry(settings.plugins))]
    done = [result for result in every if result is not None]
    tables.write_tables(folder, done)
    tables.write_json(folder / "study.json", info)
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
        settings.tuned.check_seeds(settings.every_seed)
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


def runs(settings: Settings, known: Registry) -> Iterator[RunSpec]:
    """The runs of a study, dataset by dataset, then seed by seed."""
    codes: dict[tuple[str, ...], str] = {}
    versions = package_versions()
    shared = {name: getattr(settings, name) for name in SHARED}
    chosen = None if settings.pairs is None else set(settings.pairs)
    for dataset in settings.datasets:
        methods = [method for method in settings.methods if chosen is None or (dataset, method) in chosen]
        parameters = {m: tuple(known.parameters(m, _under(settings, dataset, m)).items()) for m in methods}
        for seed in settings.every_seed:
            for method in methods:
                files = {known.dataset(dataset).file, known.method(method).file} - {None}
                used = tuple(sorted(str(file) for file in files))
                if used not in codes:
                    codes[used] = code_version(used)
                yield RunSpec(
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


def _describe(settings: Settings, folder: Path, command: str, how: Execution, began: str) -> dict[str, Any]:
    """The content of study.json."""
    known = registry(settings.plugins)
    chosen = {name: known.dataset(name) for name in settings.datasets}
    limits = {name: value for name, value in asdict(how).items() if value}
    stated = {**asdict(replace(settings, tuned=None)), "tuned": cited(settings.tuned), **limits}
    return {
        **_merged_from(folder),
        "schema": tables.SCHEMA,
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


def _merged_from(folder: Path) -> dict[str, Any]:
    """The `sources` of a study that `merge` made, which it keeps when it is gone on with."""
    path = folder / "study.json"
    held = tables.read_json(path) if path.exists() else {}
    return {name: held[name] for name in ("sources",) if name in held}
