"""What verdicts can find: as often as is said, by simulated reports that the verdicts themselves decide."""

import math

import numpy as np
import pytest

from bench.stats import power, verdicts
from bench.stats.power import least_effect, least_margin, seeds_needed
from bench.stats.verdicts import BETTER, EQUIVALENT, decide, interval

REPORTS = 150


@pytest.fixture
def share_of(monkeypatch):
    """The share of reports on normal differences whose first comparison has a verdict."""
    monkeypatch.setattr(verdicts, "PAIRED_RESAMPLES", 999)

    def share(verdict, comparisons, seeds, shift, margin):
        random, hits = np.random.default_rng(13), 0
        for _ in range(REPORTS):
            values = random.standard_normal((comparisons, seeds))
            values[0] += shift
            rows = [(str(place), dict(enumerate(each.tolist()))) for place, each in enumerate(values)]
            hits += decide(rows, margin)[0].verdict == verdict
        return hits / REPORTS

    return share


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (1, 10), (1, 20), (5, 10), (9, 6), (9, 15)])
def test_a_difference_is_found_as_often_as_is_said(share_of, comparisons, seeds):
    """The least effect, by the rule of verdicts as a whole: with few comparisons the interval is what binds."""
    effect = least_effect(seeds, comparisons)
    assert 0.7 < share_of(BETTER, comparisons, seeds, effect, 0.0) < 0.9


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 10), (1, 20), (5, 10), (5, 20)])
def test_equals_are_found_equivalent_as_often_as_is_said(share_of, comparisons, seeds):
    assert 0.7 < share_of(EQUIVALENT, comparisons, seeds, 0.0, least_margin(seeds, comparisons)) < 0.95


def test_the_seeds_that_are_needed_decide_as_often_as_is_said(share_of):
    """A difference of 1.2 standard deviations in a report of nine comparisons."""
    seeds = int(seeds_needed(1.2, 1.0, 0.0, 9))
    assert 0.7 < share_of(BETTER, 9, seeds, 1.2, 0.0) < 0.9
    assert least_effect(seeds, 9) <= 1.2 < least_effect(seeds - 1, 9)


@pytest.mark.parametrize("seeds", [6, 7, 13, 20])
def test_the_ends_of_intervals_are_those_of_the_bootstrap(seeds):
    low, high, mean, error = power._simulated(seeds)
    drawn = np.sort(np.random.default_rng(0).standard_normal((len(low), seeds)), axis=1)
    for place in range(5):
        assert (low[place], high[place]) == pytest.approx(interval(drawn[place].tolist()))
    assert mean == pytest.approx(drawn.mean(1))
    assert error == pytest.approx(drawn.std(1, ddof=1) / math.sqrt(seeds))


@pytest.mark.parametrize("of", [power._for_better, power._for_equivalent])
def test_with_many_seeds_what_is_needed_falls_as_their_root(of):
    few, many = (np.quantile(of(power._simulated(seeds), 2.5), power.POWER) for seeds in (30, 90))
    assert few * math.sqrt(30 / 90) == pytest.approx(many, rel=0.06)


def test_seeds_needed_by_hand():
    assert seeds_needed(1.0, 0.0, 0.02, 5) == 6
    assert seeds_needed(0.0, 1.0, 0.02, 5) == math.inf
    assert seeds_needed(0.0, 0.0, 0.0, 5) == math.inf
    assert seeds_needed(0.5, 1.0, 0.02, 1) < seeds_needed(0.5, 1.0, 0.02, 100)
    assert seeds_needed(0.0, 0.05, 0.02, 1) < seeds_needed(0.01, 0.05, 0.02, 1)
    assert math.isinf(least_effect(5, 1))
    assert math.isinf(least_margin(5, 1))
    assert [least_effect(seeds, 9) for seeds in (6, 8, 10, 20, 40)] == sorted(
        (least_effect(seeds, 9) for seeds in (6, 8, 10, 20, 40)), reverse=True
    )
