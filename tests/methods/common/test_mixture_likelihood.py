"""The likelihood over a codebook: its value and gradient, its ascent, and the posteriors that it implies."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import datasets
import methods.common.mixture_likelihood as codebook_module
from datasets.base import draw
from datasets.quadrature import log_marginal
from methods.common.latent_grid import codebook
from methods.common.mixture_likelihood import (
    LEAST_NOISE,
    ModelPosterior,
    log_index_given_model,
    maximise_likelihood,
    mixture_log_likelihood,
)
from methods.contract.decoder import standard_normal_log_prob
from methods.contract.method import NullLedger


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ascend(task, count=500, steps=40, tolerance=-math.inf):
    """The log-likelihood after each step of an ascent."""
    grid = codebook(count, task.latent_dim)
    return np.array(list(maximise_likelihood(task.model, task.train, grid, NullLedger(), steps, tolerance)))


def marginal(model, x):
    with torch.no_grad():
        return log_marginal(model.decode, model.variance(), x.double(), model.latent_dim, 1e-4).value


@pytest.fixture(scope="module")
def learned(make_task):
    """The task of an ascent on the circle that is over."""
    task = make_task("circle", 80)
    ascend(task, count=1000, steps=100)
    return task


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_codebook_has_the_moments_of_the_prior(latent_dim):
    """Along two axes equal boxes miss 2 to 4 % of its variance."""
    grid = codebook(2000, latent_dim)
    assert float(grid.mass.sum()) == pytest.approx(1)
    assert (grid.mass > 0).all()
    mean, square = grid.mass @ grid.codes, grid.mass @ grid.codes.square()
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=2e-3, rtol=0)
    torch.testing.assert_close(square, torch.ones_like(square), atol=0.015, rtol=0)
    assert grid.codes.abs().max() > 3


@pytest.mark.parametrize("rows", [7, 256])
def test_the_objective_is_the_log_density_of_a_mixture(rows, monkeypatch):
    monkeypatch.setattr(codebook_module, "ROWS_AT_ONCE", rows)
    means, x, noise = normal(30, 3), 2 * normal(20, 3, seed=1), 0.3
    log_weights = torch.log_softmax(normal(30, seed=2), 0)
    components = Independent(Normal(means, math.sqrt(noise)), 1)
    mixture = MixtureSameFamily(Categorical(logits=log_weights), components)
    found = mixture_log_likelihood(means, torch.tensor(noise).double().log(), log_weights, x)
    torch.testing.assert_close(found, mixture.log_prob(x).mean())


@pytest.mark.parametrize("noise", [1e-3, 0.3, 5.0])
def test_its_gradient_is_that_of_its_value(noise):
    means, log_noise = normal(9, 2).requires_grad_(), torch.tensor(noise).double().log().requires_grad_()
    x = means.detach()[:6] + math.sqrt(noise) * normal(6, 2, seed=1)
    log_weights = torch.log_softmax(normal(9, seed=2), 0)
    objective = partial(mixture_log_likelihood, log_weights=log_weights, x=x)
    assert torch.autograd.gradcheck(objective, (means, log_noise), eps=1e-7)


def test_single_precision_is_enough():
    problem = datasets.load("swiss_roll")
    x, means = (part - 1 for part in (draw(problem, 0, 500, 1, 1).train, problem.decoder(normal(800, 2))))
    results = []
    for dtype in (torch.float64, torch.float32):
        m = means.to(dtype, copy=True).requires_grad_()
        log_noise = torch.tensor(problem.noise_variance, dtype=dtype).log()
        log_weights = torch.full((800,), -math.log(800))
        value = mixture_log_likelihood(m, log_noise, log_weights.to(dtype), x.to(dtype))
        value.backward()
        results.append((value.detach(), m.grad.double()))
    (exact, slope), (rounded, rounded_slope) = results
    assert abs(exact - rounded) < 1e-3
    assert (slope - rounded_slope).norm() < 2e-3 * slope.norm()


@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize("name", ["circle", "pinwheel"])
def test_no_step_lowers_the_likelihood(name, noise, make_task):
    likelihood = ascend(make_task(name, 100, noise=noise))
    assert len(likelihood) == 40
    assert (np.diff(likelihood) >= 0).all()
    assert likelihood[-1] > likelihood[0] + 0.5


def test_it_ends_when_25_steps_gain_less_than_the_tolerance(make_task):
    likelihood = ascend(make_task("circle"), steps=400, tolerance=0.2)
    gains = likelihood[25:] - likelihood[:-25]
    assert (gains[:-1] >= 0.2).all()
    assert gains[-1] < 0.2


def test_noise_does_not_vanish_where_few_data_would_let_it(make_task):
    task = make_task(normal(4, 2), noise="learned", latent_dim=1)
    least = LEAST_NOISE * float(task.model.units.scale) ** 2
    grid = codebook(200, 1)
    seen = [
        task.model.variance() for _ in maximise_likelihood(task.model, task.train, grid, NullLedger(), 400, -math.inf)
    ]
    assert min(seen) > 0.999 * least
    assert min(seen) < 100 * least


def test_the_posterior_is_that_of_the_model(learned):
    model = learned.model
    x = draw(datasets.load("circle"), 3, 1, 1, 50).test
    with torch.no_grad():
        z, log_q = ModelPosterior(model).sample(x.float(), 50, torch.Generator().manual_seed(0))
        joint = model.log_likelihood(x, z) + standard_normal_log_prob(z)
    evidence = joint - log_q
    assert (marginal(model, x) - evidence.mean(0)).mean().abs() < 0.02
    assert evidence.std(0).mean() < 0.3


def test_the_index_posterior_marginalises_the_codes_of_the_data(learned):
    """Against the integral over a uniform grid of latent space."""
    model, train = learned.model, learned.train
    x = draw(datasets.load("circle"), 3, 1, 1, 20).test
    log_index = log_index_given_model(model, train, codebook(1000, 1))
    z = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        log_likelihood = model.log_likelihood(torch.cat([x, train.double()])[:, None], z)
    likelihood = log_likelihood.exp()
    of_train = torch.softmax(log_likelihood[20:] + standard_normal_log_prob(z), 1)
    joint = likelihood[:20] @ of_train.T
    torch.testing.assert_close(
        log_index(x).exp(), joint / joint.sum(1, keepdim=True), atol=1e-3, rtol=0.05, check_dtype=False
    )


def test_the_index_posterior_follows_the_model(make_task):
    task = make_task("circle")
    log_index = log_index_given_model(task.model, task.train, codebook(100, 1))
    before = log_index(task.train)
    ascend(task, steps=10)
    assert not torch.allclose(before, log_index(task.train), atol=0.1)
