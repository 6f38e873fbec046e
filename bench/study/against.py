"""A method against a stored study: it alone is run, and the runs of the other methods are borrowed.

A run may be borrowed if this code would give it the same key: the same conditions, data, code and packages. That this
machine gives the same values is shown by repeating one run, and its seconds are compared by timing it here.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.common.errors import StoppedError, UsageError, unknown
from bench.config.fields import flag
from bench.config.schema import Execution, Settings
from bench.execution import scheduler
from bench.registry.fingerprints import Fingerprints
from bench.store import provenance, run_files, seconds, stored, study_tables
from bench.store.files import write_json
from bench.store.locks import alone
from bench.store.records import Cost, RunResult, RunSpec
from bench.store.study_tables import Study
from bench.study.agreement import difference
from bench.study.folder import Held, describe_study, extended, held, made, present
from bench.study.log import write_event
from bench.study.plan import Plan, resolve

REFERENCE = "reference"
PACKED = Path(__file__).parents[1] / "reference"  # travels with the package
OWN = ("methods", "datasets", "baseline", "margin", "set", "plugins", "author")  # the settings that are not the study's
SHORT_S = 3.0  # a fit of up to this long is repeated
STEADY = 1.2  # how far two timings of one fit may be apart


@dataclass(frozen=True)
class Loan:
    """What is compared with a stored study.

    Args:
        name: The study, as the user named it.
        study: Its tables.
        held: Its settings.
        plan: All runs: own ones and those of the study.
        borrowed: The runs that are taken from the study.
    """

    name: str
    study: Study
    held: Held
    plan: Plan
    borrowed: tuple[RunSpec, ...]

    @property
    def described(self) -> str:
        """The study with its commit and its day."""
        commit = self.held.info["provenance"].get("commit") or "unknown"
        return f"{self.name} (commit {commit}, {self.held.started[:10]})"

    def refuse(self, out: Path) -> None:
        """Raise UsageError for the folder of the study itself, whose baseline and report would be lost."""
        if self.study.folder.resolve() == out.resolve():
            raise UsageError(f"{out} is the study to compare with; give another --out")


def planned(asked: Settings, given: Collection[str], against: str, problems: int | None = None) -> Loan:
    """What comparing methods with a stored study takes. Nothing is run.

    Args:
        asked: The settings, of which those in `OWN` count; all others are the study's.
        given: The names of the settings that the user gave.
        against: The study's folder, or 'reference' for the one that comes with the package.
        problems: How many of its datasets to take, spread evenly over their order; None for all.

    Raises:
        UsageError: For settings that are the study's, and for a study whose runs this code would not make.
    """
    name = against
    for each in given:
        if each not in OWN:
            raise UsageError(f"{flag(each)} cannot be given with --against: it is that of {name}", key=(each,))
    if "methods" not in given:
        raise UsageError("--against needs --methods: those to run; all others of the study are borrowed")
    folder = PACKED if against == REFERENCE else Path(against)
    before = held(folder)
    theirs = before.settings
    if theirs.KIND != "compare":
        raise UsageError(f"{name} holds results of `{theirs.KIND}`; --against needs a study of `compare`")
    if theirs.max_seconds is not None:
        raise UsageError(f"the fits of {name} end by --max-seconds, at another state on another machine")
    try:
        study = study_tables.read(folder)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    shared = msgspec.structs.replace(
        theirs,
        datasets=chosen(theirs.datasets or (), asked.datasets if "datasets" in given else None, problems, name),
        margin=asked.margin if "margin" in given else theirs.margin,
        plugins=present(tuple(dict.fromkeys([*theirs.plugins, *asked.plugins]))),
        baseline=(),
        author=asked.author,
    )
    own = resolve(msgspec.structs.replace(shared, methods=asked.methods, set=asked.set)).settings.methods
    plan = resolve(
        msgspec.structs.replace(
            shared,
            methods=(*own, *theirs.methods),
            baseline=asked.baseline or own,
            set={**theirs.set, **asked.set},
        )
    )
    loan = Loan(name, study, before, plan, tuple(spec for spec in plan.runs if spec.method not in own))
    if refused := _refusal(loan):
        raise UsageError(f"{loan.described} cannot be compared with: {refused}")
    return loan


def chosen(theirs: tuple[str, ...], asked: tuple[str, ...] | None, problems: int | None, name: str) -> tuple[str, ...]:
    """The datasets to compare on, in the study's order."""
    for label in asked or ():
        if label not in theirs:
            raise unknown(f"dataset of {name}", label, theirs)
    every = tuple(label for label in theirs if asked is None or label in asked)
    if problems is None or problems >= len(every):
        return every
    step = (len(every) - 1) / max(problems - 1, 1)
    return tuple(every[round(i * step)] for i in range(problems))


def _refusal(loan: Loan) -> str:
    """Why the runs of a study cannot be borrowed; empty if they can."""
    info, plan, there = loan.held.info, loan.plan, stored.keys(loan.study)
    if missing := [spec.name for spec in loan.borrowed if spec.name not in there]:
        return f"{len(missing)} of its runs are missing, such as {missing[0]}"
    other = [spec for spec in loan.borrowed if there[spec.name] != spec.key]
    if not other:
        return "" if loan.borrowed else "--methods names all of its methods, and nothing is left to borrow"
    datasets = {spec.dataset: (info["datasets"].get(spec.dataset) or {}).get("data") for spec in other}
    if apart := [label for label, data in datasets.items() if data != plan.data(label)]:
        return f"the data that this code draws of {', '.join(apart)} are others"
    evaluation, here = info.get("evaluation") or {}, Fingerprints().of()
    if evaluation.get("code") != here.code:
        return "it was made by other code of evaluation; make it again, or use the version that made it"
    if apart := sorted({*evaluation["versions"]} ^ {*here.versions}):
        return f"packages differ: {', '.join(apart)}"
    methods = ", ".join(dict.fromkeys(spec.method for spec in other))
    return f"the code or the packages of {methods} have changed since; name them in --methods to run them here"


def lend(loan: Loan, out: Path, command: str) -> list[str]:
    """Write the borrowed runs into a study's folder, after one of them was repeated here, in value and in seconds.

    Args:
        loan: What is compared.
        out: The folder; runs that it holds already stay as they are.
        command: The command, for study.json.

    Returns:
        What was done, in words; nothing if the folder has every borrowed run.

    Raises:
        UsageError: If the folder is that of the stored study.
        StoppedError: If the repeated run has other values.
    """
    loan.refuse(out)
    waiting = [spec for spec in loan.borrowed if run_files.read_run(out, spec) is None]
    if not waiting:
        return []
    extended(loan.plan, out)
    found = list(_stored(loan, waiting))
    source, ratio = _repeated(loan, found)
    with alone(made(out)):
        plan, before = extended(loan.plan, out)
        info = describe_study(plan, out, command, before)
        sources = [*info.get("sources", ()), *_sources(loan)]
        unique = [each for place, each in enumerate(sources) if each not in sources[:place]]
        write_json(out / "study.json", info | {"sources": unique})
        for result in found:
            run_files.write_run(out, dataclasses.replace(_scaled(result, ratio), source=source))
        write_event(out, f"borrowed {len(found)} runs: {source}")
    return [f"{len(found)} runs borrowed from {source}"]


def _stored(loan: Loan, specs: Iterable[RunSpec]) -> Iterator[RunResult]:
    return stored.results(loan.study, ((spec, loan.plan.parameters_of(spec)) for spec in specs))


def _sources(loan: Loan) -> list[dict[str, Any]]:
    info = loan.held.info
    own = {"name": loan.name, "folder": loan.name, "command": info.get("command"), "provenance": info["provenance"]}
    return info.get("sources") or [own]


def _repeated(loan: Loan, found: list[RunResult]) -> tuple[str, tuple[float, float] | None]:
    """Where runs come from, once one of them was repeated here; and its wall and CPU seconds here, over those there.

    No ratio is known if two timings here are far apart.
    """
    there = _to_repeat(loan, found)
    with scheduler.one_server(), tempfile.TemporaryDirectory() as folder:
        (here,) = scheduler.run_all([there.spec], Execution(jobs=1), Path(folder))
        timed = list(scheduler.time_alone([there.spec] * 2))
    same_machine = loan.held.info["provenance"].get("processor") == provenance.processor()
    agreed, told = agreement(here, there, loan.plan.settings.margin, same_machine)
    if not agreed or not timed:
        raise StoppedError(f"error: {there.spec.name} of {loan.name}, repeated here: {told or 'it cannot be timed'}", 1)
    walls, cpus = zip(*(seconds.at(each.alone, [there.cost.flops]) for each in timed), strict=True)
    ratio, apart = min(walls)[0] / there.cost.wall_s, max(walls)[0] / min(walls)[0]
    source = f"{loan.described}. One run, {there.spec.name}, was repeated here: {told}. Seconds are those stored"
    if apart > STEADY:
        busy = f"{source}, and are not compared: two timings of its fit here are {apart:.1f} times apart, so the "
        return f"{busy}machine is busy. To compare seconds, repeat the study in a new folder on a quiet machine", None
    source += f", times {ratio:.2f}: what its fit takes here, over there"
    return source, (ratio, min(cpus)[0] / there.cost.cpu_s)


def _to_repeat(loan: Loan, found: list[RunResult]) -> RunResult:
    """The longest of the short fits whose seconds can be quoted; the shortest fit if none is short."""
    learned = [each for each in found if each.status == "done" and each.spec.role == "method"]
    timed = [each for each in learned if not each.concurrent and each.timed_seed in (None, each.spec.seed)]
    if not timed:
        raise UsageError(f"{loan.name} has no fit that was timed alone, with which this machine could be compared")
    short = [each for each in timed if each.cost.wall_s <= SHORT_S]
    return max(short, key=_wall) if short else min(timed, key=_wall)


def _wall(result: RunResult) -> float:
    return result.cost.wall_s


def agreement(here: RunResult, there: RunResult, margin: float, same_machine: bool) -> tuple[bool, str]:
    """Whether a repeated run agrees with the stored one, and how.

    To the last digit on a processor of the same kind. Another one rounds otherwise, which training amplifies: there
    the final log-likelihoods may differ by the margin within which differences do not matter.

    Args:
        here: The repeated run.
        there: What is stored of it.
        margin: The margin in nats.
        same_machine: Whether both processors are of one kind.
    """
    one, two = (run_files.content_of(stored.alike(each, there)) for each in (here, there))
    what, value_here, value_there = difference(one, two)
    if not what:
        return True, "it has the same values to the last digit"
    apart = abs(_final(here) - _final(there))
    if not same_machine and apart <= margin:
        return True, f"on another processor, its final log-likelihood differs by {apart:.2g} nats"
    return False, f"{what} is {value_here}, and {value_there} is stored"


def _final(result: RunResult) -> float:
    return next((row.value for row in reversed(result.rows) if row.metric == "test_ll"), float("nan"))


def _scaled(result: RunResult, ratio: tuple[float, float] | None) -> RunResult:
    """The result with its seconds of fitting multiplied; without a ratio, as one whose seconds cannot be quoted."""
    if ratio is None:
        return dataclasses.replace(result, concurrent=True, timed_seed=None)

    def cost(each: Cost) -> Cost:
        return dataclasses.replace(each, wall_s=each.wall_s * ratio[0], cpu_s=each.cpu_s * ratio[1])

    rows = [dataclasses.replace(row, cost=cost(row.cost)) for row in result.rows]
    spent = {name: getattr(result, name) * ratio[0] for name in ("overrun_s", "query_s")}
    return dataclasses.replace(result, cost=cost(result.cost), rows=rows, **spent)
