"""Whether a study's folder can be merged by anyone: complete, reproducible, conforming, and honest about versions."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import pandas as pd

from bench.check.checks import QUICK
from bench.check.conformance import Outcome
from bench.check.conformance import run as run_checks
from bench.check.errors import FailedError
from bench.check.method_under_test import MethodUnderTest
from bench.common.errors import UsageError
from bench.common.units import plural
from bench.config.schema import Execution
from bench.execution import scheduler
from bench.store import provenance, seconds, tables
from bench.store.records import RunSpec
from bench.store.schema import LEARNS
from bench.study.against import agreement
from bench.study.folder import Held, held, present
from bench.study.merge import Run, read
from bench.study.plan import Plan, resolve

REPEATED = 2
MODIFIED = "-dirty"


@dataclass(frozen=True)
class Submission:
    """A study's folder that is to be merged.

    Args:
        folder: The folder.
        held: Its settings.
        plan: The runs that this code would make of them, by the names of runs.
    """

    folder: Path
    held: Held
    plan: Plan
    planned: dict[str, RunSpec]

    @classmethod
    def of(cls, folder: Path, plugins: Sequence[str] = ()) -> Submission:
        """The study in a folder.

        Args:
            folder: The folder.
            plugins: Paths of plugin files that were moved since.

        Raises:
            UsageError: Where there is no study, or its plugins cannot be loaded.
        """
        before = held(folder)
        settings = msgspec.structs.replace(
            before.settings, plugins=present(tuple(dict.fromkeys([*before.settings.plugins, *plugins])))
        )
        plan = resolve(settings, before.pairs)
        return cls(folder, before, plan, {spec.name: spec for spec in plan.runs})

    @cached_property
    def runs(self) -> list[Run]:
        """The runs in the folder, each read once, in the order of the plan.

        Raises:
            UsageError: For a run that is damaged.
        """
        place = {name: i for i, name in enumerate(self.planned)}
        return sorted(read(self.folder).runs, key=lambda run: place.get(run.spec.name, len(place)))


def complete(submission: Submission) -> str:
    """All planned runs are there, and the tables are those that they give."""
    runs = submission.runs
    there = {run.spec.name for run in runs}
    if missing := [name for name in submission.planned if name not in there]:
        raise FailedError(f"{len(missing)} of {len(submission.planned)} planned runs are missing, such as {missing[0]}")
    if submission.held.finished is None:
        raise FailedError("the command did not finish; give it again")
    results = [run.result for run in runs]
    names = []
    with tempfile.TemporaryDirectory() as made:
        for name, table in tables.made(seconds.quoted(results)):
            tables.write_table(Path(made) / f"{name}.parquet", table)
            if not _table(Path(made), name).equals(_table(submission.folder, name)):
                raise FailedError(f"{name}.parquet is not what the runs give; write it again with the study's command")
            names.append(name)
    unfinished = sum(result.status != "done" for result in results)
    borrowed = sum(bool(result.source) for result in results)
    return (
        f"{plural(len(runs), 'run')}, {borrowed} borrowed, {unfinished} not done; {len(names)} tables agree with them"
    )


def _table(folder: Path, name: str) -> pd.DataFrame:
    try:
        return tables.read_table(folder, name)
    except (OSError, ValueError) as error:
        raise FailedError(f"{name}.parquet cannot be read: {error}") from None


def reproducible(submission: Submission) -> str:
    """Two runs, drawn at random from those that the folder does not borrow, have the same values again."""
    own = [run for run in submission.runs if not run.result.source and run.result.status == "done"]
    learned = [run for run in own if run.spec.role in LEARNS] or own
    if not learned:
        raise FailedError("it has no run of its own that is done")
    drawn = random.SystemRandom().sample(learned, min(REPEATED, len(learned)))
    specs = [submission.planned[run.spec.name] for run in drawn if run.spec.name in submission.planned]
    if other := [run.spec.name for run in drawn if run.spec.key not in {spec.key for spec in specs}]:
        raise FailedError(f"{other[0]} cannot be repeated: it was made by other code, data or packages")
    with scheduler.one_server(), tempfile.TemporaryDirectory() as folder:
        again = {result.spec.key: result for result in scheduler.run_all(specs, Execution(jobs=1), Path(folder))}
    same_machine = submission.held.info["provenance"].get("processor") == provenance.processor()
    seen = []
    for run in drawn:
        agreed, told = agreement(again[run.spec.key], run.result, submission.plan.settings.margin, same_machine)
        if not agreed:
            raise FailedError(f"{run.spec.name}, repeated: {told}")
        seen.append(f"{run.spec.name}: {told}")
    return "; ".join(seen)


def conforming(submission: Submission) -> str:
    """The methods that the folder does not borrow pass the quick checks of `bench check`."""
    borrowed = {run.spec.method for run in submission.runs if run.result.source}
    methods = [label for label in submission.plan.methods if label not in borrowed]
    for label in methods:
        under_test = MethodUnderTest.of(label, submission.plan.settings.plugins)
        for outcome in run_checks(under_test, QUICK):
            if outcome.status == "fail":
                raise FailedError(f"{label} fails the check {outcome.check}: {outcome.seen}")
    return f"{', '.join(methods)} pass the {len(QUICK)} quick checks"


def versions(submission: Submission) -> str:
    """The code is a commit without changes, and all runs have the keys that this code gives them."""
    stated = submission.held.info["provenance"]
    commit, version = stated.get("commit"), stated.get("version")
    if str(commit).endswith(MODIFIED):
        raise FailedError(f"it was made from files that were changed since commit {str(commit).removesuffix(MODIFIED)}")
    planned, runs = submission.planned, submission.runs
    if other := [r.spec.name for r in runs if r.spec.name not in planned or planned[r.spec.name].key != r.spec.key]:
        raise FailedError(
            f"{len(other)} of {len(runs)} runs, such as {other[0]}, were made by other code, data or packages than are "
            f"here (it states commit {commit}, version {version}, torch {stated.get('torch')})"
        )
    told = f"commit {commit}" if commit else f"version {version}, installed without its commit"
    return f"{told}, torch {stated.get('torch')}; all keys are those of the code, data and packages here"


POINTS: dict[str, Callable[[Submission], str]] = {
    each.__name__: each for each in (complete, reproducible, conforming, versions)
}


def check(submission: Submission) -> Iterator[Outcome]:
    """Check a submission point by point, and yield the outcome of each as it ends."""
    for name, point in POINTS.items():
        start = time.perf_counter()
        try:
            seen, passed = point(submission), True
        except (FailedError, UsageError) as error:
            seen, passed = str(error), False
        yield Outcome(name, "pass" if passed else "fail", seen, time.perf_counter() - start)
