"""Fits of several methods in random order, each method twice in every round, on one core and one thread."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.common.errors import UsageError
from bench.execution.worker import THREAD_VARIABLES
from bench.fit import runner
from bench.store import provenance
from bench.study import execute
from bench.study.options import check_numbers, flag

if TYPE_CHECKING:
    from bench.registry.registry import Registry
    from bench.store.records import RunSpec
    from bench.timing.ratios import Times
    from methods.contract.method import Task

ARMS = ("A", "A'")
LEAST = {"rounds": 5, "seed": 0, "max_steps": 1}


@dataclass(frozen=True)
class Settings:
    """What is timed. size: number of training data. max_steps: yields after which a fit is stopped; None for none."""

    methods: tuple[str, ...]
    dataset: str = "figure8"
    size: int = 500
    seed: int = 0
    rounds: int = 10
    max_steps: int | None = None
    noise: str = "known"
    device: str = "cpu"
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """One fit: its round, its place in it from 1, its arm, and its seconds and yields. Round 0 warms up."""

    round: int
    position: int
    method: str
    arm: str
    wall_s: float
    cpu_s: float
    steps: int


@dataclass(frozen=True)
class Result:
    """All counted fits in order, and what they ran on."""

    settings: Settings
    timings: tuple[Timing, ...]
    provenance: dict[str, Any]

    @property
    def times(self) -> dict[str, Times]:
        """Wall seconds by method: (rounds, 2), with arm A before A'."""
        found = {(t.method, t.round, t.arm): t.wall_s for t in self.timings}
        rounds = range(1, self.settings.rounds + 1)
        return {m: np.array([[found[m, r, arm] for arm in ARMS] for r in rounds]) for m in self.settings.methods}


class FitFailedError(Exception):
    """A method that raised, or yielded nothing, so that there is nothing to compare."""


Watch = Callable[[Iterator[Timing], Settings], Iterable[Timing]]


def run(settings: Settings, folder: Path | None, watch: Watch) -> Result:
    """Time the methods on one core and one thread; `watch` passes timings on as they come.

    Raises UsageError for settings that cannot be run or a folder that cannot take the result, and FitFailedError.
    """
    from bench.registry.registry import registry

    known = registry(settings.plugins)
    check(settings, known)
    if folder is not None:
        check_folder(folder)
    with pinned() as core:
        before = {"started": provenance.now(), "load_average_before": load_average()}
        timings = watch(measure(settings, known), settings)
        counted = tuple(timing for timing in timings if timing.round > 0)
    after = {"finished": provenance.now(), "load_average_after": load_average()}
    return Result(settings, counted, {**_provenance(settings, known), "core": core, **before, **after})


@contextlib.contextmanager
def pinned() -> Iterator[int | None]:
    """One thread, on one core; yields the core, or None where the system does not pin processes."""
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
    """The cores that this process may use; empty where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _move(cores: set[int]) -> bool:
    """Move to these cores; whether that was allowed."""
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError):
        return False
    return True


def check(settings: Settings, known: Registry) -> None:
    """Raise UsageError for names, numbers and choices that cannot be timed."""
    names = settings.methods
    if len(names) < 2:
        raise UsageError(f"--methods needs at least two names to compare, got {', '.join(names) or 'none'}")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UsageError(f"--methods names {repeated[0]!r} twice; every method is timed against itself unasked")
    if not settings.dataset or "," in settings.dataset:
        raise UsageError(f"--dataset takes exactly one name, got {settings.dataset!r}")
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise UsageError(f"{flag(name)} must be a whole number of at least {least}, got {value}")
    check_numbers(_as_study(settings), 1)
    execute.checked(_as_study(settings), known)


def _as_study(settings: Settings) -> execute.Settings:
    """The study whose runs set up the same fits; a test set is never looked at, but there must be one."""
    return execute.Settings(
        methods=settings.methods,
        datasets=(settings.dataset,),
        seeds=1,
        size=settings.size,
        validation_size=settings.size,
        test_size=1,
        noise=settings.noise,
        device=settings.device,
        plugins=settings.plugins,
    )


def check_folder(folder: Path) -> None:
    """Raise UsageError for a folder that holds anything or cannot be written; changes nothing."""
    held = next(folder.iterdir(), None) if folder.is_dir() else None
    if held is not None:
        holds = "holds timings already" if (folder / "timing.json").exists() else f"is not empty ({held.name}, ...)"
        raise UsageError(f"{folder} {holds}; use another --out")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest} is a file; --out needs a folder")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{nearest} cannot be written to")


def measure(settings: Settings, known: Registry) -> Iterator[Timing]:
    """Time round after round, each method twice in each, in a random order; round 0 warms up.

    Every fit starts from the same data, weights and random stream, so that a method's fits differ in time alone.
    """
    problem = known.make_problem(settings.dataset, None)
    specs = {s.method: replace(s, seed=settings.seed) for s in execute.runs(_as_study(settings), known)}
    _refuse_skips(specs.values(), known, problem)
    fits = list(itertools.product(settings.methods, ARMS))
    order = np.random.default_rng(settings.seed)
    for number in range(settings.rounds + 1):
        for position, index in enumerate(order.permutation(len(fits)), 1):
            method, arm = fits[index]
            try:
                seconds = _fit(specs[method], known, problem, settings.max_steps)
            except (Exception, SystemExit) as error:
                raise _failure(specs[method], number, error) from error
            yield Timing(number, position, method, arm, *seconds)


def _refuse_skips(specs: Iterable[RunSpec], known: Registry, problem: Any) -> None:
    for spec in specs:
        method = known.make_method(spec.method)
        lacking = runner.lacks_truth(problem, method, spec)
        if lacking:
            raise UsageError(lacking)
        reason = method.skip(problem.latent_dim, problem.data_dim, spec.size)
        if reason:
            raise UsageError(f"method {spec.method!r} skips dataset {spec.dataset!r}: {reason}")


def _failure(spec: RunSpec, number: int, error: BaseException) -> FitFailedError:
    from bench.registry.registry import describe

    when = f"in round {number}" if number else "in the warm-up round"
    return FitFailedError(f"{spec.name} failed {when}: {describe(error)}")


def _fit(spec: RunSpec, known: Registry, problem: Any, max_steps: int | None) -> tuple[float, float, int]:
    """Set up a fit, and time it."""
    from datasets.base import draw
    from methods.contract.method import NullLedger

    method = known.make_method(spec.method)
    split = draw(problem, spec.seed, spec.size, spec.validation_size, spec.test_size)
    task = runner.make_task(method, problem, split, spec, NullLedger())
    with contextlib.redirect_stdout(io.StringIO()):
        return time_fit(method, task, max_steps)


def time_fit(method: Any, task: Task, max_steps: int | None) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and yields of a fit, or of its first `max_steps` yields.

    Raises what the method raises, and RuntimeError if it yields nothing.
    """
    import torch

    synchronise = torch.cuda.synchronize if task.train.is_cuda else lambda: None
    with _without_collector():
        synchronise()
        wall, cpu = time.perf_counter(), runner.cpu_seconds()
        fit = method.fit(task)
        steps = sum(1 for _ in itertools.islice(fit, max_steps))
        synchronise()
        wall, cpu = time.perf_counter() - wall, runner.cpu_seconds() - cpu
    if not steps:
        raise RuntimeError("fit ended without yielding a fitted model")
    return wall, cpu, steps


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Collect garbage now, and not within."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_average() -> tuple[float, ...] | None:
    """Mean numbers of waiting processes over 1, 5 and 15 minutes, or None where the system does not tell."""
    try:
        return os.getloadavg()
    except (AttributeError, OSError):
        return None


def _provenance(settings: Settings, known: Registry) -> dict[str, Any]:
    """What a study says of itself, and what else may change times."""
    import torch

    spec = next(execute.runs(_as_study(settings), known))
    gpu = torch.cuda.get_device_name() if settings.device == "cuda" else None
    return {**provenance.collect(), "code": spec.code, "versions": spec.versions, "gpu": gpu}
