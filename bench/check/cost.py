"""Duties on what a method spends: it can be stopped, and all its work is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import nn

from bench.check.errors import FailedError
from bench.check.method_under_test import Subject
from bench.check.probes import Calls, Passes
from bench.check.short_fit import Trial
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import cpu_seconds, run_one
from methods.contract.method import Fitted

MOST_SHARE = 0.5
ELSEWHERE = ("numpy", "scipy", "sklearn")
HIDDEN_S = 0.01


def budget(subject: Subject) -> str:
    """A run stopped by a budget of FLOPs spends no more than the step in flight, and no step is most of a fit."""
    trial = subject.trial(subject.home)
    trial.drive(subject.as_plain)
    most = trial.flops[-1] / 2
    spent, expected = _stopped(subject, most), min(flops for flops in trial.flops if flops >= most)
    if spent != expected:
        raise FailedError(f"a budget of {most:.3g} FLOPs ended at {spent:.6g}; expected {expected:.6g}, the next yield")
    share, yields = _largest_step(subject.long.flops), len(subject.long.flops)
    if not share <= MOST_SHARE:
        raise FailedError(
            f"one of {yields} steps takes {share:.0%} of the FLOPs of a fit; expected {MOST_SHARE:.0%} at most"
        )
    return (
        f"a budget of {most:.2e} FLOPs is overrun by {spent - most:.2e}, the step in flight; "
        f"the largest of {yields} steps takes {share:.1%} of a fit"
    )


def _stopped(subject: Subject, most: float) -> float:
    """What a run spends under a budget, in FLOPs."""
    result = run_one(replace(subject.spec(subject.home), max_flops=most, scored_on="validation"))
    if result.status != "done":
        raise FailedError(f"a run with a budget of {most:.3g} FLOPs {result.status}: {result.message}")
    return result.cost.flops


def _largest_step(flops: list[float]) -> float:
    """The largest share of the FLOPs of a fit that one step takes."""
    steps = (after - before for before, after in pairwise([0.0, *flops]))
    return max(steps) / flops[-1] if flops[-1] else 0.0


@dataclass
class _Recount:
    """What a step spends, counted anew: every operator one by one, rows by hooks, and what torch does not see."""

    ledger: CountingLedger = field(default_factory=CountingLedger)
    passes: Passes = field(default_factory=Passes)
    calls: Calls = field(default_factory=lambda: Calls(*ELSEWHERE))

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.ledger.start()
        try:
            with self.passes, self.calls:
                yield
        finally:
            self.ledger.stop()


def cost(subject: Subject) -> str:
    """All work of a fit is in the ledger: operators, passes, what is done outside torch, and in other threads."""
    recount, trial = _Recount(), subject.trial(subject.home)
    limit, start = subject.as_plain, _seconds_elsewhere()
    fitted = trial.drive(limit, within=recount)
    elsewhere = _seconds_elsewhere() - start
    seen = [
        _operators(trial.ledger, recount.ledger),
        _passes(trial, fitted, recount.passes),
        _outside(trial.ledger, recount.calls),
    ]
    if not elsewhere < HIDDEN_S:
        raise FailedError(f"{elsewhere:.3f} s of CPU in other threads or processes; expected less than {HIDDEN_S} s")
    return "; ".join(seen)


def _seconds_elsewhere() -> float:
    """CPU seconds of this process and its children, but for those of this thread."""
    return cpu_seconds() - time.thread_time()


def _operators(ledger: CountingLedger, recount: CountingLedger) -> str:
    counted = ledger.flops - ledger.formula_flops
    if counted != recount.flops:
        raise FailedError(f"the ledger has {counted:.6g} FLOPs of torch; expected {recount.flops:.6g}, one by one")
    return f"{counted:.3g} FLOPs of torch, as one by one"


def _passes(trial: Trial, fitted: Fitted, passes: Passes) -> str:
    """Copies of a decoder add up; the networks of a posterior are parts of one encoder, which a datum passes once."""
    decoders = _networks(trial.task.model, fitted.model)
    encoders = _networks(fitted.posterior) - decoders
    found = {"decoder": trial.ledger.decoder_passes, "encoder": trial.ledger.encoder_passes}
    through = passes.through(decoders).total(), max(passes.through(encoders).values(), default=0)
    expected = dict(zip(found, through, strict=True))
    if short := [name for name in found if found[name] < expected[name]]:
        of = "; ".join(f"{found[name]} {name} passes; expected {expected[name]}" for name in short)
        raise FailedError(f"the ledger has {of}, as hooks saw; ledger.watch tells it of a network")
    return f"{found['decoder']} decoder and {found['encoder']} encoder passes, no fewer than hooks saw"


def _networks(*holders: object) -> set[nn.Module]:
    """The modules with parameters of some modules, or of the attributes of other objects."""
    modules = {
        module
        for holder in holders
        for each in ([holder] if isinstance(holder, nn.Module) else getattr(holder, "__dict__", {}).values())
        if isinstance(each, nn.Module)
        for module in each.modules()
    }
    return {module for module in modules if any(True for _ in module.parameters())}


def _outside(ledger: CountingLedger, calls: Calls) -> str:
    if ledger.formula_flops:
        return f"{ledger.formula_flops:.3g} FLOPs by formula"
    if calls.into or calls.left:
        called = f"{sum(calls.into.values())} calls such as {next(iter(calls.into))}" if calls.into else "no call seen"
        raise FailedError(
            f"work outside torch without ledger.charge: {calls.left} numbers left torch, {called}; expected a charge"
        )
    return "no work outside torch"
