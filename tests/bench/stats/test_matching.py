"""The cost to match, by hand."""

import math

import pandas as pd
import pytest

from bench.stats.matching import SLACK, cost_to_come_near, cost_to_match


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


def test_the_slack_spares_the_last_hundredth_of_a_nat():
    """The other ends at -1, having had -1.005 at half of its cost; so had this one at its second look."""
    late = looks((-2, -1.005, -1.003, -1), wall=10.0, flops=100.0)
    found = cost_to_match(looks((-5, -1.009, -1.0)), late, [0])
    assert (found.flops, found.passage) == (20 / 200, 0.5)
    assert SLACK == 0.01


def test_the_cost_to_come_near_the_truth_by_hand():
    mine, theirs = looks((-3, -1.2, -1.05), (-3, -2, -2)), looks((-1.3, -1.1), (-2, -1.5), flops=100.0)
    truth = pd.Series({0: -1.0, 1: -1.0})
    near = {d: cost_to_come_near(mine, theirs, truth, d, [0, 1]) for d in (0.05, 0.2, 0.6, 5.0)}
    assert near[0.2].flops_ratios == (20 / 200, math.inf)
    assert (near[0.05].flops_ratios[0], near[0.05].reached, near[0.05].open, near[0.05].neither) == (0.0, 1, 1, True)
    assert near[0.6].flops_ratios == (20 / 100, math.inf)
    assert near[5.0].flops_ratios == (0.1, 0.1)


def test_where_neither_comes_near_the_truth_the_cost_is_unknown_unless_the_method_usually_misses():
    truth = pd.Series(-1.0, index=range(5))
    arrives, misses = (-3, -1.0), (-3, -2)
    usual = cost_to_come_near(looks(*[arrives] * 3, *[misses] * 2), looks(*[arrives] * 4, misses), truth, 0.1, range(5))
    seldom = cost_to_come_near(
        looks(*[arrives] * 2, *[misses] * 3), looks(*[arrives] * 3, *[misses] * 2), truth, 0.1, range(5)
    )
    assert (usual.flops_ratios[3], math.isnan(usual.flops_ratios[4]), usual.flops) == (math.inf, True, 1.0)
    assert (seldom.flops_ratios[3:], seldom.flops, seldom.usual) == ((math.inf, math.inf), math.inf, False)
