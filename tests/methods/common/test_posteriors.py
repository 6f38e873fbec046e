"""Posterior families: their draws, and the densities that they state of them."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Independent, Normal
from torch.special import ndtri

from methods.common.latent_grid import GridPosterior, LatentGrid
from methods.common.posteriors import Prior, build_encoder


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def standard_normal(z):
    return Independent(Normal(torch.zeros_like(z), 1.0), 1).log_prob(z)


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_prior_is_standard_normal(latent):
    z, log_q = Prior(latent).sample(torch.zeros(2000, 3), 10, generator())
    assert z.shape == (10, 2000, latent)
    torch.testing.assert_close(log_q, standard_normal(z))
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("data", ["circle", "s_curve"])
def test_diagonal_gaussian_is_that_of_torch(make_task, data):
    task = make_task(data)
    posterior = build_encoder(task.model, task.generator)
    x = task.train[:4]
    with torch.no_grad():
        z, log_q = posterior.sample(x, 4000, generator())
        mean, log_scale = posterior.moments(x)
    assert not torch.allclose(log_scale, torch.zeros(()))
    q = Independent(Normal(mean, log_scale.exp()), 1)
    torch.testing.assert_close(log_q, q.log_prob(z), rtol=1e-4, atol=1e-4)
    standard = (z - mean) / log_scale.exp()
    assert kstest(standard.flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("data", ["circle", "s_curve"])
def test_every_density_at_every_code_is_that_of_torch(make_task, data):
    task = make_task(data)
    encoder, x = build_encoder(task.model, task.generator), task.train[:5]
    z = torch.randn(7, task.latent_dim, generator=generator())
    with torch.no_grad():
        mean, log_scale = encoder.moments(x)
        found = encoder.log_prob(z, x)
    for point in range(5):
        expected = Independent(Normal(mean[point], log_scale[point].exp()), 1).log_prob(z)
        torch.testing.assert_close(found[:, point], expected, rtol=1e-4, atol=1e-4)
    assert (found - found[:, :1]).abs().max() > 1e-3
    torch.testing.assert_close(
        Prior(task.latent_dim).log_prob(z, x), standard_normal(z)[:, None].expand(7, 5), rtol=1e-5, atol=1e-5
    )


def test_draws_of_a_seed_repeat_and_those_of_another_differ(make_task):
    task = make_task("circle")
    posterior = build_encoder(task.model, task.generator)
    uniform = torch.full((3, 20), -math.log(20), dtype=torch.float64)
    grid = GridPosterior(lambda _: uniform, LatentGrid.equal(20, 1))
    for family in (posterior, grid, Prior(1)):
        first, again, other = (family.sample(task.train[:3], 5, generator(seed))[0] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("data", ["circle", "s_curve"])
def test_points_from_the_cube_are_quantiles_of_each_axis(make_task, data):
    task = make_task(data)
    x = task.train[:4]
    u = torch.rand(50, task.latent_dim, generator=generator(), dtype=torch.float64)
    encoder = build_encoder(task.model, task.generator)
    with torch.no_grad():
        mean, log_scale = encoder.moments(x)
        found = encoder.from_uniform(x, u)
    torch.testing.assert_close(
        Normal(mean, log_scale.exp()).cdf(found), u.float()[:, None].expand_as(found), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(Prior(task.latent_dim).from_uniform(x, u)[:, 2], ndtri(u).float())
