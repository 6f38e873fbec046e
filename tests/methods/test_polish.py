"""The polish: its likelihood and gradient, its ascent, and what it hands on."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import datasets
from bench.cost import CountingLedger
from datasets.base import draw
from datasets.quadrature import log_marginal
from methods.base import FreeLedger
from methods.mapa import MAPA, polish
from methods.mapa.polish import LEAST_NOISE, PolishedMAPA, codebook, log_index_given_model, mixture_log_likelihood
from methods.model import standard_normal_log_prob

LINEAR = {"hidden": (), "activation": "linear"}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ascend(task, count=500, steps=40, tolerance=-math.inf):
    """The log-likelihood after each step of a polish."""
    cells = codebook(count, task.latent_dim)
    return np.array(list(polish.polish(task.model, task.train, cells, FreeLedger(), steps, tolerance)))


def marginal(model, x):
    with torch.no_grad():
        return log_marginal(model.decode, model.variance(), x.double(), model.latent_dim, 1e-4).value


@pytest.fixture(scope="module")
def fitted(make_task):
    """The task of a fit to the circle, and the last of what the fit yielded."""
    task = make_task("circle", 80)
    *_, last = PolishedMAPA(steps=60, codes=1000, polish_steps=60).fit(task)
    return task, last


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_codebook_has_the_moments_of_the_prior(latent_dim):
    """Along two axes equal boxes miss 2 to 4 % of its variance."""
    cells = codebook(2000, latent_dim)
    assert float(cells.mass.sum()) == pytest.approx(1)
    assert (cells.mass > 0).all()
    mean, square = cells.mass @ cells.codes, cells.mass @ cells.codes.square()
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=2e-3, rtol=0)
    torch.testing.assert_close(square, torch.ones_like(square), atol=0.015, rtol=0)
    assert cells.codes.abs().max() > 3


@pytest.mark.parametrize("rows", [7, 256])
def test_the_objective_is_the_log_density_of_a_mixture(rows, monkeypatch):
    monkeypatch.setattr(polish, "ROWS_AT_ONCE", rows)
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
        log_noise, log_weights = torch.tensor(problem.noise, dtype=dtype).log(), torch.full((800,), -math.log(800))
        value = mixture_log_likelihood(m, log_noise, log_weights.to(dtype), x.to(dtype))
        value.backward()
        results.append((value.detach(), m.grad.double()))
    (exact, slope), (rounded, rounded_slope) = results
    assert abs(exact - rounded) < 1e-3
    assert (slope - rounded_slope).norm() < 2e-3 * slope.norm()


def test_the_polish_climbs_the_exact_likelihood_of_the_model(fitted):
    task, last = fitted
    reached = ascend(task, count=2000, steps=1)[-1]
    assert marginal(last.model, task.train).mean() == pytest.approx(reached, abs=2e-3)


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


def reached(model, x):
    codes = torch.cat([torch.zeros(1, model.latent_dim), torch.eye(model.latent_dim)])
    with torch.no_grad():
        decoded = model.decode(codes).double().numpy()
    weight = (decoded[1:] - decoded[0]).T
    covariance = weight @ weight.T + model.variance() * np.eye(len(weight))
    return float(multivariate_normal(decoded[0], covariance).logpdf(x).mean())


def best(x, latent, noise):
    """The greatest log-likelihood of probabilistic PCA (Tipping & Bishop 1999), and the noise, learned for None."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:-latent].mean() if noise is None else noise
    values[:-latent] = noise
    covariance = (vectors * values.clip(noise)) @ vectors.T
    return float(multivariate_normal(x.mean(0), covariance).logpdf(x).mean()), noise


@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize("latent", [1, 2])
def test_a_linear_model_reaches_the_maximum_of_probabilistic_pca(latent, noise, make_task):
    weight = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 0.7, 0.5, 1.0]])[:latent].double()
    x = normal(150, latent) @ weight + 3 + 0.4 * normal(150, 4, seed=1)
    task = make_task(x, noise=0.16 if noise == "known" else noise, latent_dim=latent, **LINEAR)
    *_, last = PolishedMAPA(
        steps=20, trial_steps=5, noise_rounds=1, codes=1000, polish_steps=80, polish_tolerance=1e-5
    ).fit(task)
    highest, best_noise = best(task.train.double().numpy(), latent, None if noise == "learned" else 0.16)
    assert highest - 1e-3 < reached(last.model, task.train.double().numpy()) < highest + 1e-6
    assert last.model.variance() == pytest.approx(best_noise, rel=0.02)


def test_noise_does_not_vanish_where_few_data_would_let_it(make_task):
    task = make_task(normal(4, 2), noise="learned", latent_dim=1)
    least = LEAST_NOISE * float(task.model.units.scale) ** 2
    cells = codebook(200, 1)
    seen = [task.model.variance() for _ in polish.polish(task.model, task.train, cells, FreeLedger(), 400, -math.inf)]
    assert min(seen) > 0.999 * least
    assert min(seen) < 100 * least


def test_the_posterior_is_that_of_the_model(fitted):
    task, last = fitted
    x = draw(datasets.load("circle"), 3, 1, 1, 50).test
    with torch.no_grad():
        z, log_q = last.posterior.sample(x.float(), 50, torch.Generator().manual_seed(0))
        joint = task.model.log_likelihood(x, z) + standard_normal_log_prob(z)
    evidence = joint - log_q
    assert (marginal(last.model, x) - evidence.mean(0)).mean().abs() < 0.02
    assert evidence.std(0).mean() < 0.3


def test_the_index_posterior_marginalises_the_codes_of_the_data(fitted):
    """Against the integral over a uniform grid of latent space."""
    task, last = fitted
    x, train = draw(datasets.load("circle"), 3, 1, 1, 20).test, task.train
    z = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        log_likelihood = task.model.log_likelihood(torch.cat([x, train.double()])[:, None], z)
    likelihood = log_likelihood.exp()
    of_train = torch.softmax(log_likelihood[20:] + standard_normal_log_prob(z), 1)
    joint = likelihood[:20] @ of_train.T
    torch.testing.assert_close(
        last.log_index(x).exp(), joint / joint.sum(1, keepdim=True), atol=1e-3, rtol=0.05, check_dtype=False
    )


def test_the_index_posterior_follows_the_model(make_task):
    task = make_task("circle")
    log_index = log_index_given_model(task.model, task.train, codebook(100, 1))
    before = log_index(task.train)
    ascend(task, steps=10)
    assert not torch.allclose(before, log_index(task.train), atol=0.1)


@pytest.mark.parametrize("name", ["circle", "s_curve"])
def test_it_yields_what_mapa_does_and_then_after_each_step(name, make_task):
    few = {"steps": 20, "trial_steps": 5}
    own = list(MAPA(**few).fit(make_task(name)))
    task = make_task(name)
    fit = PolishedMAPA(**few, polish_steps=7).fit(task)
    *_, handed_over = itertools.islice(fit, len(own))
    assert all(
        torch.equal(a, b) for a, b in zip(own[-1].model.parameters(), handed_over.model.parameters(), strict=True)
    )
    assert [each.model for each in fit] == [task.model] * 7


def test_the_account_tells_the_polish_from_mapas_own_fit(make_task):
    ledger = CountingLedger()
    fit = PolishedMAPA(steps=20, trial_steps=5, polish_steps=5).fit(make_task("circle", ledger=ledger))
    ledger.start()
    for _ in fit:
        pass
    ledger.stop()
    cost = {work.name: work.flops / work.calls for work in ledger.account()}
    assert cost["likelihood"] > 10 * cost["loss"]


def test_more_than_two_latent_dimensions_are_left_out():
    assert "2 latent" in PolishedMAPA().skip(3, 5, 100)
    assert PolishedMAPA().skip(2, 5, 100) is None
    assert PolishedMAPA().skip(1, 5, 100) is None
