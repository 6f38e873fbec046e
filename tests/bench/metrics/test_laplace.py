"""Mixtures at the modes of posteriors, against closed forms, quadrature and their own density."""

import math

import pytest
import torch
from scipy.stats import multivariate_t

from bench.metrics import TrueModel, laplace
from bench.metrics.importance import importance_log_prob
from bench.metrics.laplace import LaplaceMixture, _log_student
from datasets.base import Problem, draw
from datasets.linear import linear_gaussian
from datasets.manifold import manifold


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def estimate(problem, n, draws=1000):
    x = draw(problem, 0, 1, 1, n).test
    model = TrueModel(problem)
    return x, importance_log_prob(model, LaplaceMixture(model, problem.latent_dim), x, draws, seeded(1))


@pytest.mark.parametrize("latent", [1, 3, 8])
def test_a_linear_model_is_scored_as_in_closed_form_and_its_errors_hold(latent):
    problem = linear_gaussian(latent)
    x, found = estimate(problem, 300)
    off = (found.value - problem.log_prob(x).value) / found.error
    assert found.error.max() < 0.03
    assert 0.85 < float(off.square().mean().sqrt()) < 1.15
    assert found.khat.max() < 0


@pytest.mark.parametrize(("data", "noise"), [(50, 1.0), (50, 0.2), (10, 0.5)])
def test_a_curved_model_is_scored_as_by_quadrature(data, noise):
    problem = manifold(2, data_dim=data, noise_variance=noise)
    x, found = estimate(problem, 60)
    exact = problem.log_prob(x)
    good = found.khat < 0.7
    assert good.double().mean() > 0.85
    off = ((found.value - exact.value) / (found.error + exact.error))[good]
    assert 0.6 < float(off.square().mean().sqrt()) < 1.4
    assert abs(float((found.value - exact.value).mean())) < 0.02


def test_posteriors_narrow_in_high_dimension_are_scored_as_in_closed_form():
    problem = linear_gaussian(4, 784, 0.01)
    x, found = estimate(problem, 40, draws=200)
    off = (found.value - problem.log_prob(x).value) / found.error
    assert found.error.max() < 0.05
    assert 0.6 < float(off.square().mean().sqrt()) < 1.4


def test_both_modes_are_found():
    problem = Problem("absolute", 3, 3, 0.01, torch.abs)
    x = torch.tensor([[1.0, 1.5, 0.7], [2.0, 0.6, 1.1]], dtype=torch.float64)
    z, _ = LaplaceMixture(TrueModel(problem), 3).sample(x, 4000, seeded(0))
    modes = (z > 0).double() @ torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    # Four starts: at most four of the eight modes, and more than one.
    assert all(1 < len(column.unique()) <= 4 for column in modes.T)
    assert ((z.abs() - x).abs().mean(0) < 0.2).all()


def test_draws_have_the_density_that_is_stated():
    """The mean over draws of 1 / q on a box is the box's volume."""
    problem = manifold(2, data_dim=10, noise_variance=2.0)
    x = draw(problem, 0, 1, 1, 4).test
    z, log_q = LaplaceMixture(TrueModel(problem), 2).sample(x, 200_000, seeded(3))
    centre = z.median(0).values
    inside = ((z - centre).abs() < 0.3).all(-1)
    each = torch.where(inside, (-log_q).exp(), 0.0)
    off = (each.mean(0) - 0.36) / (each.std(0) / math.sqrt(len(each)))
    assert off.abs().max() < 4
    assert (each.std(0) / math.sqrt(len(each))).max() < 0.01


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_density_of_t_is_that_of_scipy(dim):
    z = torch.randn(50, dim, generator=seeded(0), dtype=torch.float64)
    expected = multivariate_t(torch.zeros(dim).numpy(), torch.eye(dim).numpy(), df=8).logpdf(z.numpy())
    assert _log_student(z.square().sum(1), dim).tolist() == pytest.approx(expected)


def test_points_are_taken_in_groups(monkeypatch):
    problem = linear_gaussian(3)
    monkeypatch.setattr(laplace, "VALUES_AT_ONCE", 4 * 4 * 4 * 7)
    x, found = estimate(problem, 45)
    off = (found.value - problem.log_prob(x).value) / found.error
    assert 0.6 < float(off.square().mean().sqrt()) < 1.4


def test_a_decoder_that_overflows_gives_no_exception():
    class Steep:
        def decode(self, z):
            return (z.double() * 400).exp()

        def variance(self):
            return 1.0

    found = importance_log_prob(Steep(), LaplaceMixture(Steep(), 2), torch.zeros(5, 2), 100, seeded(0))
    assert found.value.shape == (5,)
