"""Fits several methods in random order, each method twice in every round, on one core and one thread."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bench.common.errors import UsageError, describe
from bench.config.schema import CONDITIONS, Settings, TimingSettings
from bench.execution.pool import THREAD_VARIABLES
from bench.registry.fingerprints import project_digest
from bench.store import provenance
from bench.study.plan import Plan, resolve

if TYPE_CHECKING:
    from bench.store.records import RunSpec
    from bench.timing.ratios import Times
    from datasets.base import DataSource
    from methods.contract.method import Method, Task

ARMS = ("A", "A'")


@dataclass(frozen=True)
class Timing:
    """One fit.

    Args:
        round: Its round; round 0 warms up.
        position: Its place in the round, from 1.
        method: Its method.
        arm: A or A'.
        wall_s: Elapsed seconds.
        cpu_s: Processor seconds.
        steps: Number of yields.
    """

    round: int
    position: int
    method: str
    arm: str
    wall_s: float
    cpu_s: float
    steps: int


@dataclass(frozen=True)
class Result:
    """All fits that count, in order, and the machine that they ran on."""

    settings: TimingSettings
    timings: tuple[Timing, ...]
    provenance: dict[str, Any]

    @property
    def times(self) -> dict[str, Times]:
        """Wall seconds by method: (rounds, 2), with arm A before A'."""
        found = {(t.method, t.round, t.arm): t.wall_s for t in self.timings}
        rounds = range(1, self.settings.rounds + 1)
        return {m: np.array([[found[m, r, arm] for arm in ARMS] for r in rounds]) for m in self.settings.methods}


class FitFailedError(Exception):
    """A method raised or yielded nothing, so that there is nothing to compare."""


Watch = Callable[[Iterator[Timing], TimingSettings], Iterable[Timing]]


def run(settings: TimingSettings, folder: Path | None, watch: Watch) -> Result:
    """Time methods on one core and one thread.

    Args:
        settings: What to time.
        folder: Where results will go; None for nowhere.
        watch: Passes timings on as they come.

    Raises:
        UsageError: For settings that cannot be timed, or a folder that cannot take the result.
        FitFailedError: If a method raises, or yields nothing.
    """
    plan = planned(settings)
    (dataset,) = plan.datasets
    stated = {"methods": tuple(plan.methods), "dataset": dataset, "n_train": plan.conditions(dataset)["n_train"]}
    settings = msgspec.structs.replace(settings, **stated)  # as the fits have them
    if folder is not None:
        check_folder(folder)
    with pinned() as core:
        before = {"started": provenance.now(), "load_average_before": load_average()}
        timings = watch(measure(settings, plan), settings)
        counted = tuple(timing for timing in timings if timing.round > 0)
    after = {"finished": provenance.now(), "load_average_after": load_average()}
    return Result(settings, counted, {**_provenance(settings, plan), "core": core, **before, **after})


@contextlib.contextmanager
def pinned() -> Iterator[int | None]:
    """Within, one thread on one core; yields the core, or None if the system cannot pin processes."""
    environment = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(environment, "1"))
    import torch  # after the variables are set, which its libraries read when they are loaded
    from threadpoolctl import threadpool_limits

    threads, cores = torch.get_num_threads(), _cores()
    core = max(cores, default=None)
    try:
        with threadpool_limits(1):
            torch.set_num_threads(1)
            yield core if core is not None and _move({core}) else None
    finally:
        torch.set_num_threads(threads)
        _move(cores)
        for name, value in environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _cores() -> set[int]:
    """The cores that this process may use; empty if the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _move(cores: set[int]) -> bool:
    """Move to these cores. Returns whether that was allowed."""
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError):
        return False
    return True


def planned(settings: TimingSettings) -> Plan:
    """The plan whose runs set up the same fits.

    Raises:
        UsageError: For names that cannot be timed.
    """
    names = settings.methods
    if len(names) < 2:
        raise UsageError(f"--methods needs at least two names to compare, got {', '.join(names) or 'none'}")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UsageError(f"--methods names {repeated[0]!r} twice; every method is timed against itself anyway")
    if not settings.dataset or "," in settings.dataset:
        raise UsageError(f"--dataset takes exactly one name, got {settings.dataset!r}")
    conditions: dict[str, Any] = {name: getattr(settings, name) for name in CONDITIONS}
    shared: dict[str, Any] = {
        "datasets": (settings.dataset,),
        "seeds": 1,
        "first_seed": settings.seed,
        "plugins": settings.plugins,
    }
    plan = resolve(Settings(methods=names, **shared, **conditions))
    if len(plan.methods) < 2:
        raise UsageError(f"--methods names {next(iter(plan.methods))!r} alone, got {', '.join(names)}")
    return plan


def check_folder(folder: Path) -> None:
    """Check that a folder can take results, without changing anything.

    Raises:
        UsageError: If it holds anything or cannot be written to.
    """
    held = next(folder.iterdir(), None) if folder.is_dir() else None
    if held is not None:
        holds = "holds timings already" if (folder / "timing.json").exists() else f"is not empty ({held.name}, ...)"
        raise UsageError(f"{folder} {holds}; use another --out")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest} is a file; --out needs a folder")
    try:
        with TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(f"{nearest} cannot be written to: {error.strerror}") from None


def measure(settings: TimingSettings, plan: Plan) -> Iterator[Timing]:
    """Time round after round, each method twice in each, in a random order; round 0 warms up.

    Every fit starts from the same data, weights and random stream, so that a method's fits differ in time alone.

    Args:
        settings: What to time.
        plan: As `planned` gives it.

    Raises:
        UsageError: For a method that skips the dataset.
        FitFailedError: If a method raises, or yields nothing.
    """
    from bench.fit.task import reason_to_skip

    (dataset,) = plan.datasets
    source = plan.registry.make_problem(dataset, settings.latent_dim)
    specs = {spec.method: spec for spec in plan.runs}
    for spec in specs.values():
        reason = reason_to_skip(source, plan.registry.make_method(spec.method), spec)
        if reason:
            raise UsageError(f"method {spec.method!r} skips dataset {spec.dataset!r}: {reason}")
    fits = list(itertools.product(plan.methods, ARMS))
    order = np.random.default_rng(settings.seed)
    for number in range(settings.rounds + 1):
        for position, index in enumerate(order.permutation(len(fits)), 1):
            method, arm = fits[index]
            try:
                seconds = _fit(specs[method], plan, source, settings.max_steps)
            except (Exception, SystemExit) as error:
                when = f"in round {number}" if number else "in the warm-up round"
                raise FitFailedError(f"{specs[method].name} failed {when}: {describe(error)}") from error
            yield Timing(number, position, method, arm, *seconds)


def _fit(spec: RunSpec, plan: Plan, source: DataSource, max_steps: int | None) -> tuple[float, float, int]:
    """Set up a fit, and time it."""
    from bench.fit.task import make_task
    from datasets.base import draw
    from methods.contract.method import NullLedger

    method = plan.registry.make_method(spec.method)
    split = draw(source, spec.seed, spec.n_train, spec.n_train, 1)
    task = make_task(method, source, split, spec, NullLedger())
    with contextlib.redirect_stdout(io.StringIO()):
        return time_fit(method, task, max_steps)


def time_fit(method: Method, task: Task, max_steps: int | None) -> tuple[float, float, int]:
    """Time a fit, or its first steps.

    Args:
        method: The method.
        task: Its task.
        max_steps: Yields after which the fit is stopped; None for a whole fit.

    Returns:
        Wall seconds, CPU seconds and yields.

    Raises:
        RuntimeError: If the method yields nothing. What the method itself raises is passed on.
    """
    import torch

    from bench.fit.block import cpu_seconds

    synchronise = torch.cuda.synchronize if task.train.is_cuda else lambda: None
    with _without_collector():
        synchronise()
        wall, cpu = time.perf_counter(), cpu_seconds()
        fit = method.fit(task)
        steps = sum(1 for _ in itertools.islice(fit, max_steps))
        synchronise()
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    if not steps:
        raise RuntimeError("fit ended without yielding a fitted model")
    return wall, cpu, steps


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Collect garbage now, and not within the block."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_average() -> tuple[float, ...] | None:
    """Mean numbers of waiting processes over 1, 5 and 15 minutes; None if the system does not say."""
    try:
        return os.getloadavg()
    except (AttributeError, OSError):
        return None


def _provenance(settings: TimingSettings, plan: Plan) -> dict[str, Any]:
    """What a study records, and what else may change times."""
    import torch

    spec = plan.runs[0]
    gpu = torch.cuda.get_device_name() if settings.device == "cuda" else None
    return {**provenance.collect(), "code": project_digest(), "versions": spec.versions, "gpu": gpu}
