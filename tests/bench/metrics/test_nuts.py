"""Draws of the true posterior by NUTS, against the problem where it is known exactly."""

import math

import pytest
import torch

from bench.metrics import nuts
from bench.metrics.nuts import NutsDraws, nuts_draws
from bench.metrics.posterior import signal_distance_from_draws
from datasets.base import Problem, draw
from datasets.linear import linear_gaussian
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Posterior


def exact(problem, x):
    """Means (n, L) and covariance (L, L) of the posterior of a linear problem."""
    zero = problem.decoder(torch.zeros(1, problem.latent_dim, dtype=torch.float64))
    weight = problem.decoder(torch.eye(problem.latent_dim, dtype=torch.float64)) - zero
    precision = torch.eye(problem.latent_dim, dtype=torch.float64) + weight @ weight.T / problem.noise_variance
    return torch.linalg.solve(precision, weight @ (x - zero).T / problem.noise_variance).T, torch.linalg.inv(precision)


@pytest.fixture(scope="module")
def found():
    problem = linear_gaussian(3)
    x = draw(problem, 0, 1, 1, 3).test
    return problem, x, nuts_draws(problem, x, 0)


def test_chains_converge_to_the_exact_posterior(found):
    problem, x, known = found
    mean, covariance = exact(problem, x)
    assert known.converged.all()
    assert known.rhat.max() < 1.01
    assert known.ess.min() > 200
    error = covariance.diagonal().sqrt() / math.sqrt(len(known.draws))
    assert ((known.draws.mean(0) - mean).abs() < 5 * error).all()
    for i in range(len(x)):
        assert (torch.cov(known.draws[:, i].T) - covariance).abs().max() < 0.35 * covariance.diagonal().max()


def test_the_same_data_are_not_sampled_twice_and_the_global_generator_is_left_alone(found):
    problem, x, known = found
    before = torch.random.get_rng_state()
    assert nuts_draws(problem, x.clone(), 0).draws is known.draws
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rows_are_the_draws_with_their_diagnostics(found):
    _, x, known = found
    rows = known.rows()
    assert len(rows) == len(x) * len(known.draws)
    point, rhat, ess, z = rows[len(known.draws)]
    assert (point, rhat, ess) == (1, float(known.rhat[1]), float(known.ess[1]))
    assert z == known.draws[0, 1].tolist()


def test_chains_that_disagree_have_not_converged():
    """Two modes far apart, between which no chain can cross: R-hat must say so."""
    draws = torch.randn(400, 4, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws[:, ::2, 0] += 10
    known = nuts._diagnosed(draws)
    assert known.converged.tolist() == [False, True]
    assert known.rhat[0] > 1.5
    assert known.ess[0] < 20


def test_more_draws_are_taken_where_they_are_needed(monkeypatch):
    problem = Problem("two modes", 3, 3, 0.01, lambda z: torch.cat([z[..., :1].abs(), z[..., 1:]], -1))
    x = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    counts = []

    def sample(problem, x, start, count, seed):
        counts.append(count)
        return torch.randn(count, 4, len(x), 3) + torch.arange(4)[:, None, None]

    monkeypatch.setattr(nuts, "_sample", sample)
    assert not nuts_draws(problem, x, 1).converged.any()
    assert counts == list(nuts.DRAWS)


class Shifted(Posterior):
    """The exact posterior of a linear problem by draws, moved."""

    def __init__(self, problem, moved):
        self.problem, self.moved = problem, moved

    def sample(self, x, count, generator):
        mean, covariance = exact(self.problem, x)
        noise = torch.randn(count, *mean.shape, generator=generator, dtype=torch.float64)
        return mean + noise @ torch.linalg.cholesky(covariance).T + self.moved, None

    def decode(self, z):
        return self.problem.decoder(z)

    def variance(self):
        return self.problem.noise_variance


def distance(problem, x, known, moved):
    other = Shifted(problem, moved)
    (found,) = signal_distance_from_draws(Fitted(other, other), problem, known, x)
    return found


def test_signal_w2_from_draws_vanishes_for_the_oracle_and_grows_with_a_shift(found):
    problem, x, known = found
    weight = problem.decoder(torch.ones(1, 3, dtype=torch.float64)) - problem.decoder(torch.zeros(1, 3).double())
    values = []
    for moved in (0.0, 0.2, 1.0):
        each = distance(problem, x, known, moved)
        assert abs(each.value - moved * float(weight.norm())) < 4 * each.stderr + 0.05 * moved * float(weight.norm())
        values.append(each.value)
    assert values == sorted(values)
    assert each.diagnostics["rhat_max"] < 1.01
    assert each.diagnostics["not_converged"] == 0


def test_data_whose_chains_have_not_converged_are_left_out(found):
    problem, x, known = found
    rhat = known.rhat.clone()
    rhat[0] = 2.0
    draws = known.draws.clone()
    draws[:, 0] += 100
    each = distance(problem, x, NutsDraws(draws, rhat, known.ess), 0.0)
    assert each.value < 1
    assert each.diagnostics["not_converged"] == pytest.approx(1 / 3)
    assert signal_distance_from_draws(Fitted(None, Prior(3)), problem, NutsDraws(draws, rhat + 1, known.ess), x) == []
