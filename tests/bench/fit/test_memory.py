"""Peak memory against arrays of known size, where the system tells it."""

import math

import numpy as np
import pytest

from bench.fit import memory
from bench.fit.memory import PeakMemory

MB = 10**6
ON_LINUX = pytest.mark.skipif(math.isnan(PeakMemory().peak), reason="the system does not tell")


def touched(megabytes):
    """Memory that is resident, for each of its pages has been written to."""
    return np.ones(megabytes * MB, dtype=np.uint8)


def pieces(megabytes):
    """The same in pieces that come from the heap, which keeps them when they are freed, rather than from the system."""
    return [np.ones(50_000, dtype=np.uint8) for _ in range(megabytes * 20)]


@pytest.fixture
def peak():
    return PeakMemory()


@ON_LINUX
@pytest.mark.parametrize("allocate", [touched, pieces])
def test_what_fitting_allocates_is_its_peak(peak, allocate):
    peak.begin()
    held = allocate(200)
    peak.end()
    del held
    assert peak.peak == pytest.approx(200 * MB, rel=0.1)


@ON_LINUX
def test_the_peak_outlives_what_is_freed_before_the_end(peak):
    peak.begin()
    touched(200)
    peak.end()
    assert peak.peak == pytest.approx(200 * MB, rel=0.1)


@ON_LINUX
def test_what_fitting_holds_through_a_look_adds_to_what_it_takes_later(peak):
    peak.begin()
    first = touched(100)
    peak.end()
    peak.begin()
    second = touched(100)
    peak.end()
    assert peak.peak == pytest.approx(200 * MB, rel=0.1)
    del first, second


@ON_LINUX
@pytest.mark.parametrize("allocate", [touched, pieces])
@pytest.mark.parametrize("kept", [True, False])
def test_evaluation_does_not_count(peak, allocate, kept):
    peak.begin()
    held = touched(50)
    peak.end()
    evaluation = allocate(300)
    if not kept:
        del evaluation
    peak.begin()
    more = touched(50)
    peak.end()
    assert peak.peak == pytest.approx(100 * MB, rel=0.1)
    del held, more


@ON_LINUX
def test_memory_that_evaluation_frees_counts_when_fitting_takes_it_again(peak):
    peak.begin()
    peak.end()
    between = pieces(200)
    # A piece that stays on top of the heap keeps it from shrinking of itself.
    keeper = np.ones(50_000, dtype=np.uint8)
    del between
    peak.begin()
    held = pieces(200)
    peak.end()
    assert peak.peak == pytest.approx(200 * MB, rel=0.1)
    del held, keeper


@ON_LINUX
def test_memory_held_before_the_fit_does_not_count(peak):
    before = touched(200)
    peak.begin()
    peak.end()
    assert peak.peak < 10 * MB
    del before


@ON_LINUX
def test_memory_that_fitting_gives_back_makes_no_negative_peak(peak):
    before = [touched(200)]
    peak.begin()
    before.clear()
    peak.end()
    assert 0 <= peak.peak < 10 * MB


@pytest.mark.parametrize("missing", ["STATUS", "CLEAR_REFS"])
def test_where_the_system_does_not_tell_the_peak_is_not_a_number(monkeypatch, tmp_path, missing):
    monkeypatch.setattr(memory, missing, tmp_path / "nowhere" / "file")
    peak = PeakMemory()
    peak.begin()
    peak.end()
    assert math.isnan(peak.peak)


def test_a_device_without_a_count_of_its_memory_has_none():
    assert math.isnan(PeakMemory("meta").peak)


def test_on_a_gpu_the_peak_is_what_torch_allocates_there(monkeypatch):
    class Allocator:
        now = most = 1000

    def allocate(count):
        Allocator.now += count
        Allocator.most = max(Allocator.most, Allocator.now)

    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: Allocator.now)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: Allocator.most)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda _: setattr(Allocator, "most", Allocator.now))
    peak = PeakMemory("cuda")
    peak.begin()
    allocate(70)
    allocate(-30)
    peak.end()
    allocate(500)
    peak.begin()
    allocate(10)
    peak.end()
    assert peak.peak == 70
    peak.begin()
    allocate(40)
    peak.end()
    assert peak.peak == 90
