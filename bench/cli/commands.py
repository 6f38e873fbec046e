"""What the commands of the command line do, once their options are read."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bench.common.errors import INTERRUPTED, StoppedError, TerminatedError, UsageError, unknown
from bench.common.units import in_bytes
from bench.execution.scheduler import Execution, threads_of
from bench.registry import labels
from bench.study import execute
from bench.study.folder import set_aside
from bench.study.hyperparameters import read
from bench.study.options import check_execution, check_numbers, dataset_groups

if TYPE_CHECKING:
    from bench.registry.registry import Registry
    from bench.store.records import RunResult


def compare(out: str, fresh: bool, quiet: bool, metric: str, **options: Any) -> int:
    """Compare methods, and report; the exit code."""
    _check_metric(metric)
    how = _execution(options)
    settings, known = _settings(**options)
    check_numbers(settings, how.jobs)
    results = _run(execute.checked(settings, known), Path(out), fresh, quiet, how)
    _report(Path(out), metric, quiet)
    return _exit_code(results)


def run(study_file: str, out: str | None, fresh: bool, quiet: bool, plugins: tuple[str, ...], **options: Any) -> int:
    """Run the study that a file asks for, and report; the exit code."""
    from bench.study import file

    settings, _, name = file.read(Path(study_file), _resolved(plugins))
    folder, how = Path(f"results/{name}" if out is None else out), _execution(options)
    check_numbers(settings, how.jobs)
    results = _run(settings, folder, fresh, quiet, how)
    _report(folder, "test_ll", quiet)
    return _exit_code(results)


def merge(folders: tuple[str, ...], out: str, quiet: bool) -> int:
    """Join the studies in folders into one, and report; the exit code."""
    from bench.study.merge import merge

    results = merge([Path(folder) for folder in folders], Path(out), _command())
    _report(Path(out), "test_ll", quiet)
    return _exit_code(results)


def report(folders: tuple[str, ...], out: str | None, formats: tuple[str, ...], quiet: bool) -> int:
    """Write the report of one study, or of several joined into another folder; the exit code."""
    from bench.report.combine import combined, place, save
    from bench.report.page import PAGES, write
    from bench.store.study_tables import read

    chosen = _formats(formats) or PAGES
    sources = [Path(folder) for folder in dict.fromkeys(folders)]
    if len(sources) > 1 and out is None:
        raise UsageError("a report over several studies needs a folder of its own: give --out DIR")
    folder = sources[0] if out is None else Path(out)
    try:
        studies = [read(source) for source in sources]
        place(folder, sources) if out is not None else None
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    try:
        save(combined(studies, folder, _command())) if out is not None else None
        write(folder, chosen)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror or error}") from None
    _show(folder, chosen) if not quiet else None
    return 0


def _formats(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The formats of a report that are asked for, 'all' being each of them."""
    from bench.report.page import FORMATS

    names = [name for text in asked for name in labels.split(text)]
    for name in names:
        if name not in (*FORMATS, "all"):
            raise unknown("format", name, (*FORMATS, "all"))
    return FORMATS if "all" in names else tuple(names)


def _show(folder: Path, formats: tuple[str, ...]) -> None:
    """Print where the report is."""
    names = {"html": "report.html", "md": "report.md", "latex": "tables/*.tex, references.bib, figures/*.pdf"}
    names |= {"png": "figures/*.png"}
    for form in formats:
        click.echo(f"{form + ':':<7}{folder}/{names[form]}")


def status(folder: str) -> int:
    """Show how far the study in a folder is; the exit code."""
    from bench.cli.status import show
    from bench.study import status

    show(status.read(Path(folder)))
    return 0


def tune(out: str, fresh: bool, quiet: bool, **options: Any) -> int:
    """Choose hyperparameters, and write and show them; the exit code."""
    from bench import tuning
    from bench.cli.tuning import show

    folder, how = Path(out), _execution(options)
    settings, known = _settings(kind="tune", **options)
    check_numbers(settings, how.jobs)
    settings = tuning.planned(settings, known)
    if fresh:
        _begin_anew(folder, quiet)

    def run_round(told: str, asked: execute.Settings) -> list[RunResult]:
        nonlocal how
        click.echo(told, err=True) if not quiet else None
        results = _run(asked, folder, False, quiet, how)
        how = replace(how, retry_failed=False)  # what fails again in this round, fails in the next one
        return results

    results, rows = tuning.run(settings, known, run_round)
    choices = tuning.choose(rows, known)
    file = tuning.write(folder, settings, rows, choices, known, _command())
    if not quiet:
        show(choices, known)
        click.echo(f"\nChosen:  {file}\nTrials:  {folder}/trials.csv (and .parquet)")
        click.echo(f"Use it:  python -m bench compare --tuned {shlex.quote(str(file))}")
    return _exit_code(results)


def sweep(method: str, varied: tuple[str, ...], out: str, fresh: bool, quiet: bool, **options: Any) -> int:
    """Vary one factor of a method at a time, and write and draw what that does; the exit code."""
    from bench.study import sweep

    folder, how = Path(out), _execution(options)
    settings, known = _settings(methods=method, **options)
    check_numbers(settings, how.jobs)
    settings, points = sweep.planned(settings, varied, known)
    results = _run(settings, folder, fresh, quiet, how)
    sweep.write(folder, sweep.table(points, results))
    from bench.report.figures.sweep import write

    figure = write(folder)
    if not quiet:
        click.echo(f"Figure:  {figure} (and .svg)\nTable:   {folder}/sweep.csv (and .parquet)")
    return _exit_code(results)


def timing(methods: str, dataset: str, plugins: tuple[str, ...], out: str | None, quiet: bool, **rest: Any) -> int:
    """Time methods, and write and show how they compare; the exit code."""
    from bench import timing
    from bench.cli.timing import bar, lines, show, silent

    if quiet and out is None:
        raise UsageError("--quiet without --out leaves no result; give --out DIR")
    names, files = labels.split(methods), _resolved(plugins)
    settings = timing.Settings(methods=names, dataset=dataset.strip(), plugins=files, **rest)
    folder = None if out is None else Path(out)
    watch = silent if quiet else bar if sys.stderr.isatty() else lines
    try:
        result = timing.run(settings, folder, watch)
    except timing.FitFailedError as error:
        raise StoppedError(f"error: {error}", 1) from error
    except KeyboardInterrupt:
        raise StoppedError("interrupted; nothing was written", INTERRUPTED) from None
    if folder is not None:
        timing.write(result, folder, _command())
    if not quiet:
        show(result)
        click.echo(f"\nTimings:  {folder}/timings.csv (and .parquet), timing.json" if folder else "")
    return 0


def check(name: str, plugins: tuple[str, ...], duties: tuple[str, ...]) -> int:
    """Check a method duty by duty, and print what was seen; the exit code."""
    from bench import check
    from bench.cli.check import show

    subject = check.Subject.of(name, _resolved(plugins))
    return show(check.run(subject, check.chosen(duties, subject)))


def _command() -> str:
    """The command as it was given; --fresh is left out, since what is told of it is meant to be resumed."""
    return shlex.join(["python", "-m", "bench", *(a for a in sys.argv[1:] if a != "--fresh")])


def _resolved(plugins: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(Path(file).resolve()) for file in plugins)


def _execution(options: dict[str, Any]) -> Execution:
    """How runs are to be run, taken out of a command's options; raises UsageError for what will not do."""
    jobs, memory = options.pop("jobs"), options.pop("run_memory")
    rest = {name: options.pop(name) for name in ("run_timeout", "scheduler", "retry_failed")}
    how = Execution(jobs=0, run_memory=None if memory is None else in_bytes(memory), **rest)
    check_execution(how)
    if jobs is None:
        jobs = os.cpu_count() or 1 if how.scheduler is None else max(1, threads_of(how.scheduler))
    return replace(how, jobs=jobs)


def _settings(
    methods: str,
    datasets: str,
    plugins: tuple[str, ...],
    assignments: tuple[str, ...],
    tuned: str | None = None,
    kind: str = "compare",
    **rest: Any,
) -> tuple[execute.Settings, Registry]:
    from bench.registry.registry import registry

    files = _resolved(plugins)
    known = registry(files)
    every = tuple(known.methods)
    if kind == "tune" and "all" in labels.split(methods):
        every = tuple(name for name in every if known.search(name))
    settings = execute.Settings(
        methods=_names(methods, {"all": every}),
        datasets=_names(datasets, dataset_groups(known)),
        validation_size=rest["size"],
        plugins=files,
        parameters=labels.assignments(assignments),
        tuned=None if tuned is None else read(tuned),
        kind=kind,
        **rest,
    )
    return settings, known


def _names(text: str, groups: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for word in labels.split(text) for name in groups.get(word, (word,))))


def _run(settings: execute.Settings, folder: Path, fresh: bool, quiet: bool, how: Execution) -> list[RunResult]:
    """Run a study, told of as it goes on; raises StoppedError if it ends early."""
    from bench.cli.progress import Bar, Lines
    from bench.study.log import Record

    if fresh:
        _begin_anew(folder, quiet)
    progress: Any = execute.Silent() if quiet else Bar() if sys.stderr.isatty() else Lines()
    try:
        with _terminable(), Record(folder, settings, _command(), progress) as record:
            return execute.run(settings, folder, how, record, _command())
    except execute.InterruptedStudyError as error:
        message = f"{error}; finished runs are kept in {folder}. Resume with:\n  {_command()}"
        raise StoppedError(message, error.code) from error
    finally:
        if not quiet:
            progress.close()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM raises TerminatedError, where this is the main thread, which alone may say so."""

    def stop(*_: object) -> NoReturn:
        raise TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin_anew(folder: Path, quiet: bool) -> None:
    aside = set_aside(folder)
    if aside and not quiet:
        click.echo(f"what was in {folder} is now in {aside}", err=True)


def _exit_code(results: list[RunResult]) -> int:
    return 0 if all(result.status in ("done", "skipped") for result in results) else 1


def _check_metric(name: str) -> None:
    from bench.store.schema import METRICS

    names = [metric.name for metric in METRICS]
    if name not in names:
        raise unknown("metric", name, names)


def _report(folder: Path, metric: str, quiet: bool) -> None:
    from bench.report.page import write

    page = write(folder)
    if quiet:
        return
    from bench.cli.tables import print_summary, print_tuned

    print_summary(folder, metric)
    print_tuned(folder)
    click.echo(f"\nReport:  {page}\nTables:  {folder}/measurements.csv, runs.csv (and .parquet)")
