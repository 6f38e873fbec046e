"""Which estimator of log p(x) is used where."""

import math

import pytest
import torch
from torch.distributions import Normal

from bench.metrics import TrueModel
from bench.metrics.importance import Estimate, importance_log_prob
from bench.metrics.laplace import LaplaceMixture
from bench.metrics.likelihood import by_quadrature, precisest_of, tightest, tightest_of
from datasets.base import Problem, draw
from datasets.linear import linear_gaussian
from methods.common.posteriors import Prior


def test_annealing_takes_over_where_proposals_miss_modes():
    problem = Problem("absolute", 3, 3, 0.01, torch.abs)
    x = 1 + torch.rand(80, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = 3 * math.log(2) + Normal(0, math.sqrt(1.01)).log_prob(x).sum(1)
    model = TrueModel(problem)
    proposal = LaplaceMixture(model, 3)
    missed = importance_log_prob(model, proposal, x, 1000, torch.Generator().manual_seed(0)).value
    found = tightest(model, [proposal], x, 3, 0)
    assert (missed - exact).mean() < -math.log(2)
    assert abs(float((found.value - exact).mean())) < 0.15
    assert found.diagnostics["importance_less_annealed"] < -0.5


def test_a_proposal_near_the_posterior_is_kept_and_the_better_of_two_taken():
    problem = linear_gaussian(4)
    x, model = draw(problem, 0, 1, 1, 100).test, TrueModel(problem)
    found = tightest(model, [LaplaceMixture(model, 4), Prior(4)], x, 4, 0)
    assert (found.value - problem.exact_log_prob(x)).abs().max() < 0.1
    assert found.diagnostics["laplace_less_importance"] > 0.1
    swapped = tightest(model, [Prior(4), LaplaceMixture(model, 4)], x, 4, 0)
    assert (swapped.value - problem.exact_log_prob(x)).abs().max() < 0.1


@pytest.mark.parametrize(("latent", "data", "expected"), [(1, 2, True), (2, 100, True), (2, 101, False), (3, 2, False)])
def test_where_a_grid_is_affordable(latent, data, expected):
    assert by_quadrature(latent, data) == expected


def estimate(*value, error=0.1):
    found = torch.tensor(value, dtype=torch.float64)
    return Estimate(found, torch.full_like(found, error), found, found)


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ([estimate(0, 1, 2, error=0.2), estimate(-0.1, 1.1, 1.9)], 1),
        ([estimate(-0.1, 1.1, 1.9), estimate(0, 1, 2, error=0.2)], 0),
        ([estimate(0, 1, 2, error=0.2), estimate(-0.7, 0.4, 1.4)], 0),
        ([estimate(0, 1, math.nan, error=0.0), estimate(-0.7, 0.4, 1.4)], 1),
        ([estimate(0, error=0.2), estimate(-0.4)], 1),
        ([estimate(0, error=0.2), estimate(-0.5)], 0),
        ([estimate(math.nan), estimate(math.nan)], 0),
    ],
    ids=["precise", "other order", "clearly lower", "nan", "one point", "one point clearly lower", "none"],
)
def test_the_most_precise_of_those_that_are_not_clearly_lower(each, expected):
    assert precisest_of(each) == expected
    assert expected == tightest_of(each) or each[1 - expected].error.mean() > each[expected].error.mean()
