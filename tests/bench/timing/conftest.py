"""What the tests of timings share: a clock that stands still, and methods that take time by it."""

import gc
from dataclasses import dataclass

import pytest

from bench.cli import timing
from bench.timing import run
from methods.contract.method import Method


@pytest.fixture(autouse=True)
def few_objects():
    """Garbage is collected before each fit, which takes long among all that tests have imported."""
    gc.freeze()


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The clock that fits are timed by, in the place of the machine's."""
    made = Clock()
    monkeypatch.setattr(run, "time", made)
    monkeypatch.setattr(timing, "time", made)
    return made


@pytest.fixture(scope="session")
def sleeper():
    """A method that sleeps, by the clock that times it, and yields once."""

    @dataclass(frozen=True)
    class Sleeper(Method):
        seconds: float = 5e-3

        def fit(self, task):
            run.time.sleep(self.seconds)
            yield

    return Sleeper


@pytest.fixture(scope="session")
def watching():
    """Make a method that calls look(task) before each of `count` yields."""

    def make(look, count=1):
        @dataclass(frozen=True)
        class Watching(Method):
            def fit(self, task):
                for _ in range(count):
                    look(task)
                    yield

        return Watching

    return make


@pytest.fixture
def timed(cli, offer, clock, sleeper):
    """`timing` of a method, under the name one, and of a sleeper, by a clock of the test's own."""

    def time_both(one, *more):
        offer("one", one)
        offer("two", sleeper(1e-3))
        return cli("timing", "-m", "one,two", "-d", "circle", "--n-train", 20, "--rounds", 5, *more)

    return time_both
