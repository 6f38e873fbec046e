"""Binary data and counts: draws against their definition, and log p(x) against integrals by scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad_vec

import datasets
from datasets.base import Problem, draw
from datasets.quadrature import log_marginal
from likelihoods import Bernoulli, Poisson

DENSITY = {
    "bernoulli": lambda x, o: stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-o))),
    "poisson": lambda x, o: stats.poisson.logpmf(x, np.exp(o)),
}
FAMILIES = {"bernoulli": Bernoulli(), "poisson": Poisson()}


def network(latent, data, scale, seed):
    """A random decoder with one hidden layer of tanh units, the steeper the larger `scale`."""
    generator = torch.Generator().manual_seed(seed)
    first, last = (
        torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((latent + 1, 20), (20, data))
    )
    return lambda z: torch.tanh(torch.cat([scale * z, torch.ones_like(z[..., :1])], -1) @ first) @ last / 2


def integral(decode, family, x, latent):
    """log p(x) by scipy: adaptive quadrature for L = 1, the trapezoid rule on 300 x 300 nodes for L = 2."""
    if latent == 1:

        def integrand(z):
            outputs = decode(torch.tensor([[z]], dtype=torch.float64)).numpy()
            return np.exp(DENSITY[family](x.numpy(), outputs).sum(1) + 30 + stats.norm.logpdf(z))

        return np.log(quad_vec(integrand, -9, 9, epsabs=0, epsrel=1e-9, norm="max", limit=20_000)[0]) - 30
    axis = torch.linspace(-7, 7, 300, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_weight = stats.norm.logpdf(z.numpy()).sum(1) + 2 * math.log(float(axis[1] - axis[0]))
    outputs = decode(z).numpy()
    return np.array([np.logaddexp.reduce(log_weight + DENSITY[family](each, outputs).sum(1)) for each in x.numpy()])


CASES = {
    "bits on a line": ("bernoulli", 1, 20, 2.0),
    "steep bits on a line": ("bernoulli", 1, 30, 15.0),
    "counts on a line": ("poisson", 1, 20, 2.0),
    "steep counts on a line": ("poisson", 1, 10, 10.0),
    "bits on a plane": ("bernoulli", 2, 20, 1.0),
    "counts on a plane": ("poisson", 2, 20, 0.7),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    family, latent, data, scale = CASES[request.param]
    decode = network(latent, data, scale, 3)
    problem = Problem("case", latent, data, None, decode, family=family)
    x = problem.sample(6 if latent == 1 else 3, torch.Generator().manual_seed(5))
    return decode, family, latent, x, integral(decode, family, x, latent)


@pytest.mark.parametrize("tolerance", [0.1, 1e-4])
def test_log_p_agrees_with_scipy_within_its_stated_error(case, tolerance):
    decode, family, latent, x, expected = case
    found = log_marginal(decode, FAMILIES[family], x, latent, tolerance)
    gap = (found.value - torch.tensor(expected)).abs()
    assert (gap <= found.error + 1e-6).all()
    assert found.error.mean() <= tolerance


def test_scipy_sees_another_decoder(case):
    """The comparison above is not blind."""
    decode, family, latent, x, expected = case
    found = log_marginal(lambda z: 0.95 * decode(z), FAMILIES[family], x, latent)
    assert (found.value - torch.tensor(expected)).abs().mean() > 5e-3


def test_a_feature_between_nodes_is_part_of_the_error():
    """A bump so narrow that the first nodes cannot resolve it, at which x is much more probable."""

    def decode(z):
        return (3 - 40 * (100 * (z - 0.123)).square()).clamp(min=-2).expand(*z.shape[:-1], 8)

    x = torch.ones(1, 8, dtype=torch.float64)
    found = log_marginal(decode, Bernoulli(), x, 1, 1e-4)
    axis = torch.linspace(-9, 9, 400_001, dtype=torch.float64)[:, None]
    terms = Bernoulli().log_prob(x, decode(axis)) - axis[:, 0] ** 2 / 2
    expected = torch.logsumexp(terms, 0) + math.log(18 / 400_000) - math.log(2 * math.pi) / 2
    assert abs(float(found.value - expected)) <= float(found.error) + 1e-5


@pytest.mark.parametrize("name", datasets.DISCRETE)
def test_a_point_alone_is_worth_what_it_is_in_company(name):
    problem = datasets.load(name)
    x = draw(problem, 1, 1, 1, 8).test
    together, alone = problem.log_prob(x), problem.log_prob(x[5:6])
    assert abs(float(alone.value[0] - together.value[5])) <= float(alone.error[0] + together.error[5]) + 1e-9
    assert float(together.error.mean()) <= 1e-3


@pytest.mark.parametrize("name", datasets.DISCRETE)
def test_draws_have_the_mean_and_variance_of_their_family_given_their_code(name):
    problem, n = datasets.load(name), 20_000
    z, x = problem.sample_joint(n, torch.Generator().manual_seed(0))
    signal = problem.signal(z)
    variance = signal * (1 - signal) if problem.family == "bernoulli" else signal
    standard = (x - signal) / variance.sqrt()
    assert (standard.mean(0).abs() < 5 / math.sqrt(n)).all()
    off = standard.square() - 1
    assert (off.mean(0).abs() < 5 * off.std(0) / math.sqrt(n)).all()
    assert torch.cat([z, standard], 1).T.corrcoef().triu(1).abs().max() < 6 / math.sqrt(n)
    assert problem.likelihood.refuse(x) is None
    assert (problem.likelihood.name, problem.noise_variance) == (problem.family, None)
