"""Gaussians fitted to each datum, against the linear model, where the best one is known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from bench.metrics import TrueModel
from datasets.base import draw
from datasets.linear import linear_gaussian
from methods.common.local_gaussian import _elbo, laplace, maximise_elbo, nodes_of_normal, spread_codes
from methods.common.posteriors import LocalGaussian, PerDatumGaussian, Prior, build_encoder


def exact(problem, x):
    """The exact posterior of a linear problem: means (n, L) and precision (L, L)."""
    zero = problem.decoder(torch.zeros(1, problem.latent_dim, dtype=torch.float64))
    weight = problem.decoder(torch.eye(problem.latent_dim, dtype=torch.float64)) - zero  # (L, D)
    precision = torch.eye(problem.latent_dim, dtype=torch.float64) + weight @ weight.T / problem.noise_variance
    return torch.linalg.solve(precision, weight @ (x - zero).T / problem.noise_variance).T, precision


@pytest.fixture(params=[1, 2, 3])
def linear(request):
    problem = linear_gaussian(request.param)
    return problem, draw(problem, 0, 1, 1, 20).test


def test_the_best_gaussian_has_the_mean_and_the_precision_along_each_axis_of_the_exact_one(linear):
    """Of diagonal Gaussians the one of least KL(q || p) has p's mean and its conditional variances."""
    problem, x = linear
    expected, precision = exact(problem, x)
    found = PerDatumGaussian(TrueModel(problem), problem.latent_dim)
    mean, log_scale = found.moments(x)
    scale = precision.diagonal().rsqrt()
    assert ((mean - expected).abs() < 0.01 * scale).all()
    torch.testing.assert_close(log_scale.exp(), scale.expand_as(mean), rtol=0.01, atol=0)


def test_the_gap_that_is_left_is_that_of_the_family(linear):
    """KL = (sum of log precisions along the axes - log det) / 2, which is 0 for L = 1."""
    problem, x = linear
    mean, precision = exact(problem, x)
    q_mean, log_scale = PerDatumGaussian(TrueModel(problem), problem.latent_dim).moments(x)
    p = MultivariateNormal(mean, precision_matrix=precision)
    q = MultivariateNormal(q_mean, scale_tril=torch.diag_embed(log_scale.exp()))
    family = (precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    assert (kl_divergence(q, p) - family).abs().max() < 5e-3
    assert (problem.latent_dim == 1) == (abs(float(family)) < 1e-9)


@pytest.mark.parametrize("start", [(-3.0, 0.0), (0.3, -2.0)])
def test_ascent_finds_the_best_from_afar(start):
    problem = linear_gaussian(1)
    x = draw(problem, 0, 1, 1, 20).test
    expected, precision = exact(problem, x)
    first = tuple(torch.full((20, 1), value, dtype=torch.float64) for value in start)
    mean, _ = maximise_elbo(TrueModel(problem), x, (expected + first[0], first[1]))
    assert ((mean - expected).abs() < 0.1 * precision.rsqrt()).all()


def test_no_start_is_made_worse_and_the_best_of_several_is_kept():
    problem = linear_gaussian(2)
    x = draw(problem, 0, 1, 1, 20).test
    model, nodes = TrueModel(problem), nodes_of_normal(2)
    good, bad = laplace(model, x, 2), (torch.full((20, 2), 40.0), torch.zeros(20, 2))
    both = _elbo(model, x, *maximise_elbo(model, x, bad, good), nodes)
    assert (both >= _elbo(model, x, *good, nodes)).all()
    torch.testing.assert_close(both, _elbo(model, x, *maximise_elbo(model, x, good), nodes))


def test_the_elbo_of_nodes_is_the_expected_one():
    problem = linear_gaussian(1)
    x = draw(problem, 0, 1, 1, 20).test
    expected, precision = exact(problem, x)
    q_mean, q_scale = expected + 0.1, 1.5 * precision.rsqrt()
    q = Normal(q_mean, q_scale.expand_as(q_mean))
    gap = kl_divergence(q, Normal(expected, precision.rsqrt().expand_as(expected)))[:, 0]
    found = _elbo(TrueModel(problem), x, q_mean, q_scale.log().expand_as(q_mean), spread_codes(4096, 1))
    torch.testing.assert_close(found, problem.exact_log_prob(x) - gap, atol=2e-3, rtol=0)


def test_the_encoders_best_is_no_worse_than_the_encoder(make_task):
    task = make_task("figure8")
    encoder = build_encoder(task.model, task.generator)
    best = encoder.best(task.model, task.train)
    assert isinstance(best, LocalGaussian)
    nodes = nodes_of_normal(1)
    bounds = [
        _elbo(task.model, task.train, *(m.double() for m in q.moments(task.train)), nodes) for q in (encoder, best)
    ]
    assert (bounds[1] >= bounds[0] - 1e-4).all()
    assert (bounds[1] - bounds[0]).mean() > 0.1


def test_fitting_leaves_model_and_global_generator_alone(make_task):
    task = make_task("figure8")
    before, state = [p.clone() for p in task.model.parameters()], torch.random.get_rng_state()
    PerDatumGaussian(task.model, 1).moments(task.train)
    assert all(torch.equal(a, b) for a, b in zip(before, task.model.parameters(), strict=True))
    assert all(p.grad is None for p in task.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_prior_has_but_itself():
    prior = Prior(2)
    assert prior.best(None, torch.zeros(3, 2)) is prior


def test_codes_are_spread_under_the_prior():
    codes = spread_codes(4096, 3)
    assert codes.mean(0).abs().max() < 0.01
    assert (codes.var(0) - 1).abs().max() < 0.01
    assert math.isclose(float(codes.square().sum(1).mean()), 3, rel_tol=0.01)


@pytest.mark.parametrize("latent", [1, 2, 8, 12, 13, 40])
def test_nodes_have_the_moments_of_the_normal(latent):
    nodes = nodes_of_normal(latent)
    assert nodes.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(nodes.T @ nodes / len(nodes), torch.eye(latent, dtype=torch.float64))
