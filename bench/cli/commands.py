"""What the commands do, once their options are read."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import msgspec

from bench.common.errors import (
    INTERRUPTED,
    InterruptedStudyError,
    StoppedError,
    TerminatedError,
    UsageError,
    unknown,
)
from bench.config import labels
from bench.config.fields import fields, read
from bench.config.schema import Execution, Settings, SweepSettings, TimingSettings, TuneSettings
from bench.study.folder import set_aside
from bench.study.log import Progress, Silent, StudyLog
from bench.study.plan import Plan, resolve

if TYPE_CHECKING:
    from bench.store.records import RunResult
    from bench.study.against import Loan
    from bench.tuning.design import Stage

S = TypeVar("S", bound=msgspec.Struct)


def compare(
    out: str | None,
    fresh: bool,
    quiet: bool,
    metric: str,
    against: str | None,
    problems: int | None,
    **options: Any,
) -> int:
    """Compare methods, and report. Returns the exit code."""
    _check_metric(metric)
    how, settings = _read(Execution, options), _read(Settings, options)
    if (loan := _loan(settings, options, against, problems)) is not None:
        plan, folder = _borrow(loan, out, fresh, quiet)
        fresh = False
    else:
        plan, folder = resolve(settings), Path(out or "results/compare")
    results = _execute(plan, folder, fresh, quiet, how, _import_report)
    _report(folder, metric, quiet)
    return _exit_code(results)


def _loan(settings: Settings, options: dict[str, Any], against: str | None, problems: int | None) -> Loan | None:
    """What comparing with a stored study takes; None if it was not asked for."""
    if against is None:
        if problems is not None:
            raise UsageError("--problems needs --against, the study whose datasets it counts")
        return None
    from bench.study.against import planned

    return planned(settings, _given(Settings, options), against, problems)


def _borrow(loan: Loan, out: str | None, fresh: bool, quiet: bool) -> tuple[Plan, Path]:
    """Borrow the runs of a stored study into the folder of a new one; the plan of all runs, and that folder."""
    from bench.study.against import lend

    first = labels.name_of(loan.plan.settings.methods[0])
    folder = Path(out or f"results/{first}")
    loan.refuse(folder)
    if fresh:
        _start_anew(folder, quiet)
    for line in lend(loan, folder, _command()):
        if not quiet:
            click.echo(line, err=True)
    return loan.plan, folder


def plan(against: str | None, problems: int | None, **options: Any) -> int:
    """Show what `compare` would run, and what its verdicts could find. Returns the exit code."""
    from bench.cli.tables import print_plan

    settings = _read(Settings, options)
    if (loan := _loan(settings, options, against, problems)) is None:
        print_plan(resolve(settings))
    else:
        print_plan(loan.plan, len(loan.borrowed), loan.described)
    return 0


def run(study_file: str, out: str | None, fresh: bool, quiet: bool, plugins: tuple[str, ...], **options: Any) -> int:
    """Run the study of a file, and report. Returns the exit code."""
    from bench.study.file import read_plan

    how = _read(Execution, options)
    plan, name = read_plan(Path(study_file), _resolved(plugins))
    folder = Path(f"results/{name}" if out is None else out)
    results = _execute(plan, folder, fresh, quiet, how, _import_report)
    _report(folder, "test_ll", quiet)
    return _exit_code(results)


def merge(folders: tuple[str, ...], out: str, quiet: bool) -> int:
    """Join studies into one, and report. Returns the exit code."""
    from bench.study.merge import merge

    results = merge([Path(folder) for folder in folders], Path(out), _command())
    _report(Path(out), "test_ll", quiet)
    return _exit_code(results)


def report(folders: tuple[str, ...], out: str | None, formats: tuple[str, ...], quiet: bool) -> int:
    """Write the report of one study, or of several in another folder. Returns the exit code."""
    from bench.report.combine import check_out, combined, save
    from bench.report.page import PAGES, write
    from bench.store.study_tables import read

    chosen = _formats(formats) or PAGES
    sources = [Path(folder) for folder in dict.fromkeys(folders)]
    if len(sources) > 1 and out is None:
        raise UsageError("a report over several studies needs a folder of its own: give --out DIR")
    folder = sources[0] if out is None else Path(out)
    try:
        studies = [read(source) for source in sources]
        if out is not None:
            check_out(folder, sources)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    try:
        if out is not None:
            save(combined(studies, folder, _command()))
        write(folder, chosen)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror or error}") from None
    if not quiet:
        _print_files(folder, chosen)
    return 0


def publish(folders: tuple[str, ...], out: str, note: str, quiet: bool) -> int:
    """Write the site of some studies. Returns the exit code."""
    from bench.publish.site import write

    try:
        page = write([Path(folder) for folder in dict.fromkeys(folders)], Path(out), _command(), note)
    except OSError as error:
        raise UsageError(f"{out} cannot be written to: {error.strerror or error}") from None
    if not quiet:
        click.echo(f"Site:  {page}")
    return 0


def _formats(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The formats of a report that are asked for; 'all' stands for each of them."""
    from bench.report.page import FORMATS

    names = [name for text in asked for name in labels.split(text)]
    for name in names:
        if name not in (*FORMATS, "all"):
            raise unknown("format", name, (*FORMATS, "all"))
    return FORMATS if "all" in names else tuple(names)


def _print_files(folder: Path, formats: tuple[str, ...]) -> None:
    names = {"html": "report.html", "md": "report.md", "latex": "tables/*.tex, references.bib, figures/*.pdf"}
    names |= {"png": "figures/*.png"}
    for form in formats:
        click.echo(f"{form + ':':<7}{folder}/{names[form]}")


def status(folder: str) -> int:
    """Show how far a study is. Returns the exit code."""
    from bench.study.status import read

    found = read(Path(folder))
    from bench.cli.status import show

    show(found)
    return 0


def tune(out: str, fresh: bool, quiet: bool, **options: Any) -> int:
    """Choose hyperparameters, write them and show them. Returns the exit code."""
    from bench.tuning.design import planned, with_given
    from bench.tuning.output import write
    from bench.tuning.search import run
    from bench.tuning.selection import choose

    folder, how = Path(out), _read(Execution, options)
    plan = planned(_read(TuneSettings, options))
    if fresh:
        _start_anew(folder, quiet)

    def run_round(title: str, asked: Plan, stage: Stage) -> list[RunResult]:
        nonlocal how
        if not quiet:
            click.echo(title, err=True)
        results = _execute(asked, folder / stage.folder, False, quiet, how)
        how = msgspec.structs.replace(how, retry_failed=False)  # what fails again is not repeated in the next round
        return results

    results, rows = run(plan, run_round)
    plan = with_given(plan, results)
    choices = choose(rows, plan)
    file = write(folder, plan, rows, choices, _command())
    if not quiet:
        from bench.cli.tuning import show

        show(choices, plan.registry)
        click.echo(f"\nChosen:  {file}\nTrials:  {folder}/trials.csv (and .parquet)")
        click.echo(f"Use it:  python -m bench compare --tuned {shlex.quote(str(file))}")
    return _exit_code(results)


def sweep(out: str, fresh: bool, quiet: bool, **options: Any) -> int:
    """Vary one factor of a method at a time, and write and draw its effect. Returns the exit code."""
    from bench.study import sweep

    folder, how = Path(out), _read(Execution, options)
    plan, points, left_out = sweep.planned(_read(SweepSettings, options))
    if left_out and not quiet:
        click.echo(f"Left out, as there is no such data: {', '.join(left_out)}", err=True)
    results = _execute(plan, folder, fresh, quiet, how)
    sweep.write(folder, sweep.table(points, results))
    from bench.report.figures.sweep import write

    figure = write(folder)
    if not quiet:
        click.echo(f"Figure:  {figure} (and .svg)\nTable:   {folder}/sweep.csv (and .parquet)")
    return _exit_code(results)


def timing(out: str | None, quiet: bool, **options: Any) -> int:
    """Time methods, and write and show how they compare. Returns the exit code."""
    from bench.cli.timing import bar, lines, show, silent
    from bench.timing.output import write
    from bench.timing.run import FitFailedError, run

    if quiet and out is None:
        raise UsageError("--quiet without --out leaves no result; give --out DIR")
    settings, folder = _read(TimingSettings, options), None if out is None else Path(out)
    watch = silent if quiet else bar if sys.stderr.isatty() else lines
    try:
        result = run(settings, folder, watch)
    except FitFailedError as error:
        raise StoppedError(f"error: {error}", 1) from error
    except KeyboardInterrupt:
        raise StoppedError("interrupted; nothing was written", INTERRUPTED) from None
    if not quiet:
        show(result)
    if folder is not None:
        write(result, folder, _command())
    if not quiet:
        click.echo(f"\nTimings:  {folder}/timings.csv (and .parquet), timing.json" if folder else "")
    return 0


def check(name: str, plugins: tuple[str, ...], checks: tuple[str, ...]) -> int:
    """Run the conformance checks of a method and print their outcomes. Returns the exit code."""
    from bench import check
    from bench.cli.check import show

    under_test = check.MethodUnderTest.of(name, _resolved(plugins))
    return show(check.run(under_test, check.chosen(checks, under_test)))


def submit_check(folder: str, plugins: tuple[str, ...]) -> int:
    """Check point by point that a study can be handed in, and print the outcomes. Returns the exit code."""
    from bench.check import submission
    from bench.cli.check import show

    return show(submission.check(submission.Submission.of(Path(folder), _resolved(plugins))))


def _command() -> str:
    """The command as it was given, without --fresh, since it will be shown to resume the study."""
    return shlex.join(["python", "-m", "bench", *(a for a in sys.argv[1:] if a != "--fresh")])


def _resolved(files: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(Path(file).resolve()) for file in files)


def _read(schema: type[S], options: dict[str, Any]) -> S:
    """The typed settings of a schema, from the options that were given."""
    given = {name: options[name] for name in _given(schema, options)}
    for name in ("plugins", "data"):
        if name in given:
            given[name] = _resolved(given[name])
    return read(schema, given, lambda field: field.flag, text=True)


def _given(schema: type[msgspec.Struct], options: dict[str, Any]) -> list[str]:
    """The fields of a schema that the user gave."""
    return [field.name for field in fields(schema) if options.get(field.name) not in (None, (), False)]


def _import_report() -> None:
    """Import what writes the report, which takes more than a second."""
    import_module("bench.report.page")


def _execute(
    plan: Plan,
    folder: Path,
    fresh: bool,
    quiet: bool,
    how: Execution,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[RunResult]:
    """Carry out a plan and show progress; raises StoppedError if it ends early."""
    from bench.cli.progress import Bar, Lines
    from bench.study.execute import execute

    if fresh:
        _start_anew(folder, quiet)
    progress: Progress = Silent() if quiet else Bar() if sys.stderr.isatty() else Lines()
    for label, entry in plan.datasets.items():
        if entry.data_file is not None and not quiet:
            click.echo(f"{label}: {entry.summary}", err=True)
    try:
        with _terminable(), StudyLog(folder, _command(), progress) as log:
            return execute(plan, folder, how, log, _command(), meanwhile)
    except InterruptedStudyError as error:
        message = f"{error}; finished runs are kept in {folder}. Resume with:\n  {_command()}"
        raise StoppedError(message, error.code) from error
    finally:
        progress.close()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM raises TerminatedError, if this is the main thread: only it may set signals."""

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


def _start_anew(folder: Path, quiet: bool) -> None:
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
