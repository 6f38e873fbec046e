"""The problem on which everything is analytic, against scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from datasets.base import draw
from datasets.linear import linear_gaussian
from datasets.quadrature import log_marginal

CASES = [(1, 2, 0.1), (1, 1, 2.0), (1, 4, 0.001), (2, 3, 0.1), (2, 2, 0.05)]


def affine(problem):
    """W (D, L) and m (D,), read off the decoder."""
    codes = torch.cat([torch.zeros(1, problem.latent_dim), torch.eye(problem.latent_dim)]).double()
    decoded = problem.decoder(codes).numpy()
    return (decoded[1:] - decoded[0]).T, decoded[0]


@pytest.mark.parametrize(("latent", "data", "noise"), [*CASES, (5, 8, 0.1), (4, 2, 0.1)])
def test_closed_form_is_the_normal_density(latent, data, noise):
    problem = linear_gaussian(latent, data, noise)
    x = draw(problem, 0, 1, 1, 200).test
    weight, offset = affine(problem)
    expected = multivariate_normal(offset, weight @ weight.T + noise * np.eye(data)).logpdf(x.numpy())
    found = problem.log_prob(x)
    np.testing.assert_allclose(found.value.numpy(), expected, atol=1e-10)
    assert (found.error == 0).all()


@pytest.mark.parametrize(("latent", "data", "noise"), CASES)
def test_quadrature_equals_the_closed_form(latent, data, noise):
    problem = linear_gaussian(latent, data, noise)
    x = draw(problem, 0, 1, 1, 20).test
    found = log_marginal(problem.decoder, noise, x, latent, tolerance=1e-6)
    gap = (found.value - problem.log_prob(x).value).abs()
    assert gap.max() < 1e-6
    assert (gap <= found.error + 1e-10).all()
    assert found.error.mean() < 1e-6


def test_dimensions_default_to_one_and_one_more():
    assert (linear_gaussian().latent_dim, linear_gaussian().data_dim) == (1, 2)
    assert (linear_gaussian(3).latent_dim, linear_gaussian(3).data_dim) == (3, 4)


@pytest.mark.parametrize("arguments", [(0,), (1, 0), (1, 2, 0.0), (1, 2, -1.0)])
def test_what_is_not_positive_is_refused(arguments):
    with pytest.raises(ValueError, match="positive"):
        linear_gaussian(*arguments)


def test_mean_log_density_of_many_draws_is_minus_the_entropy():
    problem = linear_gaussian(3, 4)
    weight, _ = affine(problem)
    covariance = weight @ weight.T + problem.noise_variance * np.eye(4)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    n = 50_000
    found = problem.log_prob(draw(problem, 0, 1, 1, n).test).value
    assert abs(float(found.mean()) + entropy) < 4 * float(found.std()) / n**0.5
