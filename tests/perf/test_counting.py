"""What counting adds to the time of a fit: what each call of the ledger takes, times how many a step makes.

Two times of a fit that differ by a percent cannot be told apart on a busy machine. The calls are counted exactly, and
what they take is a hundredth of what they may take, so that noise does not matter.
"""

import time
from collections import Counter
from functools import partial

import pytest
from torch import nn, optim, zeros

from bench.fit.flop_counter import CountingLedger
from bench.fit.task import make_task
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import draw
from methods.contract.method import NullLedger

LIMIT = 0.02
STEPS = 70
FIRST = 30  # in the steps before, work is met that is not known yet: the first look of mapa at step 25
REPEATS, CALLS = 100, 50
COUNT_S = 2e-3


class Uncounted(NullLedger):
    """Counts nothing and takes no time to do so."""

    def __init__(self):
        self.calls = Counter()

    def start(self):
        pass

    def stop(self):
        pass


class Recording(CountingLedger):
    """Notes how often it is called."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def run(self, name, work, *args):
        self.calls["run"] += 1
        return super().run(name, work, *args)

    def charge(self, name, flops):
        self.calls["charge"] += 1
        super().charge(name, flops)

    def _pass(self, *args, **kwargs):
        self.calls["pass"] += 1
        return super()._pass(*args, **kwargs)

    def _count(self, *args):
        self.calls["operator"] += 1
        super()._count(*args)


def steps(name, ledger):
    """Seconds of each step of a fit once all work is known, and how often these steps call the ledger."""
    method, problem = registry().make_method(name), registry().make_problem("circle", None)
    spec = RunSpec(dataset="circle", method=name, seed=0, n_train=500, n_test=1)
    fit = method.fit(make_task(method, problem, draw(problem, 0, 500, 500, 1), spec, ledger))
    seconds = []
    for step in range(STEPS):
        if step == FIRST:
            ledger.calls.clear()
        ledger.start()
        start = time.perf_counter()
        next(fit)
        seconds.append(time.perf_counter() - start)
        ledger.stop()
    return seconds[FIRST:], ledger.calls


def on_the_clock(ledger, work, calls=CALLS, repeats=REPEATS):
    """Seconds of a call as a run reads them, less what the ledger says that counting took; the fastest of many."""
    found = []
    for _ in range(repeats):
        ledger.start()
        start, before = time.perf_counter(), ledger.overhead_s
        for _ in range(calls):
            work()
        found.append(time.perf_counter() - start - (ledger.overhead_s - before))
        ledger.stop()
    return min(found) / calls


@pytest.fixture(scope="module")
def added():
    """Seconds on the clock that a call adds to what is called, by the name of the call."""
    ledger, x, network, watched = CountingLedger(), zeros(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)
    optimisers = [optim.Adam(each.parameters(), fused=True) for each in (network, watched)]
    ledger.watch(encoder=watched)

    def nothing(*args):
        pass

    def known(module):
        """A forward within known work, where no operator is counted."""
        return on_the_clock(ledger, partial(ledger.run, "forward", module, x))

    return {
        "run": on_the_clock(ledger, partial(ledger.run, "nothing", nothing, x, *optimisers)),
        "pass": max(0.0, known(watched) - known(network)),
        "charge": on_the_clock(ledger, partial(ledger.charge, "nothing", 1.0)),
    }


@pytest.mark.parametrize("name", ["vae", "iwae", "iterative", "mapa"])
def test_counting_adds_next_to_nothing_to_a_fit(name, added):
    """Against its fastest step uncounted. No operator is counted by itself any more, which would take far longer."""
    _, calls = steps(name, Recording())
    assert calls["operator"] == 0
    assert min(calls["run"], calls["pass"]) >= STEPS - FIRST
    counting = sum(number * added[call] for call, number in calls.items()) / (STEPS - FIRST)
    seconds, _ = steps(name, Uncounted())
    assert counting <= LIMIT * min(seconds)


def test_what_counting_an_operator_takes_is_deducted(monkeypatch):
    """Of one that is counted by itself, and takes 2 ms to count, which are all on the clock or off it."""
    ledger, x = CountingLedger(), zeros(1)

    def count(*_):
        end = time.perf_counter() + COUNT_S
        while time.perf_counter() < end:
            pass

    monkeypatch.setattr(ledger, "_count", count)
    assert 0 < on_the_clock(ledger, x.neg, calls=1, repeats=20) < COUNT_S / 2
