"""Fits, times and scores one run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import resource
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import torch

from bench.common.errors import UsageError, describe
from bench.common.text import plain
from bench.fit.answers import Answers, Query, check_bound, check_log_index
from bench.fit.flop_counter import CountingLedger
from bench.fit.memory import PeakMemory
from bench.metrics import DRAWS, LAST_DRAWS, BaseEvaluator, Evaluator, Measurement, TrueModel
from bench.metrics.nuts import Shared
from bench.metrics.validation import ValidationEvaluator
from bench.process.containment import Containment, contained, silenced
from bench.registry.fingerprints import data_digest
from bench.registry.registry import registry
from bench.store.records import Cost, Diagnostic, Row, RunResult, RunSpec
from datasets.base import DataSource, Observations, Problem, Split, draw, stream
from methods.contract.decoder import build_model
from methods.contract.method import Fitted, Ledger, Method, NullLedger, Task
from methods.likelihoods import Gaussian, PerCoordinateGaussian

CHECKPOINTS_PER_DECADE = 3
WARM_UP_POINTS = 32
WARM_UP_STEPS = 3
ELSEWHERE, ELSEWHERE_S = 0.05, 0.02
LOOKED_AT = 3
ALONE_S, MOST_ALONE_S, ALONE_STEP_S, SETTLED = 2.0, 8.0, 0.02, 0.03


def run_one(spec: RunSpec, concurrent: bool = False, shared: str = "") -> RunResult:
    """Carry out a run, as `run_block` does."""
    return run_block([spec], concurrent, shared)[0]


def run_block(specs: Sequence[RunSpec], concurrent: bool = False, shared: str = "") -> list[RunResult]:
    """Carry out runs of one method on one dataset, which differ in their seeds alone, in one process.

    Whatever the method raises makes the results `failed`; what it prints is dropped. What the method changes in the
    process is undone, and named in the notes (`bench.process.containment`). Where `spec.block` is above 1, all seeds of
    the block are fitted as one program, so that the values do not depend on which of them are asked for.

    Args:
        specs: The runs, of seeds of one block.
        concurrent: Whether other runs are carried out at the same time.
        shared: A folder for what all runs of a dataset and seed are scored with; none if it is empty.

    Raises:
        KeyboardInterrupt: If this process listens to the keyboard.
    """
    results = [RunResult(spec, concurrent=concurrent or spec.block > 1) for spec in specs]
    _carry_out(results, lambda block: block.run(), shared)
    return results


def time_alone(spec: RunSpec) -> list[RunResult]:
    """Time the fit of a run by itself, without scoring it, until the cost of its steps no longer changes.

    Args:
        spec: The run.

    Returns:
        Its result, whose `alone` is filled; none if the fit failed.
    """
    timed = RunResult(msgspec.structs.replace(spec, block=1, scored_on="validation"))
    _carry_out([timed], lambda block: block.time(), "")
    return [RunResult(spec, alone=timed.alone)] if timed.status == "done" else []


def _carry_out(results: Sequence[RunResult], act: Callable[[_Block], None], shared: str) -> None:
    """Prepare the fit of runs of one block, and act on it, contained."""
    torch.set_num_threads(1)
    with contained(results[0].spec.seed), silenced() as output:
        containment = Containment()
        try:
            _prepare(results, containment, shared, output.last_line, act)
        except BaseException as error:
            if _of_keyboard(error):
                raise
            for result in results:
                _fail(result, error, output.last_line())
        found = (containment.undone(), containment.left_behind())
        for result in results:
            result.notes = plain("; ".join(filter(None, (result.notes, *found))))


def _of_keyboard(error: BaseException) -> bool:
    """Whether the user has ended the process, which listens to the keyboard."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def _fail(result: RunResult, error: BaseException, last: str = "") -> None:
    result.status = "failed"
    result.message = plain(f"{describe(error)} (last on standard error: {last})" if last else describe(error))


def _prepare(
    results: Sequence[RunResult],
    containment: Containment,
    shared: str,
    last_line: Callable[[], str],
    act: Callable[[_Block], None],
) -> None:
    spec = results[0].spec
    known = registry(spec.plugins, spec.columns)
    method = known.make_method(spec.method, dict(spec.parameters))
    parameters = hyperparameters(method)
    source = known.make_problem(spec.dataset, spec.latent_dim)
    if known.dataset(spec.dataset).data_file and spec.data not in ("", data_digest(source)):
        raise UsageError(f"the data of {spec.dataset} were changed since the study began; start it again")
    with containment.method():
        reason = reason_to_skip(source, method, spec)
    for result in results:
        result.parameters = parameters.copy()
        if reason:
            result.status, result.message = "skipped", plain(reason)
    if reason:
        return
    with containment.method():
        _warm_up(method, source, spec)
    containment.begin_anew()
    built_in = type(method).__module__.partition(".")[0] == "methods"
    replicas = [_Replica(result, source, containment, Shared(shared, built_in), last_line) for result in results]
    with contextlib.closing(_Block(replicas, method, source, containment)) as block:
        act(block)


def reason_to_skip(source: DataSource, method: Method, spec: RunSpec) -> str | None:
    """Why a method cannot be run on a data source; None if it can.

    Args:
        source: What the data come from.
        method: The method.
        spec: The run, for its size and its observation noise.
    """
    if isinstance(source, Observations):
        if method.sees_truth:
            return f"{source.name} has no known true model, which {spec.method} needs"
        if spec.observation_noise == "known" and source.family == Gaussian.name:
            return f"{source.name} has no known noise variance: use --observation-noise learned or per-coordinate"
    reason = method.skip_likelihood(modelled_family(source, spec), source.latent_dim) or method.skip(
        source.latent_dim, source.data_dim, spec.n_train
    )
    return None if reason is None else str(reason)


def modelled_family(source: DataSource, spec: RunSpec) -> str:
    """The family of the model's p(x | z): that of the data, or a Gaussian with a noise variance for each coordinate."""
    per_coordinate = source.family == Gaussian.name and spec.observation_noise == "per-coordinate"
    return PerCoordinateGaussian.name if per_coordinate else source.family


def hyperparameters(method: Method) -> dict[str, bool | int | float | str | None]:
    """All hyperparameters of a method, as they are stored."""
    return {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def _plain(value: object) -> bool | int | float | str | None:
    """A hyperparameter as it is stored: as text, unless it is a number."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _warm_up(method: Method, source: DataSource, spec: RunSpec) -> None:
    """A few counted steps on other data, so that imports and the first calls of kernels are not timed.

    They are those of one seed, or of two as one program if the run is one of a block.
    """
    small = msgspec.structs.replace(spec, n_train=min(spec.n_train, WARM_UP_POINTS))
    split = draw(source, 0, small.n_train, small.n_train, 0)
    ledger = CountingLedger()
    with contextlib.suppress(Exception, SystemExit):
        fit = _each(method, [make_task(method, source, split, small, ledger) for _ in range(min(spec.block, 2))])
        ledger.start(every=spec.block == 1)
        try:
            for _ in zip(range(WARM_UP_STEPS), fit):  # noqa: B905 - stops at the shorter one
                pass
        finally:
            ledger.stop()
            _end(fit, ledger)


def make_task(method: Method, source: DataSource, split: Split, spec: RunSpec, ledger: Ledger) -> Task:
    """The task of a run: every method at a seed gets the same data, initial weights and random stream.

    Args:
        method: The method, which gets the true model only if it sets `sees_truth`.
        source: What the data come from.
        split: The data.
        spec: The run.
        ledger: Where the method's work is accounted for; it watches the decoder.

    Raises:
        ValueError: For data that no method is given, such as data that are not finite.
    """
    noise = source.noise_variance if isinstance(source, Problem) and spec.observation_noise == "known" else None
    weights, family = stream("initial weights", spec.seed, "decoder"), modelled_family(source, spec)
    train, validation = (x.float().to(spec.device) for x in (split.train, split.validation))
    model = build_model(train.cpu(), source.latent_dim, noise, weights, spec.hidden, spec.activation, family).to(
        spec.device
    )
    ledger.watch(decoder=model.network)
    truth = TrueModel(source) if method.sees_truth and isinstance(source, Problem) else None
    draws = torch.Generator(spec.device).manual_seed(stream("training", spec.seed, "draws").initial_seed())
    return Task(train, validation, model, draws, ledger, truth)


class _Block:
    """Fits a method to one seed, or to all seeds of a block, while the clock runs.

    Args:
        replicas: The runs that are asked for.
        method: The method.
        source: What the data come from.
        containment: What is put back when the method has run.
    """

    def __init__(self, replicas: Sequence[_Replica], method: Method, source: DataSource, containment: Containment):
        self.replicas, self.containment = replicas, containment
        self.spec = spec = replicas[0].spec
        self.memory = PeakMemory(spec.device)
        first = spec.seed - spec.seed % spec.block
        seeds = range(first, first + spec.block) if spec.block > 1 else [spec.seed]
        asked = {each.spec.seed: each for each in replicas}
        tasks = [
            asked[seed].make_task(method) if seed in asked else _unasked(method, source, spec, seed) for seed in seeds
        ]
        self.places = [seeds.index(each.spec.seed) for each in replicas]
        self.size = len(tasks)
        self.fit = _each(method, tasks)
        self.cpu_s = self.elsewhere_s = 0.0

    def run(self) -> None:
        """Fit to the end or to the budget. What the method raises fails the runs that have not ended by then."""
        try:
            while due := self._stretch():
                for replica in due:
                    replica.look()
            for replica in self.replicas:
                replica.finish()
        except BaseException as error:
            if _of_keyboard(error):
                raise
            for replica in self.replicas:
                if not replica.ended:
                    replica.fail(error)
        finally:
            for replica in self.replicas:
                replica.account(self._elsewhere(), self.memory.peak / self.size)

    def time(self) -> None:
        """Note what the fit of one run costs along its way, until that is known, or to its end."""
        (replica,) = self.replicas
        with self.containment.method():
            while self._advance() and not replica.due():
                cost, alone = replica.cost, replica.result.alone
                if not alone or cost.wall_s >= alone[-1][1] + ALONE_STEP_S:
                    alone.append((cost.flops, cost.wall_s, cost.cpu_s))
                    if _settled(alone):
                        return
            cost = replica.cost
            replica.result.alone.append((cost.flops, cost.wall_s, cost.cpu_s))

    def close(self) -> None:
        """End the fit where it stands, so that it can put away what it holds; what it raises is too late to count."""
        with self.containment.method():
            _end(self.fit, self.replicas[0].ledger)

    def _stretch(self) -> list[_Replica]:
        """Fit up to the next checkpoint of any run: the runs that are due; none at the end."""
        self.memory.begin()
        try:
            with self.containment.method():
                while any(not each.ended for each in self.replicas) and self._advance():
                    if due := [each for each in self.replicas if each.due()]:
                        return due
            return []
        finally:
            self.memory.end()

    def _advance(self) -> bool:
        """One resumption of the method, on the clock; whether it yielded."""
        going = [(each, i) for each, i in zip(self.replicas, self.places, strict=True) if not each.ended]
        ledgers = [each.ledger for each, _ in going]
        overhead = sum(ledger.overhead_s for ledger in ledgers)
        self._synchronise()
        for ledger in ledgers:
            ledger.start(every=self.size == 1)
        wall, cpu, here = time.perf_counter(), cpu_seconds(), time.thread_time()
        try:
            fitted = next(self.fit, None)
            self._synchronise()
        finally:
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            self.elsewhere_s += cpu - (time.thread_time() - here)
            for ledger in ledgers:
                ledger.stop()
            counting = sum(ledger.overhead_s for ledger in ledgers) - overhead
            wall, cpu = max(wall - counting, 0.0), max(cpu - counting, 0.0)
            self.cpu_s += cpu
            for each, _ in going:
                each.spend(wall / self.size, cpu / self.size)
        if fitted is not None:
            for each, i in going:
                each.fitted, each.changed = fitted[i], True
        return fitted is not None

    def _synchronise(self) -> None:
        if self.spec.device != "cpu":
            torch.cuda.synchronize()

    def _elsewhere(self) -> str:
        """What other threads and processes did, in words, if it is more than a twentieth of the fit."""
        seconds = self.elsewhere_s
        if seconds <= max(ELSEWHERE_S, ELSEWHERE * self.cpu_s):
            return ""
        return f"FLOPs not counted: other threads or processes used {seconds:.2g} of {self.cpu_s:.2g} CPU seconds"


class _Replica:
    """One run: its cost, and what is measured of it at checkpoints while the clock is stopped.

    Checkpoints are spaced geometrically in FLOPs, which do not depend on the machine, on a grid that all runs share.
    The last state is always a checkpoint, and on validation data the only one.
    """

    def __init__(
        self,
        result: RunResult,
        source: DataSource,
        containment: Containment,
        shared: Shared,
        last_line: Callable[[], str],
    ):
        spec = result.spec
        self.result, self.spec, self.source, self.containment = result, spec, source, containment
        self.last_line = last_line
        on_test = spec.scored_on == "test"
        self.split = draw(source, spec.seed, spec.n_train, spec.n_train, spec.n_test if on_test else 0)
        self.evaluator: BaseEvaluator
        with self._not_timed():
            if on_test:
                self.evaluator = Evaluator(source, self.split, spec.seed, spec.device, shared)
            else:
                self.evaluator = ValidationEvaluator(source, self.split, spec.seed, spec.device)
        self.ledger = CountingLedger()
        self.fitted: Fitted | None = None
        self.wall_s = self.cpu_s = 0.0
        self.evaluated_at = -1.0
        self.changed = self.ended = False
        self.next_checkpoint = -math.inf if on_test else math.inf

    def make_task(self, method: Method) -> Task:
        """The task of the run."""
        task = make_task(method, self.source, self.split, self.spec, self.ledger)
        self.train, self.asked = task.train.clone(), task.validation.clone()
        return task

    def spend(self, wall_s: float, cpu_s: float) -> None:
        """Record what the last resumption of the method cost this run."""
        self.wall_s += wall_s
        self.cpu_s += cpu_s

    @property
    def cost(self) -> Cost:
        """What the fit has cost so far."""
        ledger = self.ledger
        return Cost(self.wall_s, self.cpu_s, ledger.flops, ledger.decoder_passes, ledger.encoder_passes)

    def due(self) -> bool:
        """Whether the run is to be looked at."""
        return not self.ended and (self._budget_reached() or self.ledger.flops >= self.next_checkpoint)

    def look(self) -> None:
        """Score the present state, which is the last one if the budget is spent."""
        if self.result.stopped_by:
            self.finish()
        elif self.fitted is not None:
            self._scored(self._checkpoint)

    def finish(self) -> None:
        """Score the last state, what is measured only once, and record what is looked at."""
        if not self.ended:
            self.ended = True
            self._scored(self._finish)

    def _scored(self, score: Callable[[Fitted], None]) -> None:
        """Score the present state. One that cannot be scored fails this run alone."""
        try:
            if self.fitted is None:
                raise RuntimeError("fit ended without yielding a fitted model")
            score(self.fitted)
        except BaseException as error:
            if _of_keyboard(error):
                raise
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the run without a score."""
        self.ended = True
        _fail(self.result, error, self.last_line())

    def account(self, elsewhere: str, peak_memory: float) -> None:
        """What the fit cost, and where the FLOPs and the memory went."""
        self.result.cost = self.cost
        self.result.formula_flops = self.ledger.formula_flops
        self.result.notes = "; ".join(filter(None, (self._uncounted(), elsewhere)))
        self.result.work = self.ledger.account()
        self.result.peak_memory_mb = peak_memory / 1e6

    def _finish(self, fitted: Fitted) -> None:
        if not self.changed and self.evaluated_at == self.ledger.flops:
            self._forget_last_look()
        self._checkpoint(fitted, LAST_DRAWS)
        evaluator, result, name = self.evaluator, self.result, self.spec.method
        with self._not_timed(), self._asked(fitted):
            check_log_index(fitted, self.train[:LOOKED_AT], len(self.train))
            self._record(evaluator.evaluate_final(fitted))
            if evaluator.nuts is not None:
                result.references = evaluator.nuts.rows()
            if self.spec.records_plots:
                result.densities = evaluator.densities(name, fitted)
                result.posteriors = evaluator.index_posteriors(name, fitted)
                result.signals = evaluator.signal_posteriors(name, fitted)
                result.images = evaluator.images(name, fitted)

    def _budget_reached(self) -> bool:
        """Whether the budget is spent; the step that spent the last of it may have spent more, which is recorded."""
        result, spec, flops = self.result, self.spec, self.ledger.flops
        if spec.max_flops is not None and flops >= spec.max_flops:
            result.stopped_by, result.message = "max_flops", f"stopped by --max-flops at {flops:.3g} FLOPs"
            result.overrun_flops = flops - spec.max_flops
        elif spec.max_seconds is not None and self.wall_s >= spec.max_seconds:
            result.stopped_by, result.message = "max_seconds", f"stopped by --max-seconds after {self.wall_s:.3g} s"
            result.overrun_s = self.wall_s - spec.max_seconds
        return bool(result.stopped_by)

    def _uncounted(self) -> str:
        """The operators whose cost is not known, in words."""
        unknown = ", ".join(sorted(self.ledger.unlisted))
        return f"FLOPs not known of: {unknown}" if unknown else ""

    def _forget_last_look(self) -> None:
        """Leave out the last checkpoint, whose state turned out to be the last and is scored with more draws."""
        result, last = self.result, self.result.rows[-1].checkpoint
        result.rows = [row for row in result.rows if row.checkpoint != last]
        result.diagnostics = [each for each in result.diagnostics if each.checkpoint != last]

    def _checkpoint(self, fitted: Fitted, draws: int = DRAWS) -> None:
        checkpoint = self.result.rows[-1].checkpoint + 1 if self.result.rows else 0
        with self._not_timed(), self._asked(fitted):
            found = self.evaluator.evaluate_checkpoint(fitted, draws)
        if self.evaluator.exact:
            check_bound(found)
        self._record(found, checkpoint)
        flops = self.ledger.flops
        self.evaluated_at, self.changed = flops, False
        step = math.floor(CHECKPOINTS_PER_DECADE * math.log10(max(flops, 1.0))) + 1
        self.next_checkpoint = 10 ** (step / CHECKPOINTS_PER_DECADE)

    def _record(self, measurements: Iterable[Measurement], checkpoint: int | None = None) -> None:
        """Note measurements at a checkpoint, by default the last one."""
        result, cost = self.result, self.cost
        if checkpoint is None:
            checkpoint, cost = result.rows[-1].checkpoint, result.rows[-1].cost
        for m in measurements:
            result.rows.append(Row(checkpoint, m.metric, m.value, m.stderr, m.unit, cost))
            result.diagnostics += [
                Diagnostic(checkpoint, m.metric, name, value) for name, value in m.diagnostics.items()
            ]

    @contextlib.contextmanager
    def _asked(self, fitted: Fitted) -> Iterator[None]:
        """Asks a fitted model before and after it is scored, and notes the cost of a query, the largest so far."""
        result = self.result
        with torch.no_grad():
            answers = Answers(fitted, self.asked, self.source.latent_dim, self.spec.seed)
        cost = answers.cost.most(Query(result.query_flops, result.query_s))
        result.query_flops, result.query_s = cost.flops, cost.seconds
        yield
        with torch.no_grad():
            answers.check_unchanged()

    @contextlib.contextmanager
    def _not_timed(self) -> Iterator[None]:
        start = time.perf_counter()
        self.containment.home.restore()
        with torch.inference_mode(False):  # which a method may yield within
            yield
        self.result.evaluation_s += time.perf_counter() - start


def _settled(alone: Sequence[tuple[float, float, float]]) -> bool:
    """Whether a FLOP took as long in the last quarter of the time as in the quarter before, to 3 %."""
    seconds = alone[-1][1]
    if seconds < ALONE_S:
        return False
    half, quarter = (next(point for point in alone if point[1] >= at * seconds) for at in (0.5, 0.75))
    rates = [(b[1] - a[1]) / max(b[0] - a[0], 1.0) for a, b in ((half, quarter), (quarter, alone[-1]))]
    return seconds >= MOST_ALONE_S or abs(rates[1] - rates[0]) < SETTLED * rates[0]


def _unasked(method: Method, source: DataSource, spec: RunSpec, seed: int) -> Task:
    """The task of a seed that is fitted only because its block is: nothing of it is scored."""
    other = msgspec.structs.replace(spec, seed=seed)
    return make_task(method, source, draw(source, seed, spec.n_train, spec.n_train, 0), other, NullLedger())


def _each(method: Method, tasks: Sequence[Task]) -> Generator[Sequence[Fitted], None, None]:
    """What has been learned in each task: a method that is asked for one seed need not know of blocks."""
    if len(tasks) > 1:
        yield from method.fit_together(tasks)
    else:
        with contextlib.closing(begun_when_resumed(method, tasks[0])) as fit:
            for fitted in fit:
                yield (fitted,)


def begun_when_resumed(method: Method, task: Task) -> Generator[Fitted, None, None]:
    """method.fit(task), called with the clock running: it need not be a generator, and may work before it yields."""
    yield from method.fit(task)


def _end(fit: Generator[Any, None, None], ledger: CountingLedger) -> None:
    """Close a fit while work is counted, as it always runs: torch's modes that it is within end as they began."""
    ledger.start()
    try:
        with contextlib.suppress(Exception, SystemExit):
            fit.close()
    finally:
        ledger.stop()


def cpu_seconds() -> float:
    """Processor time of this process with all its threads, and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
