"""Annealed importance sampling against closed forms and quadrature, forwards and backwards."""

import math
from dataclasses import dataclass

import pytest
import torch

from bench.metrics import ais
from bench.metrics.ais import annealed_log_prob, bidirectional
from bench.metrics.importance import importance_log_prob
from datasets import load
from datasets.base import Problem
from datasets.linear import linear_gaussian
from datasets.quadrature import log_marginal
from methods.contract.decoder import build_model, standard_normal_log_prob
from methods.contract.method import Posterior


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Truth:
    """A problem as a model."""

    problem: Problem

    def decode(self, z):
        return self.problem.decoder(z.double())

    def variance(self):
        return self.problem.noise_variance


def network(latent_dim, data_dim):
    """A decoder of 64 x 64 tanh units with large random weights."""
    model = build_model(torch.randn(100, data_dim, generator=seeded(0)), latent_dim, 0.01, seeded(1))
    with torch.no_grad():
        for layer in (model.network[0], model.network[2], model.network[4]):
            layer.weight.mul_(3)
    return model


def simulate(model, latent_dim, n):
    """Codes and the data that they gave."""
    generator = seeded(5)
    z = torch.randn(n, latent_dim, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        mean = model.decode(z).double()
    return z, mean + math.sqrt(model.variance()) * torch.randn(mean.shape, generator=generator, dtype=torch.float64)


def deviation(values, expected):
    """How many of its standard errors the mean of values is away from what is expected."""
    return float((values.mean() - expected) / values.std() * math.sqrt(len(values)))


LINEAR = Truth(linear_gaussian(8))
LINEAR_3 = Truth(linear_gaussian(3))
path = ais._Path


@pytest.mark.parametrize(("chains", "temperatures", "leapfrogs"), [(2, 60, 2), (8, 150, 1), (4, 40, 4)])
def test_mean_weights_are_unbiased_whatever_the_settings(chains, temperatures, leapfrogs):
    _, x = simulate(LINEAR, 8, 1000)
    found = annealed_log_prob(LINEAR, x, 8, seeded(1), chains, temperatures, leapfrogs)
    ratio = (found.value - LINEAR.problem.exact_log_prob(x)).exp()
    assert ratio.std() / math.sqrt(len(ratio)) < 0.1
    assert abs(deviation(ratio, 1)) < 3.5


def test_weights_from_the_posterior_are_unbiased_for_the_reciprocal():
    z, x = simulate(LINEAR, 8, 1000)
    with torch.no_grad():
        betas = ais._schedule(LINEAR, 8, 60, seeded(1))
        log_weight = ais._Path(LINEAR, x, 8, betas, 2, seeded(2)).from_posterior(z.expand(4, -1, -1))
    ratio = (log_weight + LINEAR.problem.exact_log_prob(x)).exp().mean(0)
    assert ratio.std() / math.sqrt(len(ratio)) < 0.1
    assert abs(deviation(ratio, 1)) < 3.5


@pytest.mark.parametrize("beta", [0.01, 1.0])
def test_transitions_leave_their_distribution_as_it_is(beta):
    # p(z) p(x | z)^beta is the posterior at noise s2 / beta: drawn exactly by drawing x with that noise.
    problem = linear_gaussian(3, noise_variance=0.1 / beta)
    z, x = simulate(Truth(problem), 3, 20_000)
    with torch.no_grad():
        path = ais._Path(LINEAR_3, x, 3, torch.tensor([0, beta / 2, 1]).double(), 2, seeded(1))
        state, rejected = path._at(z[None]), 0.0
        for _ in range(5):
            state, acceptance = path._move(state, torch.tensor(beta), path.scales[0])
            rejected += float(1 - acceptance.mean()) / 5
    assert rejected > 0.05
    assert (state.z[0] - z).square().mean() > 0.01 * z.square().mean()
    residual = (x - LINEAR_3.decode(state.z[0])).square() / problem.noise_variance
    for values, expected in ((residual.mean(1), 1.0), (state.z[0].square().mean(1), 1.0), (state.z[0].sum(1), 0.0)):
        assert abs(deviation(values, expected)) < 4


@pytest.mark.parametrize(
    ("model", "temperatures"),
    [(Truth(load("s_curve")), 100), (Truth(load("swiss_roll")), 100), (network(2, 3), 150)],
    ids=["s_curve", "swiss_roll", "network"],
)
def test_agrees_with_quadrature(model, temperatures):
    _, x = simulate(model, 2, 120)
    truth = log_marginal(lambda z: model.decode(z).double(), model.variance(), x, 2).value
    found = annealed_log_prob(model, x, 2, seeded(1), temperatures=temperatures)
    off = found.value - truth
    assert abs(deviation(off.exp(), 1)) < 3.5
    assert off.exp().std() / math.sqrt(len(off)) < 0.12
    assert found.error.median() < 0.5
    assert found.khat.isnan().all()


def test_the_error_is_about_right_and_tells_the_bias():
    _, x = simulate(LINEAR, 8, 400)
    found = annealed_log_prob(LINEAR, x, 8, seeded(1), chains=16)
    off = found.value - LINEAR.problem.exact_log_prob(x)
    assert 0.8 < (off.abs() < 2 * found.error).double().mean() < 0.99
    assert 0.9 < off.square().mean().sqrt() / found.error.square().mean().sqrt() < 1.4
    assert deviation(off, 0) < -3
    assert abs(deviation(off + found.error.square() / 2, 0)) < 4
    assert ((found.ess > 1) & (found.ess <= 16)).all()


def test_the_bounds_enclose_the_truth_and_close():
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance(LINEAR))
    sampling = math.sqrt(LINEAR.problem.data_dim / 2 / 300)  # of the mean of log p(x), which is a chi-squared variable
    gaps = []
    for temperatures in (20, 60, 180):
        lower, upper = bidirectional(LINEAR, 8, 300, seeded(2), temperatures=temperatures)
        assert lower.value.mean() - 3 * sampling < -entropy < upper.value.mean() + 3 * sampling
        gaps.append(upper.value - lower.value)
    assert gaps[0].mean() > 3 * gaps[1].mean() > 6 * gaps[2].mean()
    assert gaps[2].mean() < 0.3
    assert deviation(gaps[1], 0) > 3
    assert deviation(gaps[2], 0) > -3


def covariance(model):
    """Of x under a linear model."""
    offset = model.decode(torch.zeros(8))
    weight = (model.decode(torch.eye(8)) - offset).T
    return weight @ weight.T + model.variance() * torch.eye(len(weight)).double()


def test_the_bounds_close_where_no_closed_form_is_known():
    bounds = (bidirectional(network(4, 6), 4, 60, seeded(2), temperatures=temperatures) for temperatures in (30, 150))
    wide, narrow = (upper.value - lower.value for lower, upper in bounds)
    assert deviation(wide, 0) > 3
    assert narrow.mean() < wide.mean() / 2


@pytest.mark.parametrize("model", [Truth(load("s_curve")), LINEAR], ids=["quadrature", "closed form"])
def test_each_bound_of_simulated_data_is_on_its_side_of_the_truth_and_its_weights_are_unbiased(model, monkeypatch):
    seen = []
    monkeypatch.setattr(ais, "_Path", lambda *args: seen.append(args[1]) or path(*args))
    latent_dim = 8 if model is LINEAR else 2
    lower, upper = bidirectional(model, latent_dim, 100, seeded(3), temperatures=100)
    (x,) = seen
    truth = exact(model, x)
    for bound, side, most in ((lower, -1, 1.6), (upper, 1, 2.6)):  # chains of an upper bound share their start
        off = bound.value - truth
        # Weights are unbiased, backwards unless forward chains end in modes where no posterior draw is.
        assert deviation((side * -off).exp(), 1) < 3.5
        assert side > 0 or abs(deviation(off.exp(), 1)) < 3.5
        assert side * deviation(off, 0) > 0
        assert 0.7 < off.square().mean().sqrt() / bound.error.square().mean().sqrt() < most
        assert ((bound.ess > 1) & (bound.ess <= ais.CHAINS)).all()
        assert (bound.khat == bound.khat[0]).all()


def test_few_temperatures_show_in_effective_sample_size_and_khat():
    rough, fine = (bidirectional(LINEAR, 8, 100, seeded(2), temperatures=t) for t in (8, 150))
    for bad, good in zip(rough, fine, strict=True):
        assert bad.ess.median() < good.ess.median() / 1.5
        assert good.khat[0] < 0.5 < 0.7 < bad.khat[0]


def exact(model, x):
    """log p(x) in closed form, or by quadrature where L is 2."""
    if model is LINEAR:
        return model.problem.exact_log_prob(x)
    return log_marginal(lambda z: model.decode(z).double(), model.variance(), x, 2).value


def test_the_same_seed_gives_the_same_and_nothing_else_is_touched():
    model = network(2, 3)
    _, x = simulate(model, 2, 5)
    before = torch.random.get_rng_state()
    first, again, other = (annealed_log_prob(model, x, 2, seeded(s), temperatures=10).value for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not first.requires_grad


def test_points_are_taken_in_groups(monkeypatch):
    monkeypatch.setattr(ais, "ROWS_AT_ONCE", 400)
    _, x = simulate(LINEAR, 8, 630)
    found = annealed_log_prob(LINEAR, x, 8, seeded(1), 4, 60)
    ratio = (found.value - LINEAR.problem.exact_log_prob(x)).exp()
    assert abs(deviation(ratio, 1)) < 3.5
    assert [len(bound.value) for bound in bidirectional(LINEAR, 8, 230, seeded(1), 4, 4)] == [230, 230]


def test_finds_the_mode_that_a_posterior_misses_and_its_tail_does_not_betray():
    class Absolute:
        def decode(self, z):
            return z.double().abs()

        def variance(self):
            return 0.01

    class Right(Posterior):
        def sample(self, x, count, generator):
            noise = torch.randn(count, *x.shape, generator=generator, dtype=torch.float64)
            return x / 1.01 + noise / math.sqrt(101), standard_normal_log_prob(noise) + math.log(101) / 2

    x = torch.linspace(1, 2, 100, dtype=torch.float64)[:, None]
    truth = math.log(2) + torch.distributions.Normal(0, math.sqrt(1.01)).log_prob(x[:, 0])
    missed = importance_log_prob(Absolute(), Right(), x, 1000, seeded(1))
    assert (missed.value - truth + math.log(2)).abs().max() < 1e-6
    assert (missed.khat < 0.5).all()
    found = annealed_log_prob(Absolute(), x, 1, seeded(1), temperatures=50)
    assert abs(deviation((found.value - truth).exp(), 1)) < 3.5
    assert found.error.max() < math.log(2)


def test_trajectories_that_diverge_are_rejected():
    class Steep:
        def decode(self, z):
            return (z.double() * 20).exp()

        def variance(self):
            return 1.0

    found = annealed_log_prob(Steep(), torch.zeros(200, 1), 1, seeded(1), temperatures=30)
    z = torch.linspace(-12, 2, 100_001, dtype=torch.float64)[:, None]
    density = torch.exp(-z.square() / 2 - Steep().decode(z).square() / 2) / (2 * math.pi)
    truth = torch.trapezoid(density[:, 0], z[:, 0]).log()
    assert abs(deviation((found.value - truth).exp(), 1)) < 3.5


@pytest.mark.parametrize("settings", [(1, 10, 1), (2, 1, 1), (2, 10, 0)])
def test_refuses_settings_that_estimate_nothing(settings):
    with pytest.raises(ValueError, match=f"got {settings[0]}, {settings[1]} and {settings[2]}"):
        annealed_log_prob(LINEAR, torch.zeros(1, 9), 8, seeded(1), *settings)
    with pytest.raises(ValueError, match="2 temperatures and 1 leapfrog step, got"):
        bidirectional(LINEAR, 8, 1, seeded(1), *settings)
