"""The statistics of time ratios, by simulation and by cases that can be worked out."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from bench.timing import ratios
from bench.timing.ratios import Comparison, Ratio, comparisons, self_ratios, time_ratio

RUNS = 200
ROUNDS = 10


@pytest.fixture
def fewer(monkeypatch):
    """Fewer resamples, for hundreds of intervals; what they cost in precision is far below what is asked of them."""
    monkeypatch.setattr(ratios, "RESAMPLES", 499)


def simulated(random, seconds, noise, rounds=ROUNDS):
    """Times (rounds, 2) of each method, noisy by a factor, in rounds that are fast and slow for all of them alike."""
    weather = random.lognormal(0, 0.5, (rounds, 1))
    return {name: mean * weather * random.lognormal(0, noise, (rounds, 2)) for name, mean in seconds.items()}


def verdicts(seconds, noise, runs=RUNS):
    random = np.random.default_rng(0)
    return [comparisons(simulated(random, seconds, noise), 0)[0].verdict for _ in range(runs)]


def test_methods_that_take_the_same_time_are_indistinguishable(fewer):
    assert verdicts({"a": 1.0, "b": 1.0}, 0.05).count("indistinguishable") >= 0.95 * RUNS


@pytest.mark.parametrize(("seconds", "verdict"), [(1.1, "slower"), (1 / 1.1, "faster")])
def test_ten_percent_under_one_percent_of_noise_is_found(fewer, seconds, verdict):
    assert set(verdicts({"a": seconds, "b": 1.0}, 0.01, 50)) == {verdict}


def test_a_difference_below_the_noise_is_never_called(fewer):
    assert set(verdicts({"a": 1.01, "b": 1.0}, 0.05)) == {"indistinguishable"}


def test_an_interval_that_excludes_one_is_not_called_below_the_noise_floor():
    random = np.random.default_rng(0)
    mean, apart = 1.02 * random.lognormal(0, 1e-4, ROUNDS), random.normal(0, 0.05, ROUNDS)
    [found] = comparisons({"a": np.stack([mean + apart, mean - apart], 1), "b": np.ones((ROUNDS, 2))}, 0)
    assert 1.019 < found.ratio.low < found.ratio.high < 1.021
    assert found.noise_floor > 0.021
    assert found.verdict == "indistinguishable"


@pytest.mark.parametrize("rounds", [5, 7, 10])
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(fewer, rounds):
    random, runs = np.random.default_rng(1), 1000
    found = [time_ratio(*random.lognormal([[math.log(1.3)], [0]], 0.1, (2, rounds)), seed=0) for _ in range(runs)]
    coverage = sum(ratio.low <= 1.3 <= ratio.high for ratio in found) / runs
    # Of 1,000 intervals, 95% are known to 0.7%. At a level of 95%, 7 rounds would give 0.88.
    assert 0.92 <= coverage <= 0.99


def test_the_ratio_is_the_median_over_rounds():
    random = np.random.default_rng(2)
    first, second = random.lognormal(0, 0.3, (2, 7))
    found = time_ratio(first, second, 0)
    assert found.value == pytest.approx(np.median(first / second))
    assert (first / second).min() <= found.low < found.value < found.high <= (first / second).max()


def test_the_other_way_round_is_the_inverse():
    first, second = np.random.default_rng(3).lognormal(0, 0.3, (2, ROUNDS))
    one, other = time_ratio(first, second, 0), time_ratio(second, first, 0)
    assert (1 / other.value, 1 / other.high, 1 / other.low) == pytest.approx((one.value, one.low, one.high))


def test_what_slows_a_whole_round_cancels():
    random = np.random.default_rng(4)
    first, second = random.lognormal(0, 0.1, (2, ROUNDS))
    weather = random.lognormal(0, 2, ROUNDS)
    found, expected = time_ratio(first * weather, second * weather, 0), time_ratio(first, second, 0)
    assert asdict(found) == pytest.approx(asdict(expected))


def test_a_fit_that_was_held_up_moves_the_ratio_no_further_than_its_neighbour():
    times = simulated(np.random.default_rng(5), {"a": 1.0, "b": 1.0}, 0.01)
    times["a"][3, 0] *= 50
    [found] = comparisons(times, 0)
    assert found.ratio.value == pytest.approx(1, abs=0.02)
    assert found.verdict == "indistinguishable"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "indistinguishable"), (0.5, "faster"), (3.0, "slower")])
def test_times_without_any_variance(factor, verdict):
    times = {"a": np.full((5, 2), factor), "b": np.ones((5, 2))}
    [found] = comparisons(times, 0)
    assert asdict(found.ratio) == pytest.approx({"value": factor, "low": factor, "high": factor})
    assert (found.noise_floor, found.verdict) == (0, verdict)


def test_the_first_method_is_compared_with_each_other_one_and_the_noisier_of_two_sets_the_floor():
    random = np.random.default_rng(6)
    times = {name: random.lognormal(0, noise, (ROUNDS, 2)) for name, noise in (("a", 0.02), ("b", 0.2), ("c", 0.001))}
    itself, found = self_ratios(times, 0), comparisons(times, 0)
    assert [(c.first, c.second) for c in found] == [("a", "b"), ("a", "c")]
    assert itself["b"].reach > itself["a"].reach > itself["c"].reach
    assert [c.noise_floor for c in found] == [itself["b"].reach, itself["a"].reach]
    assert itself["a"] == time_ratio(times["a"][:, 0], times["a"][:, 1], 0)
    assert found[1].ratio == time_ratio(times["a"].mean(1), times["c"].mean(1), 0)


@pytest.mark.parametrize(
    ("low", "high", "reach"), [(0.99, 1.03, 0.03), (1 / 1.03, 1.01, 0.03), (1.02, 1.03, 0.03), (1, 1, 0)]
)
def test_how_far_an_interval_reaches_from_one(low, high, reach):
    assert Ratio(1.0, low, high).reach == pytest.approx(reach)


@pytest.mark.parametrize(
    ("ratio", "floor", "verdict"),
    [
        ((1.10, 1.08, 1.12), 0.03, "slower"),
        ((1 / 1.10, 0.90, 0.92), 0.03, "faster"),
        ((1.10, 1.08, 1.12), 0.11, "indistinguishable"),
        ((1 / 1.10, 0.90, 0.92), 0.11, "indistinguishable"),
        ((1.10, 0.99, 1.30), 0.03, "indistinguishable"),
        ((0.90, 0.80, 1.01), 0.03, "indistinguishable"),
        ((1.0, 1.0, 1.0), 0.0, "indistinguishable"),
    ],
)
def test_a_verdict_needs_both_the_interval_and_the_floor(ratio, floor, verdict):
    assert Comparison("a", "b", Ratio(*ratio), floor).verdict == verdict
