"""Fits, times and scores one run of a study."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import resource
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from bench.store.records import Cost, Diagnostic, Row, RunResult, RunSpec

if TYPE_CHECKING:
    from bench.process.containment import Containment

CHECKPOINTS_PER_DECADE = 3
GRID_POINTS = 80
WARM_UP_DATA = 32
WARM_UP_STEPS = 3


def run_one(spec: RunSpec, concurrent: bool = False) -> RunResult:
    """Run a run. What the method raises, or its exit, makes the result `failed`; what it prints is dropped.

    Whatever else it does to the process is contained, or named in the message (`bench.process.containment`).
    """
    import torch

    from bench.process.containment import Containment, contained, silenced
    from bench.registry.registry import describe

    torch.set_num_threads(1)
    result = RunResult(spec, concurrent=concurrent)
    with contained(spec.seed), silenced() as said:
        containment = Containment()
        try:
            _run(result, containment)
        except (Exception, SystemExit) as error:
            last = said.last_line()
            result.status = "failed"
            result.message = f"{describe(error)} (last on standard error: {last})" if last else describe(error)
        result.message = "; ".join(filter(None, [result.message, *containment.notes()]))
    return result


def _run(result: RunResult, containment: Containment) -> None:
    from bench.registry.registry import registry as registered

    spec, registry = result.spec, registered(result.spec.plugins)
    method = registry.make_method(spec.method, dict(spec.parameters))
    result.parameters = {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}
    problem = registry.make_problem(spec.dataset, spec.latent_dim)
    reason = lacks_truth(problem, method, spec)
    with containment.method():
        reason = reason or method.skip(problem.latent_dim, problem.data_dim, spec.size)
    if reason:
        result.status, result.message = "skipped", str(reason)
        return
    with containment.method():
        _warm_up(method, problem, spec)
    containment.begin_anew()
    with contextlib.closing(_Driver(result, method, problem, containment)) as driver:
        driver.drive()


def lacks_truth(source: Any, method: Any, spec: RunSpec) -> str | None:
    """Why a run on observations, whose true model is not known, cannot be run; None where it can."""
    from datasets.base import Observations

    if not isinstance(source, Observations):
        return None
    if method.sees_truth:
        return f"{source.name} has no true model for {spec.method} to be handed"
    return f"{source.name} has no true noise: use --noise learned" if spec.noise == "known" else None


def _plain(value: Any) -> bool | int | float | str | None:
    """A hyperparameter as it is stored: as text, if it is neither number nor text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _warm_up(method: Any, problem: Any, spec: RunSpec) -> None:
    """A few counted steps on other, fewer data, so that imports and first calls of kernels are off the clock."""
    from datasets.base import draw

    small = dataclasses.replace(spec, size=min(spec.size, WARM_UP_DATA))
    split = draw(problem, 0, small.size, small.size, 0)
    ledger = _ledger()
    with contextlib.suppress(Exception, SystemExit):
        fit = begun_when_resumed(method, make_task(method, problem, split, small, ledger))
        ledger.start()
        try:
            for _ in zip(range(WARM_UP_STEPS), fit):  # noqa: B905 - stops at the shorter one
                pass
        finally:
            ledger.stop()
            _end(fit, ledger)


def _ledger() -> Any:
    from bench.fit.flop_counter import CountingLedger

    return CountingLedger()


def make_task(method: Any, problem: Any, split: Any, spec: RunSpec, ledger: Any) -> Any:
    """What the method is given: the same data, initial weights and random stream for every method at a seed."""
    import torch

    from bench.metrics import TrueModel
    from bench.registry.registry import dataset_parameters
    from datasets.base import stream
    from methods.contract.decoder import build_model
    from methods.contract.method import Task

    noise = problem.noise if spec.noise == "known" else None
    weights = stream("initial weights", spec.seed, "decoder")
    train, validation = (x.float().to(spec.device) for x in (split.train, split.validation))
    activation = dataset_parameters(spec.dataset)[1].get("activation", "tanh")
    model = build_model(train.cpu(), problem.latent_dim, noise, weights, activation=activation).to(spec.device)
    ledger.watch(decoder=model.network)
    truth = TrueModel(problem) if method.sees_truth else None
    draws = torch.Generator(spec.device).manual_seed(stream("training", spec.seed, "draws").initial_seed())
    return Task(train, validation, model, draws, ledger, truth)


def _drawn(problem: Any, spec: RunSpec) -> Any:
    """The data of a run; without its test set, where it is scored on validation data."""
    from datasets.base import draw

    test = spec.test_size if spec.scored_on == "test" else 0
    return draw(problem, spec.seed, spec.size, spec.validation_size, test)


def _evaluator(problem: Any, split: Any, spec: RunSpec) -> Any:
    if spec.scored_on == "validation":
        from bench.metrics.validation import ValidationEvaluator

        return ValidationEvaluator(problem, split, spec.seed, spec.device)
    from bench.metrics import Evaluator

    return Evaluator(problem, split, spec.seed, spec.device)


class _Driver:
    """Runs a method between the clock's start and stop, and scores it at checkpoints off the clock.

    Checkpoints are spaced geometrically in FLOPs, which do not depend on the machine, on a grid that all runs
    share; the last state is always one, and the only one on validation data.
    """

    def __init__(self, result: RunResult, method: Any, problem: Any, containment: Containment):
        from bench.fit.memory import PeakMemory

        spec = result.spec
        self.result, self.spec, self.problem, self.containment = result, spec, problem, containment
        split = _drawn(problem, spec)
        with self._off_the_clock():
            self.evaluator = _evaluator(problem, split, spec)
        held_out = split.test if spec.scored_on == "test" else split.validation
        self.corners = held_out.amin(0), held_out.amax(0)
        self.ledger = _ledger()
        self.memory = PeakMemory(spec.device)
        self.fit = begun_when_resumed(method, make_task(method, problem, split, spec, self.ledger))
        self.fitted: Any = None
        self.looked_at = -1.0
        self.unseen = False
        self.next_look = -math.inf if spec.scored_on == "test" else math.inf

    def drive(self) -> None:
        """Fit to the end or to the budget; raises what the method raises, with the cost up to there recorded."""
        try:
            while self._stretch():
                self._look()
        finally:
            self._account()
        if self.fitted is None:
            raise RuntimeError("fit ended without yielding a fitted model")
        if self.unseen or self.looked_at < self.result.cost.flops:
            self._look()
        if self.spec.scored_on == "validation":
            return
        with self._off_the_clock():
            self._record(self.evaluator.evaluate_final(self.fitted))
            if self.evaluator.reference is not None:
                self.result.references = self.evaluator.reference.rows()
            if self.spec.density and self.problem.data_dim == 2:
                self._densities()
            if self.spec.density and self.problem.latent_dim == 1:
                self.result.posteriors = self.evaluator.index_posteriors(self.spec.method, self.fitted)
            if self.spec.density:
                self.result.signals = self.evaluator.signal_posteriors(self.spec.method, self.fitted)

    def close(self) -> None:
        """End the fit where it stands, so that it can put away what it holds; what it raises is too late to count."""
        with self.containment.method():
            _end(self.fit, self.ledger)

    def _stretch(self) -> bool:
        """Fit up to the next checkpoint; whether there is one, rather than the end or the budget."""
        self.memory.begin()
        try:
            with self.containment.method():
                while self._advance():
                    if self._budget_reached():
                        return False
                    if self.result.cost.flops >= self.next_look:
                        return True
            return False
        finally:
            self.memory.end()

    def _advance(self) -> bool:
        """One resumption of the method, on the clock; whether it yielded."""
        cost, overhead = self.result.cost, self.ledger.overhead_s
        self._synchronise()
        self.ledger.start()
        wall, cpu = time.perf_counter(), cpu_seconds()
        try:
            fitted = next(self.fit, None)
            self._synchronise()
        finally:
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
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
            self.fitted, self.unseen = fitted, True
        return fitted is not None

    def _synchronise(self) -> None:
        if self.spec.device != "cpu":
            import torch

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

    def _account(self) -> None:
        """Where the FLOPs and the memory went."""
        self.result.formula_flops = self.ledger.formula_flops
        self.result.work = self.ledger.account()
        self.result.peak_memory_mb = self.memory.peak / 1e6

    def _look(self) -> None:
        checkpoint = self.result.rows[-1].checkpoint + 1 if self.result.rows else 0
        with self._off_the_clock():
            self._record(self.evaluator.evaluate_checkpoint(self.fitted), checkpoint)
        flops = self.result.cost.flops
        self.looked_at, self.unseen = flops, False
        step = math.floor(CHECKPOINTS_PER_DECADE * math.log10(max(flops, 1.0))) + 1
        self.next_look = 10 ** (step / CHECKPOINTS_PER_DECADE)

    def _record(self, measurements: list[Any], checkpoint: int | None = None) -> None:
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
    def _off_the_clock(self) -> Iterator[None]:
        import torch

        start = time.perf_counter()
        self.containment.home.restore()
        with torch.inference_mode(False):  # which a method may yield within
            yield
        self.result.evaluation_s += time.perf_counter() - start

    def _densities(self) -> None:
        from bench.metrics import TrueModel, density_grid
        from datasets.base import Problem

        models = [("truth", TrueModel(self.problem))] if isinstance(self.problem, Problem) else []
        low, high = self.corners
        margin = 0.05 * (high - low)
        for name, model in (*models, (self.spec.method, self.fitted.model)):
            rows = density_grid(model, self.problem.latent_dim, low - margin, high + margin, GRID_POINTS)
            self.result.densities += [(name, x1, x2, value) for x1, x2, value in rows]


def begun_when_resumed(method: Any, task: Any) -> Generator[Any, None, None]:
    """method.fit(task), called with the clock running: it need not be a generator, and may work before it yields."""
    yield from method.fit(task)


def _end(fit: Generator[Any, None, None], ledger: Any) -> None:
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
