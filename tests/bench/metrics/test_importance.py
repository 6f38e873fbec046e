"""Importance sampling against closed forms and quadrature; its diagnostics against theory and against Pyro."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.distributions import MultivariateNormal

from bench.metrics import importance
from bench.metrics.importance import importance_log_prob, pareto_shape
from datasets.linear import linear_gaussian
from datasets.quadrature import log_marginal
from methods.common.posteriors import Prior
from methods.contract.decoder import build_model
from methods.contract.method import Posterior


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Linear:
    """The model of linear_gaussian."""

    latent_dim: int

    @property
    def problem(self):
        return linear_gaussian(self.latent_dim)

    def decode(self, z):
        return self.problem.decoder(z.double())

    def variance(self):
        return self.problem.noise_variance


@dataclass(frozen=True)
class Near(Posterior):
    """The exact posterior of a linear model, with its deviations in all directions multiplied."""

    model: Linear
    widened: float = 1.0

    def sample(self, x, count, generator):
        offset = self.model.decode(torch.zeros(1, self.model.latent_dim))[0]
        weight = self.model.decode(torch.eye(self.model.latent_dim)) - offset
        precision = torch.eye(len(weight)) + weight @ weight.T / self.model.variance()
        mean = torch.linalg.solve(precision, weight @ (x - offset).T / self.model.variance()).T
        q = MultivariateNormal(mean, precision_matrix=precision.expand(len(x), -1, -1) / self.widened**2)
        noise = torch.randn(count, *mean.shape, generator=generator, dtype=torch.float64)
        z = mean + noise @ q.scale_tril[0].T
        return z, q.log_prob(z)


def estimate(latent_dim, draws, widened=1.0, n=200):
    model = Linear(latent_dim)
    x = model.problem.sample(n, seeded(1))
    found = importance_log_prob(model, Near(model, widened), x, draws, seeded(2))
    return found, found.value - model.problem.exact_log_prob(x)


@pytest.mark.parametrize("latent_dim", [1, 8])
def test_exact_to_rounding_from_the_exact_posterior(latent_dim):
    found, off = estimate(latent_dim, draws=50)
    assert off.abs().max() < 1e-9
    assert found.error.max() < 1e-9
    assert found.ess.sub(50).abs().max() < 1e-6
    assert not found.khat.any()


@pytest.mark.parametrize("widened", [0.85, 1.3])
def test_the_mean_weight_is_unbiased_and_its_log_a_lower_bound(widened):
    _, off = estimate(4, draws=4, widened=widened, n=20_000)
    ratio = off.exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(ratio))
    assert ratio.std() / math.sqrt(len(ratio)) < 0.01
    assert off.mean() < -4 * off.std() / math.sqrt(len(off))


def test_the_error_covers_at_its_nominal_rate_where_the_posterior_is_good():
    found, off = estimate(8, draws=1000, widened=1.2, n=2000)
    assert found.khat.quantile(0.99) < 0.5
    for deviations, nominal in ((1, 0.683), (2, 0.954)):
        covered = (off.abs() < deviations * found.error).double().mean()
        assert abs(covered - nominal) < 4 * math.sqrt(nominal * (1 - nominal) / len(off))
    assert abs((off + found.error.square() / 2).mean()) < 4 * off.std() / math.sqrt(len(off))


def test_a_posterior_that_is_too_narrow_is_found_out():
    found, off = estimate(8, draws=5000, widened=0.3)
    assert (found.khat > 0.7).all()
    assert off.mean() < -2
    assert (off.abs() > 2 * found.error).double().mean() > 0.9


@pytest.mark.parametrize("narrowed", [0.5, 0.7, 0.9])
def test_the_tail_of_a_gaussian_that_is_too_narrow_has_the_shape_that_theory_gives(narrowed):
    # P(z^2 > s) falls as exp(-s / 2 narrowed^2) where w grows as exp(s (1 / narrowed^2 - 1) / 2): k = 1 - narrowed^2.
    z = narrowed * normal(1_000_000, 4)
    assert pareto_shape(z.square() / 2 * (1 / narrowed**2 - 1)).sub(1 - narrowed**2).abs().max() < 0.1


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("draws", [30, 1000])
def test_the_shape_of_each_point_is_that_of_pyro(draws, scale):
    from pyro.ops.stats import fit_generalized_pareto  # takes a second or two

    log_weight = scale * normal(draws, 40)
    tail = math.ceil(min(draws / 5, 3 * math.sqrt(draws)))
    weight = log_weight.sub(log_weight.amax(0)).exp().sort(0).values
    each = [fit_generalized_pareto(w[-tail:] - w[-tail - 1])[0] for w in weight.T]
    assert torch.allclose(pareto_shape(log_weight), torch.tensor(each, dtype=torch.float64), atol=1e-9)


def test_tails_that_no_distribution_fits():
    log_weight = torch.zeros(1000, 6).double()
    log_weight[:, 1] += 1e-7 * normal(1000)
    log_weight[:, 2] = 1e5 * normal(1000)
    log_weight[10:, 3] = -math.inf
    log_weight[5, 4] = math.nan
    log_weight[:, 5] = -math.inf
    shape = pareto_shape(log_weight)
    assert shape[:4].tolist() == [0, 0, math.inf, math.inf]
    assert shape[4:].isnan().all()
    assert pareto_shape(normal(20, 3)).isnan().all()


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_agrees_with_quadrature_on_a_network(noise):
    model = build_model(normal(100, 3).float(), 2, noise, seeded(3))
    with torch.no_grad():
        for layer in (model.network[0], model.network[2], model.network[4]):
            layer.weight.mul_(3)
        x = model.decode(normal(60, 2, seed=1)) + math.sqrt(noise) * normal(60, 3, seed=2)
    truth = log_marginal(model.decode, noise, x, 2)
    found = importance_log_prob(model, Prior(2), x, 20_000, seeded(4))
    off = (found.value - truth.value) / (found.error + truth.error)
    assert found.error.median() < 0.1
    assert 0.8 < off.square().mean().sqrt() < 1.25
    assert not found.value.requires_grad


def test_groups_of_points_do_not_change_the_estimate(monkeypatch):
    class Fixed(Posterior):
        def sample(self, x, count, generator):
            return (x.mean(1, keepdim=True) + normal(count, 1, 1)), torch.zeros(count, len(x)).double()

    x = linear_gaussian(1).sample(23, seeded(1))
    whole = importance_log_prob(Linear(1), Fixed(), x, 30, seeded(0))
    monkeypatch.setattr(importance, "ROWS_AT_ONCE", 150)
    parts = importance_log_prob(Linear(1), Fixed(), x, 30, seeded(0))
    for name in ("value", "error", "ess", "khat"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12)


def test_needs_two_draws():
    with pytest.raises(ValueError, match="at least 2 draws for an error, got 1"):
        estimate(1, draws=1)
