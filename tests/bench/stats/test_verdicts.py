"""Verdicts by simulation with known truth, and by hand."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from scipy import stats

from bench.stats import verdicts
from bench.stats.verdicts import (
    BETTER,
    EQUIVALENT,
    UNDECIDED,
    VERDICTS,
    WORSE,
    _decision,
    decide,
    interval,
    one_sided,
    two_sided,
)

STUDIES = 300
SKEWED = {
    "exponential": (lambda random, size: random.standard_exponential(size), math.log(2), 1.0),
    "lognormal": (lambda random, size: np.exp(0.5 * random.standard_normal(size)), 1.0, math.exp(0.125)),
}


@pytest.mark.parametrize("seeds", [6, 7, 10])
@pytest.mark.parametrize("name", SKEWED)
def test_the_interval_covers_the_median_of_skewed_differences(monkeypatch, name, seeds):
    """As often as it says, within what a simulation of 300 studies can tell; so can fewer resamples."""
    monkeypatch.setattr(verdicts, "PAIRED_RESAMPLES", 999)
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


DATASETS, BASELINES, OTHERS = 9, 2, 9
DRAWN = {
    "normal": lambda random, size: random.standard_normal(size),
    "skewed": lambda random, size: np.exp(random.standard_normal(size)),
    "heavy": lambda random, size: random.standard_t(2, size),
    "ties": lambda random, size: np.round(random.standard_normal(size)),
}


def made_up(random, seeds, drawn="normal", spreads=0.0):
    """The differences of a report of 162 comparisons in which all methods are alike, and their datasets.

    What a baseline does at a seed is in all its differences on a dataset, as in a study.
    """
    each = DRAWN[drawn](random, (DATASETS, BASELINES + OTHERS, seeds))
    differences = each[:, :BASELINES, None] - each[:, None, BASELINES:]
    scales = np.exp(spreads * random.standard_normal((*differences.shape[:3], 1)))
    flat = (differences * scales).reshape(-1, seeds)
    return flat, [str(place // (BASELINES * OTHERS)) for place in range(len(flat))]


def p_of(values, datasets):
    return two_sided(datasets, [dict(enumerate(each)) for each in values])


REPORTS = 150
NOISE = 3 * math.sqrt(0.05 * 0.95 / REPORTS)


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("seeds", [6, 10])
def test_in_few_reports_on_equal_methods_is_any_told_apart(drawn, seeds):
    random = np.random.default_rng(3)
    wrong = [p_of(*made_up(random, seeds, drawn)).min() <= 0.05 for _ in range(REPORTS)]
    assert np.mean(wrong) <= 0.05 + NOISE


def test_without_the_correction_it_would_be_in_most():
    random = np.random.default_rng(3)
    ps = [stats.ttest_1samp(made_up(random, 10)[0], 0, axis=1).pvalue.min() for _ in range(REPORTS)]
    assert np.mean(np.array(ps) <= 0.05) > 0.9


@pytest.mark.parametrize(("spreads", "least"), [(0.0, 0.8), (0.5, 0.7)])
def test_one_difference_of_two_standard_deviations_among_162_is_found(spreads, least):
    """At ten seeds with a probability above 0.8; somewhat less often where spreads differ by factors."""
    random, hits = np.random.default_rng(4), []
    for _ in range(REPORTS):
        values, datasets = made_up(random, 10, spreads=spreads)
        values[0] = values[0, 0] / abs(values[0, 0]) * (2 + random.standard_normal(10)) * values[0].std()
        low, high = interval(values[0].tolist())
        hits.append(p_of(values, datasets)[0] <= 0.05 and not low <= 0 <= high)
    assert np.mean(hits) > least


def test_skewed_differences_about_a_median_of_zero_are_told_apart_too_often():
    """What flips of signs test is symmetry about zero: docs/statistics.md says how often."""
    random, wrong = np.random.default_rng(8), []
    for _ in range(REPORTS):
        values = random.standard_exponential((72, 10)) - math.log(2)
        found = p_of(values, [str(place // 12) for place in range(72)]) <= 0.05
        ends = [interval(each.tolist()) for each in values[found]]
        wrong.append(any(not low <= 0 <= high for low, high in ends))
    assert 0.05 < np.mean(wrong) < 0.25


def test_six_seeds_decide_when_all_effects_are_large():
    random = np.random.default_rng(5)
    values, datasets = made_up(random, 6)
    signs = random.choice((-1, 1), len(values))
    found = decide([(d, dict(enumerate(v))) for d, v in zip(datasets, values + 50 * signs[:, None], strict=True)])
    assert [each.verdict for each in found] == [BETTER if sign > 0 else WORSE for sign in signs]
    few = decide([(d, dict(enumerate(v[:5]))) for d, v in zip(datasets, values + 50, strict=True)])
    assert {(each.verdict, each.interval) for each in few} == {(UNDECIDED, None)}


@pytest.mark.parametrize("drawn", ["normal", "skewed", "heavy"])
def test_a_single_comparison_at_the_margin_is_seldom_called_equivalent(drawn):
    random, wrong = np.random.default_rng(6), []
    for _ in range(REPORTS):
        sign = random.choice((-1, 1))
        values = DRAWN[drawn](random, 10)
        centred = values - (1.0 if drawn == "skewed" else 0.0)  # the median of a lognormal variable is 1
        (found,) = decide([("circle", dict(enumerate(sign * (0.02 + 0.005 * centred))))], 0.02)
        wrong.append(found.verdict == EQUIVALENT)
    assert np.mean(wrong) <= 0.05 + NOISE


def test_in_few_reports_on_methods_at_the_margin_is_any_called_equivalent():
    random, wrong = np.random.default_rng(7), []
    for _ in range(REPORTS):
        values, datasets = 0.02 + 0.01 * random.standard_normal((36, 10)), [str(k // 4) for k in range(36)]
        every = values.tolist()
        above = [{k: 0.02 + v for k, v in enumerate(each)} for each in every]
        below = [{k: 0.02 - v for k, v in enumerate(each)} for each in every]
        sides = one_sided(datasets * 2, above + below)
        wrong.append(np.maximum(*np.split(sides, 2)).min() <= 0.05)
    assert np.mean(wrong) <= 0.05 + NOISE


@pytest.mark.parametrize(("margin", "expected"), [(0.02, EQUIVALENT), (0.001, UNDECIDED), (0.0, UNDECIDED)])
def test_equivalence_needs_a_margin_that_the_differences_keep_well_within(margin, expected):
    values = 0.002 * np.random.default_rng(0).standard_normal(10)
    (found,) = decide([("circle", dict(enumerate(values - np.median(values))))], margin)
    assert found.verdict == expected


def test_a_small_difference_that_all_seeds_share_is_equivalent_within_the_margin_and_better_without_it():
    values = dict(enumerate([0.004, 0.005, 0.006, 0.005, 0.004, 0.006, 0.005]))
    assert [decide([("circle", values)], margin)[0].verdict for margin in (0.02, 0.0)] == [EQUIVALENT, BETTER]


def by_every_flip(samples):
    """p-values by all signs of two datasets, with loops, straight from the definition (no moderation: one each)."""

    def t(values):
        return abs(np.mean(values)) / (np.std(values, ddof=1) / math.sqrt(len(values)))

    observed = [t(each) for each in samples]
    order = np.argsort(observed)[::-1]
    counts, total = np.zeros(len(samples)), 0
    for signs in product(*(product((-1, 1), repeat=len(each)) for each in samples)):
        flipped = [t(np.array(s) * each) for s, each in zip(signs, samples, strict=True)]
        total += 1
        for step, place in enumerate(order):
            counts[place] += max(flipped[k] for k in order[step:]) >= observed[place] - 1e-9
    p = counts / total
    for before, after in pairwise(order):
        p[after] = max(p[after], p[before])
    return p


def test_p_values_are_those_of_all_flips():
    samples = [np.array([0.9, 1.1, 1.0, 1.3, 0.8]), np.array([0.4, -0.1, 0.5, 0.3, 0.35])]
    assert p_of(samples, ["a", "b"]) == pytest.approx(by_every_flip(samples), abs=1e-12)


def test_above_a_number_of_seeds_signs_are_drawn_and_tell_nearly_the_same(monkeypatch):
    values, datasets = made_up(np.random.default_rng(13), 10)
    values[::20] += 2.0 * values.std()
    every = p_of(values, datasets)
    monkeypatch.setattr(verdicts, "EVERY_FLIP", 9)
    verdicts._signs.cache_clear()
    drawn = p_of(values, datasets)
    verdicts._signs.cache_clear()
    assert 0 < np.abs(drawn - every).max() < 0.1


def test_p_values_by_hand():
    """All seeds agree: of 2^6 signs two give as much. Zeros decide nothing. NaN never gets here."""
    values = [0.9, 1.1, 1.0, 1.3, 0.8, 1.05]
    assert p_of([values], ["a"]) == pytest.approx([2 / 64])
    assert p_of([[0.25] * 6], ["a"]) == pytest.approx([2 / 64])
    assert p_of([[0.0] * 10], ["a"]).tolist() == [1.0]
    assert decide([]) == []


def test_the_least_p_does_not_grow_with_the_number_of_comparisons():
    """Of a large difference; with Benjamini-Hochberg six seeds could decide none of 162."""
    random = np.random.default_rng(8)
    values, datasets = made_up(random, 6)
    values[0] = 100 + random.standard_normal(6)
    alone = p_of(values[:1], datasets[:1])[0]
    assert p_of(values, datasets)[0] == pytest.approx(alone, abs=0.02)


def test_seeds_of_a_dataset_are_flipped_in_all_its_comparisons_at_once():
    """Two comparisons that are copies are one: were they flipped apart, their p would be larger."""
    values = np.random.default_rng(9).standard_normal(10) + 1.0
    alone = p_of([values], ["a"])[0]
    assert p_of([values] * 20, ["a"] * 20) == pytest.approx([alone] * 20)


def test_missing_seeds_count_for_nothing():
    values = np.random.default_rng(10).standard_normal(8) + 1.5
    few = {seed: value for seed, value in enumerate(values) if seed not in (2, 5)}
    other = dict(enumerate(np.random.default_rng(11).standard_normal(8)))
    alone, _ = decide([("a", few), ("b", other)])
    shifted, _ = decide([("a", {seed + 100: value for seed, value in few.items()}), ("b", other)])
    assert (alone.interval, alone.verdict) == (shifted.interval, shifted.verdict)
    assert len(few) == 6
    assert alone.p == pytest.approx(shifted.p, abs=0.02)


def test_a_verdict_is_of_the_other_sign_for_the_other_method_and_the_same_each_time():
    values = np.random.default_rng(12).standard_normal((3, 10)) + np.array([[3.0], [0.0], [-4.0]])
    rows = [("a", dict(enumerate(each))) for each in values]
    found, again = decide(rows), decide([(d, {k: each[k] for k in reversed(each)}) for d, each in rows])
    turned = decide([(d, {k: -v for k, v in each.items()}) for d, each in rows])
    assert found == again
    assert [each.verdict for each in found] == [BETTER, UNDECIDED, WORSE]
    assert [each.verdict for each in turned] == [WORSE, UNDECIDED, BETTER]
    assert [each.p for each in turned] == [each.p for each in found]


def test_one_large_seed_does_not_hide_what_all_seeds_show():
    """Ten seeds in favour, one of them by much more: plain t would be about 1."""
    values = [0.3, 0.5, 0.4, 0.6, 0.5, 0.4, 0.5, 0.6, 0.3, 30.0]
    (found,) = decide([("a", dict(enumerate(values)))])
    assert stats.ttest_1samp(values, 0).pvalue > 0.2
    assert (found.verdict, found.p < 0.01) == (BETTER, True)


def test_a_verdict_needs_both_the_interval_and_p():
    ahead, across = np.linspace(0.1, 0.5, 8), np.linspace(-0.3, 0.5, 8)
    assert _decision(ahead, 0.05, 1.0, 0.02, 1).verdict == BETTER
    assert _decision(-ahead, 0.05, 1.0, 0.02, 1).verdict == WORSE
    assert _decision(ahead, 0.0501, 1.0, 0.02, 1).verdict == UNDECIDED
    assert _decision(across, 0.001, 1.0, 0.02, 1).verdict == UNDECIDED
    assert _decision(across, 0.001, 0.001, 0.02, 1).verdict == UNDECIDED
    assert _decision(across, 0.001, 0.05, 0.6, 1).verdict == EQUIVALENT
    assert _decision(ahead[:5], 0.001, 0.001, 0.6, 1).verdict == UNDECIDED
    assert set(VERDICTS) == {BETTER, WORSE, EQUIVALENT, UNDECIDED}
