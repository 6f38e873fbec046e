"""What two workers gain over one, on runs that take the same time each, and what the harness adds to a run."""

import time

import pytest

from bench.config.schema import Execution
from bench.execution import pool, scheduler
from bench.execution.scheduler import run_all
from bench.store.records import RunSpec

MOST = 0.56
OVERHEAD_S = 0.05
PROGRAM = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[2])
from bench.execution.server import serve
from bench.store.records import RunResult

def carry_out(job):
    time.sleep(dict(job.spec.parameters)["sleep"])
    return RunResult(job.spec)

serve(int(sys.argv[1]), carry_out, lambda: ("code of the test",))
"""


@pytest.fixture
def seconds(tmp_path, monkeypatch):
    """How long a study of runs takes that do nothing but sleep."""
    monkeypatch.setattr(pool, "PROGRAM", PROGRAM)
    monkeypatch.setattr(scheduler, "environment", lambda: ("code of the test",))
    (tmp_path / "runs").mkdir()

    def measure(runs, sleep, **how):
        one = {"dataset": "circle", "method": "vae", "parameters": (("sleep", sleep),)}
        specs = [RunSpec(seed=seed, **one) for seed in range(runs)]
        start = time.perf_counter()
        assert len(list(run_all(specs, Execution(**how), tmp_path))) == runs
        return time.perf_counter() - start

    return measure


def test_two_workers_take_little_more_than_half_of_the_time(seconds):
    """The fastest of three each, less the start of the server, which both have once."""
    start, one, two = (
        min(seconds(runs, 0.15, jobs=jobs) for _ in range(3)) for runs, jobs in ((1, 1), (11, 1), (11, 2))
    )
    assert two - start <= MOST * (one - start)


def test_a_run_costs_the_harness_milliseconds(seconds):
    """Limits included, and the start of the child, which takes longer for torch's sake alone."""
    limits = {"run_timeout": 60.0, "run_memory": 10**10}
    assert min(seconds(50, 0.0, **limits) for _ in range(3)) / 50 < OVERHEAD_S
