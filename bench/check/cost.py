"""Checks of costs: a budget can stop the method, and all its work is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from msgspec import structs
from torch import nn

from bench.check.errors import FailedError
from bench.check.method_under_test import MethodUnderTest
from bench.check.probes import Calls, Passes
from bench.check.short_fit import ShortFit
from bench.fit.block import cpu_seconds
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import run_one
from methods.contract.method import Fitted

LARGEST_STEP = 0.5
NUMERIC_PACKAGES = ("numpy", "scipy", "sklearn")
HIDDEN_S = 0.01


def budget(under_test: MethodUnderTest) -> str:
    """A run with a budget of FLOPs stops at the next yield, and no step takes most of a fit.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If the run stops elsewhere, or a step takes more than half of the FLOPs of a long fit.
    """
    fit = under_test.fit(under_test.default_dataset)
    fit.run(under_test.as_short)
    most = fit.flops[-1] / 2
    result = run_one(
        structs.replace(under_test.spec(under_test.default_dataset), max_flops=most, scored_on="validation")
    )
    if result.status != "done":
        raise FailedError(f"a run with a budget of {most:.3g} FLOPs {result.status}: {result.message}")
    spent, expected = result.cost.flops, min(flops for flops in fit.flops if flops >= most)
    if spent != expected:
        raise FailedError(
            f"a run with a budget of {most:.3g} FLOPs spent {spent:.6g}; expected {expected:.6g}, up to the next yield"
        )
    flops = under_test.long.flops
    largest = max(after - before for before, after in pairwise([0.0, *flops]))
    share = largest / flops[-1] if flops[-1] else 0.0
    if not share <= LARGEST_STEP:
        raise FailedError(
            f"one of {len(flops)} steps takes {share:.0%} of the FLOPs of a fit; expected {LARGEST_STEP:.0%} at most"
        )
    return (
        f"a budget of {most:.2e} FLOPs is exceeded by {spent - most:.2e}, within one step; "
        f"the largest of {len(flops)} steps takes {share:.1%} of a fit"
    )


@dataclass
class _Recount:
    """A second count of each step: every operator by itself, rows by hooks, and calls of other packages."""

    ledger: CountingLedger = field(default_factory=CountingLedger)
    passes: Passes = field(default_factory=Passes)
    calls: Calls = field(default_factory=lambda: Calls(*NUMERIC_PACKAGES))

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.ledger.start()
        try:
            with self.passes, self.calls:
                yield
        finally:
            self.ledger.stop()


def cost(under_test: MethodUnderTest) -> str:
    """The ledger holds all work of a fit: operators, passes, and work outside torch; no other thread works.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If a second count finds more work than the ledger, or other FLOPs of torch.
    """
    recount, fit = _Recount(), under_test.fit(under_test.default_dataset)
    limit, start = under_test.as_short, _seconds_elsewhere()
    fitted = fit.run(limit, around_step=recount)
    elsewhere = _seconds_elsewhere() - start
    seen = [
        _operators(fit.ledger, recount.ledger),
        _passes(fit, fitted, recount.passes),
        _outside(fit.ledger, recount.calls),
    ]
    if not elsewhere < HIDDEN_S:
        raise FailedError(f"other threads or processes used {elsewhere:.3f} s of CPU; expected less than {HIDDEN_S} s")
    return "; ".join(seen)


def _seconds_elsewhere() -> float:
    """CPU seconds of this process and its children, without those of this thread."""
    return cpu_seconds() - time.thread_time()


def _operators(ledger: CountingLedger, recount: CountingLedger) -> str:
    if unknown := sorted(ledger.unlisted | recount.unlisted):
        raise FailedError(f"the FLOPs of {', '.join(unknown)} are not known; expected operators of the cost model")
    counted = ledger.flops - ledger.formula_flops
    if counted != recount.flops:
        raise FailedError(
            f"the ledger has {counted:.6g} FLOPs of torch; expected {recount.flops:.6g}, the sum over all operators"
        )
    return f"{counted:.3g} FLOPs of torch, equal to the sum over all operators"


def _passes(fit: ShortFit, fitted: Fitted, passes: Passes) -> str:
    """Compare the passes in the ledger with those that hooks see.

    Copies of a decoder add up. The networks of a posterior are parts of one encoder, which a point passes once.
    """
    decoders = _networks(fit.task.model, fitted.model)
    encoders = _networks(fitted.posterior) - decoders
    found = {"decoder": fit.ledger.decoder_passes, "encoder": fit.ledger.encoder_passes}
    through = passes.through(decoders).total(), max(passes.through(encoders).values(), default=0)
    expected = dict(zip(found, through, strict=True))
    if short := [name for name in found if found[name] < expected[name]]:
        of = "; ".join(f"{found[name]} {name} passes; expected {expected[name]}" for name in short)
        raise FailedError(f"the ledger has {of}, as hooks count them; call ledger.watch for each network")
    return f"{found['decoder']} decoder and {found['encoder']} encoder passes, at least as many as hooks count"


def _networks(*holders: object) -> set[nn.Module]:
    """The modules with parameters of the holders, or of the attributes of those that are no modules."""
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
        called = f"{sum(calls.into.values())} calls such as {next(iter(calls.into))}" if calls.into else "no call"
        raise FailedError(
            f"work outside torch without ledger.charge: {calls.left} numbers left torch, {called}; expected a charge"
        )
    return "no work outside torch"
