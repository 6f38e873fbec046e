"""What a step of a method takes against a step of Pyro's, as a ratio within one run."""

import time

import numpy as np
import pytest

from bench.fit import runner
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import draw
from methods.contract.method import NullLedger

LIMIT = 1.0
STEPS = 200
FIRST = 5


def begin(name):
    """A fit of the method with its defaults to 500 training points of the circle."""
    method, problem = registry().make_method(name), registry().make_problem("circle", None)
    spec = RunSpec(dataset="circle", method=name, seed=0, n_train=500, n_test=1)
    return method.fit(runner.make_task(method, problem, draw(problem, 0, 500, 500, 1), spec, NullLedger()))


def step_times(*names):
    """Seconds of each step of several fits, which take their steps in turn, (steps, fits)."""
    fits = [begin(name) for name in names]
    seconds = np.empty((STEPS, len(fits)))
    for row in seconds:
        for i, fit in enumerate(fits):
            start = time.perf_counter()
            next(fit)
            row[i] = time.perf_counter() - start
    return seconds[FIRST:]


@pytest.mark.parametrize("name", ["vae", "iwae"])
def test_a_step_is_not_slower_than_that_of_pyro(name):
    """All steps do the same work, so that the fastest of many is free of what else the machine does."""
    ours, theirs = step_times(name, f"pyro-{name}").min(0)
    assert ours <= LIMIT * theirs
