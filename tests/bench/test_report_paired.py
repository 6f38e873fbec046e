"""Intervals, verdicts and the cost to match: by simulation, and by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.report.paired import BETTER, INDISTINGUISHABLE, WORSE, cost_to_match, interval, verdict

STUDIES = 300
SKEWED = {
    "exponential": (lambda random, size: random.standard_exponential(size), math.log(2), 1.0),
    "lognormal": (lambda random, size: np.exp(0.5 * random.standard_normal(size)), 1.0, math.exp(0.125)),
}


@pytest.mark.parametrize("seeds", [5, 7, 10])
@pytest.mark.parametrize("name", SKEWED)
def test_the_interval_covers_the_median_of_skewed_differences(name, seeds):
    """As often as five of a kind can, within what a simulation of 300 studies can tell."""
    sample, median, _ = SKEWED[name]
    studies = sample(np.random.default_rng(1), (STUDIES, seeds))
    low, high = np.array([interval(differences.tolist()) for differences in studies]).T
    covered = ((low <= median) & (median <= high)).mean()
    assert covered > 0.9375 - 3 * math.sqrt(0.0625 / STUDIES)  # 1 - 2/32: not all five on one side
    assert covered < 1


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("name", SKEWED)
@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_an_interval_of_the_mean_would_not(name, seeds, method):
    sample, _, mean = SKEWED[name]
    studies, random = sample(np.random.default_rng(1), (STUDIES, seeds)), np.random.default_rng(0)
    found = stats.bootstrap((studies,), np.mean, axis=1, n_resamples=999, method=method, rng=random).confidence_interval
    assert ((found.low <= mean) & (mean <= found.high)).mean() < 0.91


def test_percentiles_at_95_would_not_either():
    sample, median, _ = SKEWED["exponential"]
    studies, random = sample(np.random.default_rng(1), (STUDIES, 7)), np.random.default_rng(0)
    found = stats.bootstrap((studies,), np.median, axis=1, n_resamples=999, method="percentile", rng=random)
    low, high = found.confidence_interval
    assert ((low <= median) & (median <= high)).mean() < 0.9


def test_methods_that_do_not_differ_are_seldom_told_apart():
    """Differences that are as often above zero as below, but skewed."""
    studies = np.random.default_rng(2).standard_exponential((STUDIES, 5)) - math.log(2)
    verdicts = [verdict(interval(differences.tolist())) for differences in studies]
    wrong = sum(each != INDISTINGUISHABLE for each in verdicts) / STUDIES
    assert wrong < 0.0625 + 3 * math.sqrt(0.0625 / STUDIES)  # 2 in 32: all five on one side


def test_of_five_seeds_all_must_agree():
    assert verdict(interval([0.1, 0.2, 0.3, 0.4, 0.5])) == BETTER
    assert verdict(interval([-0.1, -0.2, -0.3, -0.4, -0.5])) == WORSE
    assert verdict(interval([0.1, 0.2, 0.3, 0.4, -1e-6])) == INDISTINGUISHABLE
    assert interval([0.1, 0.2, 0.3, 0.4, 0.5]) == (0.1, 0.5)


def test_nothing_is_said_of_fewer_than_five_seeds_nor_of_equals():
    assert interval([1.0] * 4) is None
    assert verdict(None) == INDISTINGUISHABLE
    assert verdict(interval([0.0] * 10)) == INDISTINGUISHABLE
    assert interval([0.25] * 5) == (0.25, 0.25)


def test_an_interval_is_the_same_each_time_and_for_the_other_sign():
    differences = np.random.default_rng(0).standard_normal(11).tolist()
    low, high = interval(differences)
    assert interval(differences) == (low, high)
    assert interval([-each for each in differences]) == pytest.approx((-high, -low), abs=0.2)


def looks(*seeds):
    """A look for each value of each seed; the k-th has cost k seconds and 10 k FLOPs."""
    rows = [
        {"seed": seed, "checkpoint": k, "value": value, "wall_s": float(k), "flops": 10.0 * k}
        for seed, values in enumerate(seeds)
        for k, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows)


def targets(*values, wall=10.0, flops=200.0):
    index = pd.RangeIndex(len(values), name="seed")
    return pd.DataFrame({"test_ll": values, "wall_s": wall, "flops": flops}, index=index, dtype=float)


def test_the_first_look_that_reaches_the_target_counts_whatever_follows():
    found = cost_to_match(looks((-5, -2, -1, -3)), targets(-2))
    assert (found.wall, found.flops, found.reached, found.seeds) == (0.2, 0.1, 1, 1)


def test_the_median_is_over_seeds_each_with_its_own_target():
    found = cost_to_match(looks((-3, -2, -1), (-3, -2, -1), (-3, -2, -1)), targets(-3, -1, -2.5))
    assert (found.wall, found.reached) == (0.2, 3)
    found = cost_to_match(looks((-3, -2, -1), (-3, -2, -1), (-3, -2, -1)), targets(-3, 0, -2.5))
    assert (found.wall, found.reached) == (0.2, 2)


@pytest.mark.parametrize(("last", "reached"), [((0, 0), 0), ((0, -1), 1), ((-1, -1), 2)])
def test_where_half_of_the_seeds_never_reach_it_the_median_is_infinite(last, reached):
    found = cost_to_match(looks((-3, -1), (-3, -1)), targets(*last))
    assert found.reached == reached
    assert math.isinf(found.wall) == math.isinf(found.flops) == (reached < 2)


def test_looks_may_come_in_any_order_and_of_more_seeds_than_are_compared():
    every = looks((-3, -2, -1), (-9, -9, -9), (-3, -2, -1)).sample(frac=1, random_state=0)
    found = cost_to_match(every, targets(-2, -2, -2).loc[[0, 2]])
    assert (found.wall, found.reached, found.seeds) == (0.2, 2, 2)


def test_a_cost_that_is_not_known_gives_no_ratio_but_for_a_miss():
    found = cost_to_match(looks((-3, -1)), targets(-2, flops=math.nan))
    assert found.wall == 0.2
    assert math.isnan(found.flops)
    assert cost_to_match(looks((-3, -1)), targets(0, wall=0.0)).wall == math.inf
