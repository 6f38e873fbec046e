"""What two workers gain over one, on runs that take the same time each, and what the harness adds to a run."""

import time

import pytest

from bench.config.schema import Execution
from bench.execution import pool, scheduler
from bench.execution.scheduler import run_all
from bench.store.records import RunSpec

MOST = 0.56
OVERHEAD_S = 0.05
SLEEP_S = 0.25
PROGRAM = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[2])
from bench.execution.server import serve
from bench.store.records import RunResult

def carry_out(job):
    time.sleep(dict(job.specs[0].parameters)["sleep"])
    return [RunResult(spec) for spec in job.specs]

serve(int(sys.argv[1]), carry_out, lambda: ("code of the test",))
"""


@pytest.fixture
def times(tmp_path, monkeypatch):
    """When the results come of a study of runs that do nothing but sleep, in seconds since it began."""
    monkeypatch.setattr(pool, "PROGRAM", PROGRAM)
    monkeypatch.setattr(scheduler, "environment", lambda: ("code of the test",))
    (tmp_path / "runs").mkdir()

    def measure(runs, sleep, **how):
        one = {"dataset": "circle", "method": "vae", "parameters": (("sleep", sleep),)}
        specs = [RunSpec(seed=seed, **one) for seed in range(runs)]
        start = time.perf_counter()
        came = [time.perf_counter() - start for _ in run_all(specs, Execution(**how), tmp_path)]
        assert len(came) == runs
        return came

    return measure


def test_two_workers_take_little_more_than_half_of_the_time(times, fastest):
    """From the first result to the last, which leaves out the start of the server: of 5 runs, 4 sleeps against 2."""

    def measure():
        came = [times(5, SLEEP_S, jobs=jobs) for jobs in (1, 2)]
        return [each[-1] - each[0] for each in came]

    one, two = fastest(measure, lambda one, two: two <= MOST * one)
    assert two <= MOST * one


def test_a_run_costs_the_harness_milliseconds(times, fastest):
    """Limits included, and the start of the child, which takes longer for torch's sake alone."""
    limits = {"run_timeout": 60.0, "run_memory": 10**10}
    (each,) = fastest(lambda: [times(50, 0.0, **limits)[-1] / 50], lambda each: each < OVERHEAD_S, least=1)
    assert each < OVERHEAD_S
