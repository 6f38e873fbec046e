"""Fits, times and scores one run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import resource
import signal
import time
from collections.abc import Generator, Iterable, Iterator

import msgspec
import torch

from bench.common.errors import describe
from bench.common.text import plain
from bench.fit.answers import Answers, Query, check_bound, check_log_index
from bench.fit.flop_counter import CountingLedger
from bench.fit.memory import PeakMemory
from bench.metrics import BaseEvaluator, Evaluator, Measurement, TrueModel
from bench.metrics.nuts import Shared
from bench.metrics.validation import ValidationEvaluator
from bench.process.containment import Containment, contained, silenced
from bench.registry.registry import registry
from bench.store.records import Cost, Diagnostic, Row, RunResult, RunSpec
from datasets.base import DataSource, Observations, Problem, Split, draw, stream
from methods.contract.decoder import build_model
from methods.contract.method import Fitted, Ledger, Method, Task

CHECKPOINTS_PER_DECADE = 3
WARM_UP_POINTS = 32
WARM_UP_STEPS = 3
ELSEWHERE, ELSEWHERE_S = 0.05, 0.02
LOOKED_AT = 3


def run_one(spec: RunSpec, concurrent: bool = False, shared: str = "") -> RunResult:
    """Carry out a run. Whatever the method raises makes the result `failed`; what it prints is dropped.

    What the method changes in the process is undone, and named in the result's notes (`bench.process.containment`).

    Args:
        spec: The run.
        concurrent: Whether other runs are carried out at the same time.
        shared: A folder for what all runs of a dataset and seed are scored with; none if it is empty.

    Raises:
        KeyboardInterrupt: If this process listens to the keyboard.
    """
    torch.set_num_threads(1)
    result = RunResult(spec, concurrent=concurrent)
    with contained(spec.seed), silenced() as output:
        containment = Containment()
        try:
            _carry_out(result, containment, shared)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
                raise
            last = output.last_line()
            result.status = "failed"
            result.message = plain(f"{describe(error)} (last on standard error: {last})" if last else describe(error))
        found = (result.notes, containment.undone(), containment.left_behind())
        result.notes = plain("; ".join(filter(None, found)))
    return result


def _carry_out(result: RunResult, containment: Containment, shared: str) -> None:
    spec, known = result.spec, registry(result.spec.plugins)
    method = known.make_method(spec.method, dict(spec.parameters))
    result.parameters = {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}  # type: ignore[arg-type]
    source = known.make_problem(spec.dataset, spec.latent_dim)
    with containment.method():
        reason = reason_to_skip(source, method, spec)
    if reason:
        result.status, result.message = "skipped", plain(reason)
        return
    with containment.method():
        _warm_up(method, source, spec)
    containment.begin_anew()
    built_in = type(method).__module__.partition(".")[0] == "methods"
    with contextlib.closing(_Runner(result, method, source, containment, Shared(shared, built_in))) as runner:
        runner.run()


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
        if spec.observation_noise == "known":
            return f"{source.name} has no known noise variance: use --observation-noise learned"
    reason = method.skip(source.latent_dim, source.data_dim, spec.n_train)
    return None if reason is None else str(reason)


def _plain(value: object) -> bool | int | float | str | None:
    """A hyperparameter as it is stored: as text, unless it is a number."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _warm_up(method: Method, source: DataSource, spec: RunSpec) -> None:
    """A few counted steps on other data, so that imports and the first calls of kernels are not timed."""
    small = msgspec.structs.replace(spec, n_train=min(spec.n_train, WARM_UP_POINTS))
    split = draw(source, 0, small.n_train, small.n_train, 0)
    ledger = CountingLedger()
    with contextlib.suppress(Exception, SystemExit):
        fit = begun_when_resumed(method, make_task(method, source, split, small, ledger))
        ledger.start()
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
    weights = stream("initial weights", spec.seed, "decoder")
    train, validation = (x.float().to(spec.device) for x in (split.train, split.validation))
    model = build_model(train.cpu(), source.latent_dim, noise, weights, spec.hidden, spec.activation).to(spec.device)
    ledger.watch(decoder=model.network)
    truth = TrueModel(source) if method.sees_truth and isinstance(source, Problem) else None
    draws = torch.Generator(spec.device).manual_seed(stream("training", spec.seed, "draws").initial_seed())
    return Task(train, validation, model, draws, ledger, truth)


class _Runner:
    """Fits a method while the clock runs, and scores it at checkpoints while the clock is stopped.

    Checkpoints are spaced geometrically in FLOPs, which do not depend on the machine, on a grid that all runs share.
    The last state is always a checkpoint, and on validation data the only one.
    """

    def __init__(self, result: RunResult, method: Method, source: DataSource, containment: Containment, shared: Shared):
        spec = result.spec
        self.result, self.spec, self.source, self.containment = result, spec, source, containment
        on_test = spec.scored_on == "test"
        split = draw(source, spec.seed, spec.n_train, spec.n_train, spec.n_test if on_test else 0)
        self.evaluator: BaseEvaluator
        with self._not_timed():
            if on_test:
                self.evaluator = Evaluator(source, split, spec.seed, spec.device, shared)
            else:
                self.evaluator = ValidationEvaluator(source, split, spec.seed, spec.device)
        self.ledger = CountingLedger()
        self.memory = PeakMemory(spec.device)
        task = make_task(method, source, split, spec, self.ledger)
        self.train, self.asked = task.train.clone(), task.validation.clone()
        self.fit = begun_when_resumed(method, task)
        self.fitted: Fitted | None = None
        self.evaluated_at = -1.0
        self.changed = False
        self.elsewhere_s = 0.0
        self.next_checkpoint = -math.inf if on_test else math.inf

    def run(self) -> None:
        """Fit to the end or to the budget; raises what the method raises, with the cost up to there recorded."""
        try:
            while (fitted := self._stretch()) is not None:
                self._checkpoint(fitted)
        finally:
            self._account()
        if self.fitted is None:
            raise RuntimeError("fit ended without yielding a fitted model")
        if self.changed or self.evaluated_at < self.result.cost.flops:
            self._checkpoint(self.fitted)
        self._finish(self.fitted)

    def _finish(self, fitted: Fitted) -> None:
        """Score what is measured only once, and record what is looked at."""
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

    def close(self) -> None:
        """End the fit where it stands, so that it can put away what it holds; what it raises is too late to count."""
        with self.containment.method():
            _end(self.fit, self.ledger)

    def _stretch(self) -> Fitted | None:
        """Fit up to the next checkpoint: what is to be evaluated there; None at the end and at the budget."""
        self.memory.begin()
        try:
            with self.containment.method():
                while self._advance():
                    if self._budget_reached():
                        return None
                    if self.result.cost.flops >= self.next_checkpoint:
                        return self.fitted
            return None
        finally:
            self.memory.end()

    def _advance(self) -> bool:
        """One resumption of the method, on the clock; whether it yielded."""
        cost, overhead = self.result.cost, self.ledger.overhead_s
        self._synchronise()
        self.ledger.start()
        wall, cpu, here = time.perf_counter(), cpu_seconds(), time.thread_time()
        try:
            fitted = next(self.fit, None)
            self._synchronise()
        finally:
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            self.elsewhere_s += cpu - (time.thread_time() - here)
            self.ledger.stop()
            ledger = self.ledger
            counting = ledger.overhead_s - overhead
            self.result.cost = Cost(
                cost.wall_s + max(wall - counting, 0.0),
                cost.cpu_s + max(cpu - counting, 0.0),
                ledger.flops,
                ledger.decoder_passes,
                ledger.encoder_passes,
            )
        if fitted is not None:
            self.fitted, self.changed = fitted, True
        return fitted is not None

    def _synchronise(self) -> None:
        if self.spec.device != "cpu":
            torch.cuda.synchronize()

    def _budget_reached(self) -> bool:
        """Whether the budget is spent; the step that spent the last of it may have spent more, which is recorded."""
        result, spec = self.result, self.spec
        if spec.max_flops is not None and result.cost.flops >= spec.max_flops:
            result.message = f"stopped by --max-flops at {result.cost.flops:.3g} FLOPs"
            result.overrun_flops = result.cost.flops - spec.max_flops
        elif spec.max_seconds is not None and result.cost.wall_s >= spec.max_seconds:
            result.message = f"stopped by --max-seconds after {result.cost.wall_s:.3g} s"
            result.overrun_s = result.cost.wall_s - spec.max_seconds
        return bool(result.message)

    def _uncounted(self) -> str:
        """The operators whose cost is not known, in words."""
        unknown = ", ".join(sorted(self.ledger.unlisted))
        return f"FLOPs not known of: {unknown}" if unknown else ""

    def _elsewhere(self) -> str:
        """What other threads and processes did, in words, if it is more than a twentieth of the fit."""
        seconds, cpu = self.elsewhere_s, self.result.cost.cpu_s
        if seconds <= max(ELSEWHERE_S, ELSEWHERE * cpu):
            return ""
        return f"FLOPs not counted: other threads or processes used {seconds:.2g} of {cpu:.2g} CPU seconds"

    def _account(self) -> None:
        """Where the FLOPs and the memory went."""
        self.result.formula_flops = self.ledger.formula_flops
        self.result.notes = "; ".join(filter(None, (self._uncounted(), self._elsewhere())))
        self.result.work = self.ledger.account()
        self.result.peak_memory_mb = self.memory.peak / 1e6

    def _checkpoint(self, fitted: Fitted) -> None:
        checkpoint = self.result.rows[-1].checkpoint + 1 if self.result.rows else 0
        with self._not_timed(), self._asked(fitted):
            found = self.evaluator.evaluate_checkpoint(fitted)
        if self.evaluator.exact:
            check_bound(found)
        self._record(found, checkpoint)
        flops = self.result.cost.flops
        self.evaluated_at, self.changed = flops, False
        step = math.floor(CHECKPOINTS_PER_DECADE * math.log10(max(flops, 1.0))) + 1
        self.next_checkpoint = 10 ** (step / CHECKPOINTS_PER_DECADE)

    def _record(self, measurements: Iterable[Measurement], checkpoint: int | None = None) -> None:
        """Note measurements at a checkpoint, by default the last one."""
        result, cost = self.result, self.result.cost
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


def begun_when_resumed(method: Method, task: Task) -> Generator[Fitted, None, None]:
    """method.fit(task), called with the clock running: it need not be a generator, and may work before it yields."""
    yield from method.fit(task)


def _end(fit: Generator[Fitted, None, None], ledger: CountingLedger) -> None:
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
