"""Intervals, verdicts and the cost to match: by simulation, and by hand."""

import functools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.stats import paired
from bench.stats.paired import BETTER, INDISTINGUISHABLE, WORSE, corrected, cost_to_match, interval, p_value, verdict

STUDIES = 300
SKEWED = {
    "exponential": (lambda random, size: random.standard_exponential(size), math.log(2), 1.0),
    "lognormal": (lambda random, size: np.exp(0.5 * random.standard_normal(size)), 1.0, math.exp(0.125)),
}


@pytest.mark.parametrize("seeds", [6, 7, 10])
@pytest.mark.parametrize("name", SKEWED)
def test_the_interval_covers_the_median_of_skewed_differences(monkeypatch, name, seeds):
    """As often as it says, within what a simulation of 300 studies can tell; so can fewer resamples."""
    monkeypatch.setattr(paired, "PAIRED_RESAMPLES", 999)
    sample, median, _ = SKEWED[name]
    studies = sample(np.random.default_rng(1), (STUDIES, seeds))
    low, high = np.array([interval(differences.tolist()) for differences in studies]).T
    covered = ((low <= median) & (median <= high)).mean()
    assert covered > 0.95 - 3 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert covered < 1


@pytest.mark.parametrize("seeds", [6, 10])
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


REPORTS, RIVALS, DATASETS, SEEDS = 40, 8, 5, 10


@functools.cache
def made_up(differ):
    """Differences and p-values in reports on one method against eight rivals on five datasets.

    All are level but for the first `differ` rivals. What the method itself does at a seed is in all its differences on
    a dataset, as in a study.
    """
    random, reports = np.random.default_rng(2), []
    for _ in range(REPORTS):
        own = random.standard_normal((1, DATASETS, SEEDS))
        differences = (
            own - random.standard_normal((RIVALS, DATASETS, SEEDS)) + 5.0 * (np.arange(RIVALS) < differ)[:, None, None]
        )
        flat = differences.reshape(-1, SEEDS)
        reports.append((flat, [p_value(each) for each in flat]))
    return reports


def made_up_verdicts(correct, differ=0):
    for flat, ps in made_up(differ):
        adjusted = corrected(ps) if correct else ps
        yield [
            verdict((each.min(), each.max()) if p > 0.05 else (np.sign(np.median(each)),) * 2, p)
            for each, p in zip(flat, adjusted, strict=True)
        ]


def test_equal_methods_are_seldom_told_apart_in_a_whole_report():
    """In at most 5 of 100 reports any two are; without the correction in most."""
    wrong = np.mean([any(each != INDISTINGUISHABLE for each in found) for found in made_up_verdicts(True)])
    assert wrong < 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPORTS)
    assert np.mean([any(each != INDISTINGUISHABLE for each in found) for found in made_up_verdicts(False)]) > 0.4


def test_of_what_is_told_apart_few_are_equal():
    """The false discovery rate, where four of eight rivals differ."""
    rates, power = [], []
    for found in made_up_verdicts(True, differ=4):
        told = np.array([each != INDISTINGUISHABLE for each in found])
        real = np.arange(len(told)) < 4 * DATASETS
        rates.append((told & ~real).sum() / max(1, told.sum()))
        power.append(told[real].mean())
    assert np.mean(rates) < 0.05 + 3 * np.std(rates) / math.sqrt(REPORTS)
    assert np.mean(power) > 0.95


def test_p_values_by_hand():
    assert p_value([0.1, 0.2, 0.3, 0.4, 0.5]) == 2 / 32
    assert p_value([-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]) == 2 / 64
    assert p_value([0.25] * 6) == 2 / 64  # ties, by all signs
    assert p_value([0.25, 0.25, 0.25, -0.25]) == 10 / 16
    assert p_value([0.0] * 10) == 1.0
    assert p_value([0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == 2 / 64
    assert p_value([]) == 1.0


def test_an_unpaired_test_would_miss_it():
    """A difference that is small beside what the seeds differ by."""
    seeds = np.random.default_rng(0).standard_normal(10)
    mine, theirs = seeds + 0.01 * np.arange(1, 11), seeds
    assert p_value(mine - theirs) == 2 / 1024
    assert stats.mannwhitneyu(mine, theirs).pvalue > 0.5


def test_corrections_by_hand():
    assert corrected([]) == []
    assert corrected([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5])


def test_a_verdict_needs_both_the_interval_and_p():
    assert verdict((0.1, 0.5), 0.05) == BETTER
    assert verdict((-0.5, -0.1), 0.05) == WORSE
    assert verdict((0.1, 0.5), 0.0501) == INDISTINGUISHABLE
    assert verdict((-1e-6, 0.5), 0.001) == INDISTINGUISHABLE
    assert verdict((0.1, 0.5), math.nan) == INDISTINGUISHABLE
    assert verdict(None, 0.001) == INDISTINGUISHABLE


def test_nothing_is_said_of_fewer_than_six_seeds_nor_of_equals():
    assert interval([1.0] * 5) is None
    assert verdict(interval([0.0] * 10), p_value([0.0] * 10)) == INDISTINGUISHABLE
    assert interval([0.25] * 6) == (0.25, 0.25)


def test_an_interval_is_the_same_each_time_and_for_the_other_sign():
    differences = np.random.default_rng(0).standard_normal(11).tolist()
    low, high = interval(differences)
    assert interval(differences) == (low, high)
    gap = np.diff(np.sort(differences)).max()  # resamples may miss an end by one of the differences
    assert interval([-each for each in differences]) == pytest.approx((-high, -low), abs=gap)
    assert p_value([-each for each in differences]) == p_value(differences)
    assert interval(differences[::-1]) == (low, high)


def looks(*seeds, wall=1.0, flops=10.0):
    """A look for each value of each seed; the k-th has cost k seconds and 10 k FLOPs, unless said."""
    rows = [
        {"seed": seed, "checkpoint": k, "value": value, "wall_s": wall * k, "flops": flops * k}
        for seed, values in enumerate(seeds)
        for k, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows)


def rival(*finals, wall=10.0, flops=200.0):
    """The other's looks: it has its final value at its first look and stays there."""
    return looks(*((final, final) for final in finals), wall=wall, flops=flops)


def test_the_first_look_that_reaches_the_target_counts_whatever_follows():
    found = cost_to_match(looks((-5, -2, -1, -3)), rival(-2), [0])
    assert (found.wall, found.flops, found.reached, found.seeds, found.usual) == (0.2, 0.1, 1, (0,), True)


def test_the_other_is_charged_up_to_where_it_first_had_as_much():
    late = looks((-5, -4, -3, -2), wall=10.0)
    assert cost_to_match(looks((-5, -2)), late, [0]).wall == 2 / 40
    assert cost_to_match(late, late, [0]).wall == 1.0
    early = looks((-5, -1, -3, -2), wall=10.0)  # it had more at its second look than it ends with
    assert cost_to_match(looks((-5, -2)), early, [0]).wall == 2 / 20


def test_the_median_is_over_seeds_each_with_its_own_target():
    found = cost_to_match(looks((-3, -2, -1), (-3, -2, -1), (-3, -2, -1)), rival(-3, -1, -2.5), range(3))
    assert (found.wall, found.reached) == (0.2, 3)
    found = cost_to_match(looks((-3, -2, -1), (-3, -2, -1), (-3, -2, -1)), rival(-3, 0, -2.5), range(3))
    assert (found.wall, found.reached, found.usual) == (0.2, 2, True)


@pytest.mark.parametrize(("last", "reached"), [((0, 0), 0), ((0, -1), 1), ((-1, -1), 2)])
def test_where_half_of_the_seeds_never_reach_it_the_median_is_infinite(last, reached):
    found = cost_to_match(looks((-3, -1), (-3, -1)), rival(*last), [0, 1])
    assert found.reached == reached
    assert math.isinf(found.wall) == math.isinf(found.flops) == (not found.usual) == (reached < 2)


def test_looks_may_come_in_any_order_and_of_more_seeds_than_are_compared():
    every = looks((-3, -2, -1), (-9, -9, -9), (-3, -2, -1)).sample(frac=1, random_state=0)
    found = cost_to_match(every, rival(-2, -2, -2).sample(frac=1, random_state=0), [0, 2])
    assert (found.wall, found.reached, found.seeds) == (0.2, 2, (0, 2))


def test_a_cost_that_is_not_known_gives_no_ratio_but_for_a_miss():
    found = cost_to_match(looks((-3, -1)), rival(-2, flops=math.nan), [0])
    assert (found.wall, found.reached) == (0.2, 1)
    assert math.isnan(found.flops)
    assert cost_to_match(looks((-3, -1)), rival(0, wall=0.0), [0]).wall == math.inf
