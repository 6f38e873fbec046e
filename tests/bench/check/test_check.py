"""The parts of the checks against known answers."""

import dataclasses
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from torch import nn
from torch.distributions import Normal, kl_divergence

import datasets
from bench.check import conformance
from bench.check.conformance import Check
from bench.check.ppca import highest_likelihood, linear_likelihood
from bench.check.probes import Calls, Draws, Passes
from bench.check.quality import bound_gap, density_error
from bench.check.reach import holds
from bench.check.short_fit import Limit
from bench.metrics import TrueModel
from datasets.base import draw
from methods.common.latent_grid import exact_posterior
from methods.common.posteriors import LocalGaussian
from methods.contract.decoder import standard_normal_log_prob
from methods.contract.method import Fitted, Method, Posterior

X = torch.zeros(2, 2)


class Off(Posterior):
    """A posterior whose stated log-density is off by a constant."""

    def __init__(self, posterior, by):
        self.posterior, self.by = posterior, by

    def sample(self, x, count, generator):
        z, log_q = self.posterior.sample(x, count, generator)
        return z, log_q + self.by


class Narrow(Posterior):
    """A posterior N(0, s^2) that states the density of N(0, 1)."""

    def sample(self, x, count, generator):
        z = S * torch.randn(count, len(x), 1, generator=generator)
        return z, standard_normal_log_prob(z)


S = 1.8


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_the_density_of_a_gaussian_is_that_of_its_draws(latent):
    q = LocalGaussian(torch.randn(2, latent, generator=torch.Generator().manual_seed(0)), torch.full((2, latent), -2.0))
    assert abs(density_error(q, X)) < 0.03
    assert density_error(Off(q, -0.3), X) == pytest.approx(0.3, abs=0.03)
    assert density_error(Off(q, 0.3), X) == pytest.approx(-0.3, abs=0.03)


def test_a_false_density_that_integrates_to_one_is_off_by_its_divergence():
    expected = kl_divergence(Normal(0.0, S), Normal(0.0, 1.0))
    assert density_error(Narrow(), X) == pytest.approx(float(expected), abs=0.03)


def test_the_bound_is_tight_at_the_exact_posterior_and_a_lost_constant_is_seen():
    problem = datasets.load("circle")
    x, model = draw(problem, 4, 1, 1, 50).test, TrueModel(problem)
    posterior = exact_posterior(model, 1)
    gap, error = bound_gap(Fitted(model, posterior), x, 1)
    assert -error < gap < 0.02
    gap, error = bound_gap(Fitted(model, Off(posterior, -0.3)), x, 1)
    assert gap < -error


@dataclasses.dataclass
class Linear:
    weight: torch.Tensor
    mean: torch.Tensor

    def decode(self, z):
        return z.double() @ self.weight.T + self.mean

    def variance(self):
        return NOISE


NOISE = 0.25


@pytest.mark.parametrize("latent", [1, 2])
def test_the_maximum_likelihood_is_what_an_optimiser_finds(latent):
    chance = np.random.default_rng(0)
    x = chance.normal(size=(200, latent)) @ chance.normal(size=(latent, 3)) + 0.5 * chance.normal(size=(200, 3))

    def parts(values):
        return values[:-3].reshape(3, latent), values[-3:]

    def loss(values):
        weight, mean = parts(values)
        return -multivariate_normal(mean, weight @ weight.T + NOISE * np.eye(3)).logpdf(x).mean()

    found = minimize(loss, chance.normal(size=3 * latent + 3))
    highest = highest_likelihood(x, latent, NOISE)
    assert -found.fun == pytest.approx(highest, abs=1e-6)
    linear = Linear(*map(torch.from_numpy, parts(found.x)))
    assert linear_likelihood(linear, x, latent) == pytest.approx(highest, abs=1e-6)


def test_rows_are_those_of_the_outermost_network():
    inner = nn.Linear(2, 2)
    outer = nn.Sequential(inner, nn.Tanh())
    with Passes() as passes:
        outer(torch.zeros(3, 5, 2))
        inner(torch.zeros(7, 2))
    outer(torch.zeros(100, 2))
    assert passes.through({outer, inner}) == {outer: 3 * 5, inner: 7}
    assert passes.through({inner}) == {inner: 3 * 5 + 7}
    assert passes.through({outer}) == {outer: 3 * 5}


def test_calls_out_of_torch_are_seen_and_those_of_torch_are_not():
    x = torch.ones(4, 3)
    with Calls("numpy") as calls:
        (x @ x.T).sum().item()
        torch.distributions.Normal(x, 1.0).log_prob(x)
    assert not calls.into
    assert not calls.left
    with Calls("numpy") as calls:
        (x.numpy() ** 2).sum()
        x[0].tolist()
    assert calls.left == 12 + 3
    assert calls.into


def test_draws_are_seen_by_operator():
    with Draws() as draws:
        torch.randn(3, generator=torch.Generator().manual_seed(0))
        torch.zeros(3).add(1)
    assert dict(draws.operators) == {"randn": 1}


def test_a_tensor_is_found_wherever_it_can_be_reached():
    points = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    kept = {"deep": [(lambda inner: lambda: inner)(nn.Embedding.from_pretrained(points.float()))]}
    assert holds(kept, points)
    assert not holds(kept, points + 1)


def test_a_fit_is_stopped_at_the_first_limit():
    limit = Limit(yields=3, flops=10, seconds=1)
    assert not limit.reached(2, 9, 0.9)
    assert all(limit.reached(*each) for each in ((3, 0, 0), (0, 10, 0), (0, 0, 1)))


def test_a_check_that_does_not_end_fails(monkeypatch):
    def hangs(under_test):
        time.sleep(60)

    under_test = SimpleNamespace(learns_nothing=False, method=Method)
    monkeypatch.setattr(conformance, "TIMEOUT_S", 0.1)
    before = signal.getsignal(signal.SIGALRM)
    late, next_one = conformance.run(under_test, [Check("late", hangs), Check("next", lambda _: "seen")])
    assert (late.status, late.seen[:24]) == ("fail", "not finished after 0.1 s")
    assert (next_one.status, next_one.seen) == ("pass", "seen")
    assert signal.getsignal(signal.SIGALRM) is before
