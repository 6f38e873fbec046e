"""Carries out a plan in a folder: what is missing of it is run, and all that the folder holds is written as tables."""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from bench.common.errors import INTERRUPTED, TERMINATED, InterruptedStudyError, TerminatedError, UsageError
from bench.config.schema import Execution
from bench.execution import scheduler
from bench.execution.pool import RunServer
from bench.store import provenance, run_files, seconds, tables
from bench.store.files import write_json
from bench.store.locks import alone
from bench.store.records import RunResult, RunSpec
from bench.study import file
from bench.study.folder import describe_study, extended, made
from bench.study.log import StudyLog, write_event
from bench.study.plan import Plan

RETRIED = ("failed", "timeout")
MANY = 100_000


def execute(
    plan: Plan,
    folder: Path,
    how: Execution,
    log: StudyLog,
    command: str,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[RunResult]:
    """Run what is missing of a plan, and write the tables of all that its folder holds.

    Another process may carry out the same plan in the same folder at the same time; each run is made by one of them.

    Args:
        plan: What to run.
        folder: The study's folder.
        how: How to execute the runs.
        log: Where progress is reported.
        command: The command, for study.json.
        meanwhile: What this process does after each run, while others run, such as imports for the report.

    Returns:
        The results of all runs that the folder holds, as its tables show them.

    Raises:
        UsageError: For a folder that does not fit the plan.
        InterruptedStudyError: If the study is stopped; what is finished is kept.
    """
    if plan.size > MANY and not how.yes:
        raise UsageError(f"the study has {plan.size:,} runs; a study of more than {MANY:,} needs --yes")
    with scheduler.one_server() as server:
        return _execute(plan, folder, with_jobs(how), log, command, meanwhile, server)


def _execute(
    plan: Plan,
    folder: Path,
    how: Execution,
    log: StudyLog,
    command: str,
    meanwhile: Callable[[], object],
    server: RunServer,
) -> list[RunResult]:
    with alone(made(folder)):
        plan, before = extended(plan, folder)
        if how.scheduler is None and len(list((folder / "runs").glob("*.json"))) < plan.size:
            server.begin()
        info = describe_study(plan, folder, command, before)
        write_json(folder / "study.json", info)
    with run_files.many():
        found = {spec: _kept(folder, spec, how) for spec in plan.runs}
    waiting = longest_first(found)
    try:
        with run_files.writing(folder):
            log.begin(len(plan.runs), waiting, how.jobs or 1)
            if plan.settings.KIND == "compare":
                with alone(folder):
                    file.write(plan, folder)
        with closing(scheduler.run_all(waiting, how, folder)) as results:
            for result in results:
                found[result.spec] = result
                with run_files.writing(folder):
                    run_files.write_run(folder, result)
                    log.finish(result)
                meanwhile()
        _time(plan, folder, how, found, log)
    except TerminatedError:
        raise InterruptedStudyError("terminated", TERMINATED) from None
    except KeyboardInterrupt:
        raise InterruptedStudyError("interrupted", INTERRUPTED) from None
    finally:
        with run_files.writing(folder), alone(folder):
            plan, now = extended(plan, folder)  # others may have added to it
            info = describe_study(plan, folder, command, now) | {"provenance": info["provenance"]}
            earlier = None if waiting or before is None else before.finished  # the end of what ran last
            info["provenance"]["finished"] = earlier or provenance.now()
            done = seconds.quoted(_all_results(plan, folder, found))
            tables.write_tables(folder, done)
            write_json(folder / "study.json", info)
    return done


def _time(plan: Plan, folder: Path, how: Execution, found: dict[RunSpec, RunResult | None], log: StudyLog) -> None:
    """Time one fit of each dataset and method alone, where the seconds of its runs cannot be quoted.

    Processes that share the folder time one after the other, and what one has timed no other times.
    """
    if how.scheduler is not None or plan.settings.scored_on != "test" or not _untimed(found):
        return
    with ExitStack() as held:
        with run_files.writing(folder):
            held.enter_context(alone(folder / "runs"))
        for spec in _untimed(found):
            found[spec] = run_files.read_run(folder, spec) or found[spec]
        with closing(scheduler.time_alone(_untimed(found))) as results:
            for timed in results:
                result = found[timed.spec]
                if result is not None:
                    found[timed.spec] = result = dataclasses.replace(result, alone=timed.alone)
                    with run_files.writing(folder):
                        run_files.write_run(folder, result)
                        log.time(timed)


def longest_first(found: Mapping[RunSpec, RunResult | None]) -> list[RunSpec]:
    """The runs without a result, those on datasets whose finished runs took longest first, so that none ends late."""
    taken: dict[str, list[float]] = {}
    for spec, result in found.items():
        if result is not None and result.status == "done" and spec.role == "method":
            taken.setdefault(spec.dataset, []).append(result.cost.wall_s + result.evaluation_s)
    seconds_of = {dataset: statistics.median(each) for dataset, each in taken.items()}
    waiting = [spec for spec, result in found.items() if result is None]
    return sorted(waiting, key=lambda spec: -seconds_of.get(spec.dataset, 0.0))


def _untimed(found: Mapping[RunSpec, RunResult | None]) -> list[RunSpec]:
    return seconds.untimed(result for result in found.values() if result is not None)


def with_jobs(how: Execution) -> Execution:
    """The same with a number of jobs: as many as this machine has cores, or the cluster has threads."""
    there = os.cpu_count() or 1 if how.scheduler is None else max(1, scheduler.threads_of(how.scheduler))
    return how if how.jobs is not None else msgspec.structs.replace(how, jobs=there)


def _kept(folder: Path, spec: RunSpec, how: Execution) -> RunResult | None:
    """A run's result; None if it is to be made: a file that is not believed is set aside, one to repeat is removed."""
    result = run_files.read_run(folder, spec)
    if result is None:
        if (aside := run_files.set_aside(folder, spec)) is not None:
            write_event(folder, f"{spec.name}: its file is not believed, and is now {aside.name}; it is run again")
        return None
    if not (how.retry_failed and result.status in RETRIED):
        return result
    run_files.run_path(folder, spec).unlink(missing_ok=True)
    return None


def _all_results(plan: Plan, folder: Path, found: Mapping[RunSpec, RunResult | None]) -> list[RunResult]:
    """The results of all that the folder holds, what others added included."""
    every = (found.get(spec) or run_files.read_run(folder, spec) for spec in plan.runs)
    return [result for result in every if result is not None]
