"""Costs to a target under censoring and performance profiles: by hand, against scipy, and by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.stats import cost_to_target
from bench.stats.cost_to_target import AXES, TARGET_COSTS, _by_cost, _interval, profile, survival_median, targets

STUDIES = 400
ROLES = {"oracle": "ceiling", "untrained": "floor"}
LEAST = {6: 0.88, 10: 0.92, 20: 0.92}  # six seeds, half of them censored: 91 in 100, less three standard errors


def tables(gaps, unit=1.0):
    """Tables of {(dataset, method, seed): oracle gaps look by look}: the k-th has cost k unit; None failed."""
    runs, looks = [], []
    for (dataset, method, seed), values in gaps.items():
        run = {"dataset": dataset, "method": method, "seed": seed}
        runs.append({**run, "role": ROLES.get(method, "method"), "status": "failed" if values is None else "done"})
        for k, value in enumerate(values or [], 1):
            look = {"checkpoint": k, "metric": "oracle_gap", "value": value, **dict.fromkeys(AXES, k * unit)}
            looks.append({**run, **look})
    columns = ["dataset", "method", "seed", "checkpoint", "metric", "value", *AXES]
    return pd.DataFrame(looks, columns=columns), pd.DataFrame(runs)


def one(found, **where):
    chosen = found
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


# The median under censoring


@pytest.mark.parametrize("seed", range(30))
def test_the_median_is_that_of_scipys_kaplan_meier_curve(seed):
    random = np.random.default_rng(seed)
    costs, missed = random.integers(1, 12, 9).astype(float), random.random(9) < 0.35
    data = stats.CensoredData(uncensored=costs[~missed], right=costs[missed])
    curve = stats.ecdf(data).sf
    below = [curve.quantiles[curve.probabilities < 0.5 + sign * 1e-9] for sign in (1, -1)]
    first, second = (float(where[0]) if len(where) else math.inf for where in below)
    assert survival_median(np.where(missed, -costs, costs)) == (first + second) / 2


@pytest.mark.parametrize("seeds", [1, 2, 7, 8])
def test_without_censoring_it_is_the_median(seeds):
    costs = np.random.default_rng(0).standard_exponential((5, seeds))
    assert survival_median(costs) == pytest.approx(np.median(costs, axis=-1))


def test_the_median_by_hand():
    assert survival_median(np.array([1.0, -2.0, 3.0, 4.0])) == 3  # shares left: 3/4, 3/4, 3/8
    assert survival_median(np.array([1.0, 2.0, -3.0, -4.0])) == math.inf  # a half is never seen to be passed
    assert survival_median(np.array([-1.0, -1.0, -1.0])) == math.inf
    assert survival_median(np.array([2.0, -2.0, 2.0])) == 2  # who reaches it at 2 was still in at 2
    assert survival_median(np.array([0.0, 0.0, -0.0])) == 0  # nothing spent, and it is there


@pytest.mark.parametrize("seeds", LEAST)
@pytest.mark.parametrize("limit", [1.0, 2.0, 4.0])
def test_its_interval_covers_the_truth_with_up_to_half_of_the_seeds_censored(monkeypatch, limit, seeds):
    monkeypatch.setattr(cost_to_target, "CURVE_RESAMPLES", 299)
    random = np.random.default_rng(2)
    costs = random.standard_exponential((STUDIES, seeds))
    totals = limit * random.standard_exponential((STUDIES, seeds))
    low, high = _interval(np.where(costs <= totals, costs, -totals))
    assert LEAST[seeds] < ((low <= math.log(2)) & (math.log(2) <= high)).mean() < 1


def test_taking_totals_for_costs_would_not():
    random = np.random.default_rng(2)
    costs, totals = random.standard_exponential((2, STUDIES, 10))
    low, high = _interval(np.minimum(costs, totals))
    assert ((low <= math.log(2)) & (math.log(2) <= high)).mean() < 0.8


def test_at_equal_cost_seeds_that_reach_it_come_before_censored_ones():
    """As two sorts would have it, whatever the costs: none at all, whole numbers beyond 2^52, infinite."""
    random = np.random.default_rng(0)
    sizes = np.array([0.0, 5e-324, 1.0, np.nextafter(1.0, 2.0), 2.0**53, 2.0**53 + 2, 1e150, np.inf])
    costs = random.choice(sizes, (40, 3, 25)) * random.choice([1.0, -1.0], (40, 3, 25))
    missed, spent = _by_cost(costs)
    order = np.lexsort((np.signbit(costs), np.abs(costs)), axis=-1)
    np.testing.assert_array_equal(missed, np.take_along_axis(np.signbit(costs), order, -1))
    np.testing.assert_array_equal(spent, np.take_along_axis(np.abs(costs), order, -1))


# Targets


def test_the_first_look_within_delta_counts_whatever_follows():
    found = targets(*tables({("a", "m", 0): [0.5, 0.15, 0.3, 0.04], ("a", "oracle", 0): [0.0]}, 2.0))
    spent = {delta: one(found, delta=delta, cost="flops")["median"] for delta in (0.05, 0.1, 0.2)}
    assert spent == {0.05: 8, 0.1: 8, 0.2: 4}
    assert set(found["method"]) == {"m"}
    assert set(found["cost"]) == set(TARGET_COSTS)


def test_misses_are_censored_at_their_own_total():
    gaps = {("a", "m", 0): [0.1], ("a", "m", 1): [1, 1], ("a", "m", 2): [1, 1, 0.1], ("a", "m", 3): [1, 1, 1, 0.1]}
    found = one(targets(*tables(gaps)), delta=0.1, cost="wall_s")
    assert found[["median", "reached", "seeds"]].to_list() == [3, 3, 4]
    assert np.isnan(found["low"])
    never = one(targets(*tables(gaps)), delta=0.05, cost="wall_s")
    assert never[["median", "reached", "seeds"]].to_list() == [math.inf, 0, 4]


def test_one_that_arrives_after_the_others_ended_is_no_median():
    """The curve of Kaplan and Meier falls to nothing there, of one seed in seven."""
    gaps = {("a", "vae", seed): (1.0, 1.0) for seed in range(6)} | {("a", "vae", 6): (1.0, 1.0, 0.01)}
    found = one(targets(*tables(gaps)), delta=0.1, cost="flops")
    assert (found["median"], found["high"], found["reached"], found["seeds"]) == (math.inf, math.inf, 1, 7)
    assert survival_median(np.array([*[-2.0] * 6, 3.0])) == 3
    arriving = {("a", "vae", seed): (1.0, 0.01) for seed in range(4)} | {
        ("a", "vae", seed): (1.0,) for seed in (4, 5, 6)
    }
    assert one(targets(*tables(arriving)), delta=0.1, cost="flops")["median"] == 2


@pytest.mark.parametrize("unit", [1.0, 1e16])
def test_an_interval_may_be_infinite_above_and_does_not_depend_on_the_unit(unit):
    """1e16 FLOPs are no more than a large network spends."""
    gaps = {("a", "m", seed): [1.0] * seed + [0.1 if seed < 5 else 1.0] for seed in range(8)}
    found = one(targets(*tables(gaps, unit)), delta=0.1, cost="flops")
    assert found["median"] == 4.5 * unit
    assert 0 < found["low"] < found["median"]
    assert found["high"] == math.inf
    everyone = {("a", "m", seed): [1.0] * seed + [0.1] for seed in range(8)}
    assert one(targets(*tables(everyone, unit)), delta=0.1, cost="flops")["high"] <= 8 * unit


def test_methods_with_fewer_seeds_do_not_disturb_the_others():
    gaps = {("a", "m", seed): [1.0] * seed + [0.1] for seed in range(8)}
    alone = targets(*tables(gaps))
    more = targets(*tables(gaps | {("a", "n", 3): [0.1], ("a", "k", 0): None}))
    pd.testing.assert_frame_equal(more[more["method"] == "m"].reset_index(drop=True), alone)
    assert one(more, method="n", delta=0.1, cost="flops")["seeds"] == 1


# Profiles


def test_a_profile_by_hand():
    gaps = {("a", "m", 0): [0.1], ("a", "n", 0): [1, 0.1], ("a", "m", 1): [1, 1, 1, 0.1], ("a", "n", 1): [0.1]}
    gaps |= {("b", "m", 0): [0.1], ("b", "n", 0): [0.1], ("b", "m", 1): [0.1], ("b", "n", 1): None}
    found = profile(*tables(gaps))
    # m: ratios 1, 4 and 1, 1; n: ratios 2, 1 and 1, infinite
    assert at(found, "m", 1.0) == 0.75
    assert at(found, "m", 4.0) == 1.0
    assert at(found, "n", 1.0) == 0.5
    assert at(found, "n", 4.0) == 0.75


def at(found, method, tau):
    """rho at the first grid point from tau on."""
    rows = found[(found["method"] == method) & (found["tau"] >= tau)]
    return rows.sort_values("tau")["rho"].iloc[0]


def test_nobody_solves_what_nobody_solves():
    found = profile(*tables({("a", "m", 0): [1.0], ("a", "n", 0): None, ("a", "m", 1): [0.1], ("a", "n", 1): [0.1]}))
    assert (found["rho"] == 0.5).all()


def test_profiles_rise_stay_within_their_bands_and_ignore_the_unit():
    random = np.random.default_rng(0)
    gaps = {
        (dataset, method, seed): [1.0] * int(random.integers(0, 9)) + [0.1 if random.random() < 0.8 else 1.0]
        for dataset in "ab"
        for method in "mnk"
        for seed in range(8)
    }
    found = profile(*tables(gaps))
    assert (found["low"] <= found["rho"]).all()
    assert (found["rho"] <= found["high"]).all()
    assert (found["low"] < found["high"]).any()
    for _, rows in found.groupby("method"):
        assert rows["tau"].is_monotonic_increasing
        assert rows["rho"].is_monotonic_increasing
    pd.testing.assert_frame_equal(profile(*tables(gaps, 1e9)), found)
