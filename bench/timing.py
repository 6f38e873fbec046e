"""The noise floor of time comparisons: fits of several methods in random order, each method also against itself."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from bench import cell, store, study
from bench.errors import UsageError
from bench.options import check_numbers, flag
from bench.report.format import plural, quantity

if TYPE_CHECKING:
    from bench.cell import CellSpec
    from bench.registry import Registry
    from methods.base import Task

    Times = NDArray[np.float64]

ARMS = ("A", "A'")
RESAMPLES = 9999
SCHEMA = 1
LEAST = {"rounds": 5, "seed": 0, "max_steps": 1}


@dataclass(frozen=True)
class Ratio:
    """A ratio of times: its median over rounds, and the bounds of a 95% interval."""

    value: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """How far the interval reaches from 1: 0.03 if it reaches to 1.03 or to 1 / 1.03."""
        return math.expm1(max(abs(math.log(self.low)), abs(math.log(self.high))))


@dataclass(frozen=True)
class Comparison:
    """One method's time over another's.

    noise_floor: the larger reach of the two methods' ratios to themselves, as a fraction.
    """

    first: str
    second: str
    ratio: Ratio
    noise_floor: float

    @property
    def verdict(self) -> str:
        """Not 'indistinguishable' only if the interval excludes 1 and the ratio lies beyond the noise floor."""
        ratio = self.ratio
        if ratio.low <= 1 <= ratio.high or abs(math.log(ratio.value)) <= math.log1p(self.noise_floor):
            return "indistinguishable"
        return "faster" if ratio.value < 1 else "slower"


def time_ratio(first: Times, second: Times, seed: int) -> Ratio:
    """The ratio of paired times, (rounds,) each, in seconds.

    The interval is the percentile bootstrap of the median log ratio over rounds (Efron & Tibshirani 1993, chapter
    13). From 5 to 20 rounds it covers the truth 92 to 95 times in 100.
    """
    from scipy.stats import bootstrap

    logs = np.log(first / second)
    random = np.random.default_rng(seed)
    bounds = bootstrap((logs,), np.median, n_resamples=RESAMPLES, method="percentile", rng=random).confidence_interval
    return Ratio(*np.exp([np.median(logs), bounds.low, bounds.high]).tolist())


def self_ratios(times: dict[str, Times], seed: int) -> dict[str, Ratio]:
    """Each method's arm A over its arm A', which is 1 but for noise. times: (rounds, 2) seconds by method."""
    return {name: time_ratio(arms[:, 0], arms[:, 1], seed) for name, arms in times.items()}


def comparisons(times: dict[str, Times], seed: int) -> list[Comparison]:
    """The first method against each other one, by the mean of their arms. times: (rounds, 2) seconds by method."""
    noise = {name: ratio.reach for name, ratio in self_ratios(times, seed).items()}
    means = {name: arms.mean(1) for name, arms in times.items()}
    first, *others = times
    return [
        Comparison(first, other, time_ratio(means[first], means[other], seed), max(noise[first], noise[other]))
        for other in others
    ]


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
    from bench.registry import registry

    known = registry(settings.plugins)
    check(settings, known)
    if folder is not None:
        check_folder(folder)
    with pinned() as core:
        before = {"started": study._now(), "load_average_before": load_average()}
        timings = watch(measure(settings, known), settings)
        counted = tuple(timing for timing in timings if timing.round > 0)
    after = {"finished": study._now(), "load_average_after": load_average()}
    return Result(settings, counted, {**_provenance(settings, known), "core": core, **before, **after})


@contextlib.contextmanager
def pinned() -> Iterator[int | None]:
    """One thread, on one core; yields the core, or None where the system does not pin processes."""
    environment = {name: os.environ.get(name) for name in study.THREAD_VARIABLES}
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
    study.check(_as_study(settings), known)


def _as_study(settings: Settings) -> study.Settings:
    """The study whose cells set up the same fits; a test set is never looked at, but there must be one."""
    return study.Settings(
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
    """Raise UsageError for a folder that holds something else or cannot be written; changes nothing."""
    if folder.is_dir() and not (folder / "timing.json").exists():
        held = next(folder.iterdir(), None)
        if held is not None:
            raise UsageError(f"{folder} is not empty and holds no timings ({held.name}, ...); use another --out")
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
    specs = {s.method: replace(s, seed=settings.seed) for s in study.cells(_as_study(settings), known)}
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


def _refuse_skips(specs: Iterable[CellSpec], known: Registry, problem: Any) -> None:
    for spec in specs:
        skip = getattr(known.make_method(spec.method), "skip", lambda *_: None)
        reason = skip(problem.latent_dim, problem.data_dim, spec.size)
        if reason:
            raise UsageError(f"method {spec.method!r} skips dataset {spec.dataset!r}: {reason}")


def _failure(spec: CellSpec, number: int, error: BaseException) -> FitFailedError:
    from bench.registry import describe

    when = f"in round {number}" if number else "in the warm-up round"
    return FitFailedError(f"{spec.name} failed {when}: {describe(error)}")


def _fit(spec: CellSpec, known: Registry, problem: Any, max_steps: int | None) -> tuple[float, float, int]:
    """Set up a fit, and time it."""
    from datasets.base import draw
    from methods.base import FreeLedger

    method = known.make_method(spec.method)
    split = draw(problem, spec.seed, spec.size, spec.validation_size, spec.test_size)
    task = cell._task(method, problem, split, spec, FreeLedger())
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
        wall, cpu = time.perf_counter(), time.process_time()
        fit = method.fit(task)
        steps = sum(1 for _ in itertools.islice(fit, max_steps))
        synchronise()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
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

    alike = _as_study(settings)
    spec = next(study.cells(alike, known))
    gpu = torch.cuda.get_device_name() if settings.device == "cuda" else None
    described = study._describe(alike, known, "", 1, "", Path())["provenance"]
    return {**described, "code": spec.code, "versions": spec.versions, "gpu": gpu}


def silent(timings: Iterator[Timing], _: Settings) -> Iterator[Timing]:
    """Tells nobody."""
    return timings


def lines(timings: Iterator[Timing], settings: Settings) -> Iterator[Timing]:
    """Tells of each round in a line on standard error."""
    began, rounds = time.perf_counter(), settings.rounds
    while done := list(itertools.islice(timings, len(ARMS) * len(settings.methods))):
        number = done[0].round
        left = (time.perf_counter() - began) / (number + 1) * (rounds - number)
        about = f"  about {quantity('wall_s', left)} left" if left else ""
        click.echo(f"[{f'{number}/{rounds}' if number else 'warm-up'}] {_seconds(done)}{about}", err=True)
        yield from done


def bar(timings: Iterator[Timing], settings: Settings) -> Iterator[Timing]:
    """Tells of each fit in a live bar, which moves between fits only: a thread to move it would be timed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = (settings.rounds + 1) * len(ARMS) * len(settings.methods)
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        task = live.add_task("warm-up round", total=total)
        live.refresh()
        for timing in timings:
            where = f"round {timing.round} of {settings.rounds}" if timing.round else "warm-up round"
            live.update(task, advance=1, description=where, refresh=True)
            yield timing


def _seconds(timings: Iterable[Timing]) -> str:
    """'mapa 0.2 s (46 steps), vae 2.9 s (300 steps)': medians by method."""
    by_method: dict[str, list[Timing]] = {}
    for timing in timings:
        by_method.setdefault(timing.method, []).append(timing)
    return ", ".join(
        f"{name} {quantity('wall_s', float(np.median([t.wall_s for t in fits])))} ({plural(fits[0].steps, 'step')})"
        for name, fits in sorted(by_method.items())
    )


def write(result: Result, folder: Path, command: str) -> None:
    """Write timings.csv, timings.parquet and timing.json; raises UsageError if the folder cannot be written to."""
    import pandas as pd

    table = pd.DataFrame([asdict(timing) for timing in result.timings])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store.write_json(folder / "timing.json", _described(result, command))
        for name, save in (("timings.csv", table.to_csv), ("timings.parquet", table.to_parquet)):
            with store.replacing(folder / name) as temporary:
                save(temporary, index=False)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}") from None


def _described(result: Result, command: str) -> dict[str, Any]:
    """The content of timing.json."""
    times, seed = result.times, result.settings.seed
    return {
        "schema": SCHEMA,
        "command": command,
        "settings": asdict(result.settings),
        "ratios": [{**asdict(c), "verdict": c.verdict} for c in comparisons(times, seed)],
        "self_ratios": {name: asdict(ratio) for name, ratio in self_ratios(times, seed).items()},
        "provenance": result.provenance,
    }


def show(result: Result) -> None:
    """Print the ratios, those of methods to themselves beside them, and what follows in a sentence for each pair."""
    from rich.console import Console
    from rich.table import Table

    from bench.terminal import WIDE

    times, seed = result.times, result.settings.seed
    pairs = comparisons(times, seed)
    table = Table(title=_title(result), title_justify="left", box=None, pad_edge=False)
    for name in ("time of / time of", "ratio", "95% interval", "noise floor", "verdict"):
        table.add_column(name, justify="right" if name in ("ratio", "95% interval", "noise floor") else "left")
    for c in pairs:
        table.add_row(f"{c.first} / {c.second}", *_written(c.ratio), _percent(c.noise_floor), c.verdict)
    table.add_section()
    for name, ratio in self_ratios(times, seed).items():
        table.add_row(f"{name} A / A'", *_written(ratio), _percent(ratio.reach), "1 in truth")
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    console.print(table)
    for c in pairs:
        console.print(f"\n{sentence(c)}", markup=False, highlight=False)


def sentence(c: Comparison) -> str:
    """What a comparison says."""
    value, interval = _written(c.ratio)
    floor = _percent(c.noise_floor)
    return f"{c.first} takes {value} {interval} of {c.second}'s time: {c.verdict} (noise floor {floor})."


def _title(result: Result) -> str:
    settings, load = result.settings, result.provenance["load_average_before"]
    busy = f"; load average {load[0]:.1f} before" if load else ""
    return (
        f"{settings.dataset}, {settings.size} data, seed {settings.seed}, {settings.rounds} rounds{busy}\n"
        f"{_seconds(result.timings)}"
    )


def _written(ratio: Ratio) -> tuple[str, str]:
    """'0.0412×' and '[0.0351, 0.0450]'."""
    return f"{_digits(ratio.value)}×", f"[{_digits(ratio.low)}, {_digits(ratio.high)}]"


def _digits(value: float) -> str:
    """Three decimals near 1, where they matter, and three significant digits elsewhere."""
    return f"{value:.3f}" if 0.1 <= value < 10 else f"{float(f'{value:.3g}'):g}"


def _percent(fraction: float) -> str:
    return f"{float(f'{100 * fraction:.2g}'):g}%"
