"""The polish: what it starts from, what it climbs, and what it reaches."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from bench.fit.flop_counter import CountingLedger
from datasets.quadrature import log_marginal
from methods.common.latent_grid import codebook
from methods.common.mixture_likelihood import maximise_likelihood
from methods.contract.method import NullLedger
from methods.mapa import MAPA
from methods.mapa.polish import PolishedMAPA

LINEAR = {"activation": "linear"}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted(make_task):
    """The task of a fit to the circle, and the last of what the fit yielded."""
    task = make_task("circle", 80)
    *_, last = PolishedMAPA(steps=60, codes=1000, polish_steps=60).fit(task)
    return task, last


def test_the_polish_climbs_the_exact_likelihood_of_the_model(fitted):
    task, last = fitted
    *_, reached = maximise_likelihood(task.model, task.train, codebook(2000, 1), NullLedger(), 1, 0.0)
    with torch.no_grad():
        exact = log_marginal(last.model.decode, last.model.variance(), task.train.double(), 1, 1e-4)
    assert exact.value.mean() == pytest.approx(reached, abs=2e-3)


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


@pytest.mark.parametrize("name", ["circle", "s_curve"])
def test_it_yields_what_mapa_does_and_then_after_each_step(name, make_task):
    few = {"steps": 20, "trial_steps": 5, "releases": 0}
    own = list(MAPA(**few).fit(make_task(name)))
    task = make_task(name)
    fit = PolishedMAPA(**few, polish_steps=7).fit(task)
    *_, handed_over = itertools.islice(fit, len(own))
    assert all(
        torch.equal(a, b) for a, b in zip(own[-1].model.parameters(), handed_over.model.parameters(), strict=True)
    )
    assert [each.model for each in fit] == [task.model] * 8  # once more after the look at the end


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
