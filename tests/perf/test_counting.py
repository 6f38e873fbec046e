"""What counting adds to the time of a fit, as a ratio within one run."""

import time

import numpy as np
import pytest

from bench.fit import runner
from bench.fit.flop_counter import CountingLedger
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import draw
from methods.contract.method import NullLedger

LIMIT = 1.02
PATIENCE_S = 17.0
LEAST_ROUNDS = 6
FIRST = 3


class Uncounted(NullLedger):
    """Counts nothing and takes no time to do so."""

    overhead_s = 0.0

    def start(self):
        pass

    def stop(self):
        pass


def step_times(method, ledger, spec, steps):
    """Seconds of each step on the clock, as a run reads it: less what the ledger says that counting took."""
    problem = registry().make_problem(spec.dataset, None)
    split = draw(problem, spec.seed, spec.n_train, spec.n_train, 1)
    fit = method.fit(runner.make_task(method, problem, split, spec, ledger))
    seconds = np.empty(steps)
    for step in range(steps):
        ledger.start()
        start, before = time.perf_counter(), ledger.overhead_s
        next(fit)
        seconds[step] = time.perf_counter() - start - (ledger.overhead_s - before)
        ledger.stop()
    return seconds


@pytest.mark.parametrize(("name", "steps"), [("vae", 43), ("iwae", 43), ("iterative", 63), ("mapa", 75)])
def test_counting_adds_next_to_nothing_to_a_fit(name, steps):
    """Each step is deterministic, so that its fastest of many rounds is its time without what else the machine does.

    Compared is the median over steps of these times, which a few steps that were never undisturbed do not move. Rounds
    go on until it is known well enough, or patience ends: more of them lower both times towards the truth, and let no
    slow ledger pass. The first steps are left out, in which work is met that is not known yet.
    """
    method = registry().make_method(name)
    spec = RunSpec(dataset="circle", method=name, seed=0, n_train=500, n_test=1)
    fastest = {CountingLedger: np.full(steps, np.inf), Uncounted: np.full(steps, np.inf)}
    deadline, rounds, ratio = time.monotonic() + PATIENCE_S, 0, np.inf
    while time.monotonic() < deadline and (rounds < LEAST_ROUNDS or ratio > LIMIT):
        for ledger in list(fastest)[:: 1 if rounds % 2 else -1]:
            fastest[ledger] = np.minimum(fastest[ledger], step_times(method, ledger(), spec, steps))
        rounds += 1
        counted, uncounted = (np.median(each[FIRST:]) for each in fastest.values())
        ratio = counted / uncounted
    assert ratio <= LIMIT
