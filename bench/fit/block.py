"""The fit of one run, or of a block of runs as one program: its cost, and what is measured of it at checkpoints."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import torch

from bench.common.errors import describe
from bench.common.text import plain
from bench.fit.answers import Answers, Query, check_bound, check_log_index
from bench.fit.flop_counter import CountingLedger
from bench.fit.memory import PeakMemory
from bench.fit.task import make_task
from bench.metrics import DRAWS, LAST_DRAWS, BaseEvaluator, Evaluator, Measurement
from bench.metrics.shared import Shared
from bench.metrics.validation import ValidationEvaluator
from bench.process.containment import Containment
from bench.store.records import Cost, Diagnostic, Row, RunResult, RunSpec
from datasets.base import DataSource, draw
from methods.contract.method import Fitted, Method, NullLedger, Task

CHECKPOINTS_PER_DECADE = 3
ELSEWHERE, ELSEWHERE_S = 0.05, 0.02
LOOKED_AT = 3
ALONE_S, MOST_ALONE_S, ALONE_STEP_S, SETTLED = 1.0, 8.0, 0.02, 0.03


class Block:
    """Fits a method to one seed, or to all seeds of a block, while the clock runs.

    Args:
        replicas: The runs that are asked for.
        method: The method.
        source: What the data come from.
        containment: What is put back when the method has run.
    """

    def __init__(self, replicas: Sequence[Replica], method: Method, source: DataSource, containment: Containment):
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
        self.fit = fits_of(method, tasks)
        self.steps_alike = method.stacks
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
            if of_keyboard(error):
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
                    if _settled(alone, self.steps_alike):
                        return
            cost = replica.cost
            replica.result.alone.append((cost.flops, cost.wall_s, cost.cpu_s))

    def close(self) -> None:
        """End the fit where it stands, so that it can put away what it holds; what it raises is too late to count."""
        with self.containment.method():
            end(self.fit, self.replicas[0].ledger)

    def _stretch(self) -> list[Replica]:
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


class Replica:
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
            if of_keyboard(error):
                raise
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the run without a score."""
        self.ended = True
        note_failure(self.result, error, self.last_line())

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


def of_keyboard(error: BaseException) -> bool:
    """Whether the user has ended the process, which listens to the keyboard."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def note_failure(result: RunResult, error: BaseException, last: str = "") -> None:
    """Make a result `failed`, with what was raised and the last line of output."""
    result.status = "failed"
    result.message = plain(f"{describe(error)} (last on standard error: {last})" if last else describe(error))


def _settled(alone: Sequence[tuple[float, float, float]], steps_alike: bool) -> bool:
    """Whether the rest of a fit can be told: a FLOP took as long in the last quarter of the time as before it, to 3 %.

    Only steps of one kind tell it, as those of methods that can be stacked. Others may have phases still to come.
    """
    seconds = alone[-1][1]
    if seconds >= MOST_ALONE_S:
        return True
    if seconds < ALONE_S or not steps_alike:
        return False
    half, quarter = (next(point for point in alone if point[1] >= at * seconds) for at in (0.5, 0.75))
    rates = [(b[1] - a[1]) / max(b[0] - a[0], 1.0) for a, b in ((half, quarter), (quarter, alone[-1]))]
    return abs(rates[1] - rates[0]) < SETTLED * rates[0]


def _unasked(method: Method, source: DataSource, spec: RunSpec, seed: int) -> Task:
    """The task of a seed that is fitted only because its block is: nothing of it is scored."""
    other = msgspec.structs.replace(spec, seed=seed)
    return make_task(method, source, draw(source, seed, spec.n_train, spec.n_train, 0), other, NullLedger())


def fits_of(method: Method, tasks: Sequence[Task]) -> Generator[Sequence[Fitted], None, None]:
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


def end(fit: Generator[Any, None, None], ledger: CountingLedger) -> None:
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
