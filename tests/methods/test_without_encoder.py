"""Methods without an encoder, and the Gaussian families, against closed forms of the linear model."""

import itertools
import math

import numpy as np
import pytest
import torch

import methods
from bench.fit.flop_counter import CountingLedger
from methods.common import posteriors
from methods.common.amortised import Trainer
from methods.common.local_gaussian import nodes_of_normal
from methods.common.posteriors import LocalGaussian, PerDatumGaussian
from methods.common.without_encoder import langevin_step, log_joint
from methods.contract.decoder import mlp
from methods.full_covariance import EncodedFullGaussian, full_elbo
from methods.gtm import GTM
from methods.langevin import short_run
from methods.map_codes import MAPCodes, whitened
from methods.particles import Particles
from methods.svi import SVI
from methods.wake_sleep import reweighted
from tests.methods.test_maximum_likelihood import FAST, LINEAR, best, reached

STACKED = ["svi", "map-codes", "particles", "langevin", "full-covariance", "wake-sleep"]


@pytest.fixture
def linear(make_task):
    """A function that gives a task, and of its linear model W, p(z | x)'s precision (L, L) and its means (N, L)."""

    def make(n=500, latent=2, **options):
        task = make_task("linear_gaussian", n, latent_dim=latent, **LINEAR, **options)
        return task, *exact(task.model, task.train)

    return make


def exact(model, x):
    weight, noise = (model.units.scale * model.network[0].weight).detach(), model.variance()
    precision = torch.eye(weight.shape[1]) + weight.T @ weight / noise
    offset = model.decode(torch.zeros(1, weight.shape[1])).detach()
    return weight, precision, torch.linalg.solve(precision, weight.T @ (x - offset).T / noise).T


def rows(method, task):
    """The table at the end of a fit."""
    trainer = Trainer(method, [task])
    for _ in trainer.run():
        pass
    shown = trainer.replicas.mean
    return method.posterior_of_batch(shown.model, shown.encoder, torch.arange(len(task.train))[:, None])


# Blocks of seeds


@pytest.mark.parametrize("name", STACKED)
def test_a_seed_has_the_values_and_costs_that_it_has_alone(name, make_task, short):
    method = short(methods.load(name)(batch_size=20, restarts=2), 10)

    def fit(seeds):
        ledgers = [CountingLedger() for _ in seeds]
        tasks = [make_task("s_curve", seed=s, ledger=each) for s, each in zip(seeds, ledgers, strict=True)]
        for each in ledgers:
            each.start(every=len(ledgers) == 1)
        *_, fitted = method.fit_together(tasks)
        for each in ledgers:
            each.stop()
        return fitted, ledgers

    together, costs = fit(range(3))
    codes = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        (alone,), (cost,) = fit([seed])
        with torch.no_grad():
            torch.testing.assert_close(together[seed].model.decode(codes), alone.model.decode(codes), rtol=0, atol=1e-4)
        assert costs[seed].account() == cost.account()
        assert not cost.unlisted


# svi


def test_svi_ends_at_the_exact_posterior_of_each_training_point(linear):
    task, *_ = linear(latent=1)
    mean, log_scale = rows(SVI(steps=600, batch_size=250, learning_rate=0.03), task).detach().chunk(2, -1)
    _, precision, expected = exact(task.model, task.train)
    assert (mean - expected).abs().mean() * precision.sqrt() < 0.3
    assert log_scale.mean() == pytest.approx(-float(precision.log()) / 2, abs=0.05)


# map-codes


def test_codes_have_mean_zero_and_unit_covariance():
    codes = whitened(
        torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[3.0, 1], [0, 1]])
    )
    torch.testing.assert_close(codes.mean(1), torch.zeros(3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(codes.mT @ codes / 50, torch.eye(2).expand(3, 2, 2), atol=1e-4, rtol=0)
    assert torch.isfinite(whitened(torch.ones(1, 2))).all()


def test_map_codes_attribute_the_noise_along_the_decoder_to_the_signal(linear):
    """W W' has the eigenvalues of the covariance; the maximum of the likelihood has these less s2 (PPCA)."""
    task, *_ = linear(latent=2)
    for _ in MAPCodes(steps=600, **FAST).fit(task):
        pass
    weight, *_ = exact(task.model, task.train)
    values = np.linalg.eigvalsh(np.cov(task.train.T.double().numpy(), bias=True))[-2:]
    found = np.linalg.eigvalsh((weight @ weight.T).double().numpy())[-2:]
    noise = task.model.variance()
    assert found == pytest.approx(values, rel=0.02)
    assert found != pytest.approx(values - noise, rel=0.02)
    loss = sum(math.log((v + noise) / v) + v / (v + noise) - 1 for v in values) / 2
    x = task.train.double().numpy()
    assert best(x, 2, noise)[0] - reached(task.model, x) == pytest.approx(loss, abs=0.005)


# Langevin steps


def test_short_chains_have_the_distribution_of_the_linear_recursion(linear):
    """z_k+1 - m = (I - h P)(z_k - m) + sqrt(2 h) e for a Gaussian p(z | x) with mean m and precision P."""
    task, _, precision, means = linear(latent=2)
    x, count, chain = task.train[:1].expand(20_000, -1), 20_000, 5
    generator = torch.Generator().manual_seed(0)
    start, *shocks = torch.randn(chain + 1, count, 2, generator=generator)
    h = langevin_step(task.model, 0.2)
    z = short_run(task.model, x, start, shocks, h)
    shrink = torch.eye(2) - h * precision
    mean, covariance = -means[0], torch.eye(2)
    for _ in range(chain):
        mean, covariance = shrink @ mean, shrink @ covariance @ shrink.T + 2 * h * torch.eye(2)
    torch.testing.assert_close(z.mean(0), means[0] + mean, atol=0.03, rtol=0)
    torch.testing.assert_close(z.T.cov(), covariance, atol=0.03, rtol=0)
    assert (covariance - torch.linalg.inv(precision)).abs().max() > 0.1  # chains so short do not forget the prior


def test_particles_are_spread_as_langevin_steps_of_their_size_leave_them(linear):
    """Their variance is 1 / (P (1 - h P / 2)), not 1 / P (the unadjusted algorithm on a Gaussian)."""
    task, _, precision, means = linear(n=100, latent=1)
    method = Particles(steps=300, batch_size=100, learning_rate=1e-12, particles=20, rate=0.5)
    z = rows(method, task).detach()
    h = float(langevin_step(task.model, method.rate))
    assert float((z - means).mean()) == pytest.approx(0, abs=0.02)
    expected = 1 / (precision * (1 - h * precision / 2))
    assert float((z - means).square().mean() / expected) == pytest.approx(1, abs=0.06)
    assert float(expected * precision) > 1.1


# gtm


@pytest.mark.parametrize("latent", [1, 2])
def test_gtm_reaches_the_maximum_likelihood(linear, latent):
    task, *_ = linear(latent=latent)
    for _ in GTM(codes=400, starts=2, trial_steps=20, steps=60).fit(task):
        pass
    x = task.train.double().numpy()
    highest, _ = best(x, latent, task.model.variance())
    assert highest - 0.02 < reached(task.model, x) < highest + 1e-6


def test_gtm_declines_what_no_codebook_covers():
    assert GTM().skip(3, 10, 100) == "no codebook is dense enough above 2 latent dimensions"
    assert GTM().skip(2, 10, 100) is None


# full-covariance


@pytest.fixture
def correlated(linear):
    """A linear model whose p(z | x) is correlated, its posterior as a full Gaussian, and the data."""
    task, *_ = linear(latent=2)
    with torch.no_grad():
        task.model.network[0].weight.copy_(torch.tensor([[1.0, 0.8], [0.5, 0.9], [0.2, 0.1]]))
    weight, precision, means = exact(task.model, task.train)
    posterior = EncodedFullGaussian(mlp([3, 5], "linear", torch.Generator()), task.model.units)
    covariance = torch.linalg.inv(precision)
    root = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        layer = posterior.network[0]
        layer.weight.zero_()
        layer.weight[:2] = covariance @ weight.T / task.model.variance() * task.model.units.scale
        layer.bias.zero_()
        layer.bias[:2] = means[0] - layer.weight[:2] @ task.model.units(task.train[0])
        layer.bias[2:4], layer.bias[4] = root.diagonal().log(), root[1, 0]
    return task.model, posterior, task.train, precision


def test_a_full_covariance_holds_the_exact_posterior_where_a_diagonal_one_cannot(correlated):
    model, posterior, x, precision = correlated
    with torch.no_grad():
        z, log_q = posterior.sample(x, 8, torch.Generator().manual_seed(0))
        gap = log_joint(model, x, z) - log_q
        evidence = gap.mean(0)
        torch.testing.assert_close(gap, evidence.expand_as(gap), atol=1e-3, rtol=0)  # the same for every draw
        torch.testing.assert_close(posterior.log_prob(z[0], x).diagonal(), log_q[0], atol=1e-4, rtol=1e-4)
        nodes = nodes_of_normal(2).float()
        bound = torch.stack([full_elbo(model, posterior, x, node.expand(len(x), -1)) for node in nodes]).mean(0)
        torch.testing.assert_close(bound, evidence, atol=1e-3, rtol=0)
        lost = (precision.diagonal().log().sum() - precision.logdet()) / 2
        assert lost > 0.1
        narrow = LocalGaussian(posterior.moments(x)[0], -precision.diagonal().log().expand(len(x), 2) / 2)
        z, log_q = narrow.sample(x, 500, torch.Generator().manual_seed(0))
        found = evidence.mean() - (log_joint(model, x, z) - log_q).mean()
        assert float(found) == pytest.approx(float(lost), abs=0.02)


# wake-sleep


def test_wake_steps_of_the_encoder_seek_the_marginal_variances(correlated):
    """KL(p || q) over diagonal q is least at the variances of p, KL(q || p) at the inverse precisions."""
    model, posterior, x, precision = correlated
    x = x[:20]
    mean = posterior.moments(x)[0].detach()
    noise = torch.randn(20_000, len(x), 2, generator=torch.Generator().manual_seed(0))

    def slope(variances):
        log_scale = (variances.log() / 2).expand(len(x), 2).clone().requires_grad_()
        found = reweighted(model, LocalGaussian(mean, log_scale), x, noise)
        return torch.autograd.grad(found.surrogate.mean(), log_scale)[0].sum(0)

    marginal, conditional = torch.linalg.inv(precision).diagonal(), 1 / precision.diagonal()
    assert slope(marginal).abs().max() < 0.05
    assert slope(conditional).min() > 0.2


# Above two latent dimensions


@pytest.mark.parametrize(("name", "restarts"), [*itertools.product(STACKED[:4], (1, 2))])
def test_three_latent_dimensions(name, restarts, make_task, short):
    task = make_task("linear_gaussian", latent_dim=3)
    *_, fitted = short(methods.load(name)(restarts=restarts), 20).fit(task)
    with torch.no_grad():
        z, log_q = fitted.posterior.sample(task.train[:4], 2, torch.Generator().manual_seed(0))
        density = fitted.posterior.log_prob(z[0], task.train[:4])
    assert z.shape == (2, 4, 3)
    torch.testing.assert_close(density.diagonal(), log_q[0], atol=1e-3, rtol=1e-4)


def test_a_gaussian_is_sought_once_for_the_same_points_and_anew_for_others(make_task, monkeypatch):
    model, asked = make_task("figure8").model, []
    monkeypatch.setattr(posteriors, "laplace", lambda *_: None)
    monkeypatch.setattr(posteriors, "maximise_elbo", lambda _, x, __: asked.append(len(x)) or (x[:, :1], x[:, 1:]))
    posterior, x = PerDatumGaussian(model, 1), torch.arange(12.0).view(6, 2)
    for points in (x, x[:3], x, x[:3].clone(), x + 1, x):
        mean, _ = posterior.moments(points)
        assert torch.equal(mean, points[:, :1])
    assert asked == [6, 3, 6, 6]
