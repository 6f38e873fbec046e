"""Fits, times and scores one run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec
import torch

from bench.common.errors import UsageError
from bench.common.text import plain
from bench.fit.block import Block, Replica, end, fits_of, note_failure, of_keyboard
from bench.fit.flop_counter import CountingLedger
from bench.fit.task import hyperparameters, make_task, reason_to_skip
from bench.metrics.shared import Shared
from bench.process.containment import Containment, contained, silenced
from bench.registry.fingerprints import data_digest
from bench.registry.registry import registry
from bench.store.records import RunResult, RunSpec
from datasets.base import DataSource, draw
from methods.contract.method import Method

WARM_UP_POINTS = 32
WARM_UP_STEPS = 3


def run_one(spec: RunSpec) -> RunResult:
    """Carry out a run alone, as `run_block` does."""
    return run_block([spec])[0]


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


def _carry_out(results: Sequence[RunResult], act: Callable[[Block], None], shared: str) -> None:
    """Prepare the fit of runs of one block, and act on it, contained."""
    torch.set_num_threads(1)
    with contained(results[0].spec.seed), silenced() as output:
        containment = Containment()
        try:
            _prepare(results, containment, shared, output.last_line, act)
        except BaseException as error:
            if of_keyboard(error):
                raise
            for result in results:
                note_failure(result, error, output.last_line())
        found = (containment.undone(), containment.left_behind())
        for result in results:
            result.notes = plain("; ".join(filter(None, (result.notes, *found))))


def _prepare(
    results: Sequence[RunResult],
    containment: Containment,
    shared: str,
    last_line: Callable[[], str],
    act: Callable[[Block], None],
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
    replicas = [Replica(result, source, containment, Shared(shared, built_in), last_line) for result in results]
    with contextlib.closing(Block(replicas, method, source, containment)) as block:
        act(block)


def _warm_up(method: Method, source: DataSource, spec: RunSpec) -> None:
    """A few counted steps on other data, so that imports and the first calls of kernels are not timed.

    They are those of one seed, or of two as one program if the run is one of a block.
    """
    small = msgspec.structs.replace(spec, n_train=min(spec.n_train, WARM_UP_POINTS))
    split = draw(source, 0, small.n_train, small.n_train, 0)
    ledger = CountingLedger()
    with contextlib.suppress(Exception, SystemExit):
        fit = fits_of(method, [make_task(method, source, split, small, ledger) for _ in range(min(spec.block, 2))])
        ledger.start(every=spec.block == 1)
        try:
            for _ in zip(range(WARM_UP_STEPS), fit):  # noqa: B905 - stops at the shorter one
                pass
        finally:
            ledger.stop()
            end(fit, ledger)
