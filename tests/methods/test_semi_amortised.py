"""Refinement by gradient steps against closed forms, finite differences and planted mistakes."""

import itertools
import math

import numpy as np
import pytest
import torch

from bench.fit.flop_counter import CountingLedger
from methods.common.optimisers import Anytime
from methods.common.posteriors import build_encoder
from methods.common.replicas import Replicas
from methods.common.training import Objective, adam, ascend, elbo
from methods.semi_amortised import RefinedGaussian, SemiAmortisedVAE
from methods.vae import VAE

LINEAR = {"activation": "linear"}
DATA = {1: "circle", 2: "s_curve"}


class Detached(RefinedGaussian):
    """Leaves the refinement out of the encoder's gradient."""

    def _slopes(self, x, z):
        return super()._slopes(x, z).detach()


class Downhill(RefinedGaussian):
    """Steps down the ELBO."""

    def _slopes(self, x, z):
        return -super()._slopes(x, z)


class WithoutPrior(RefinedGaussian):
    """Steps up the likelihood alone."""

    def _slopes(self, x, z):
        return super()._slopes(x, z) + z


def expected_bound(model, posterior, x, nodes=9):
    """E elbo over its noise by the Gauss-Hermite product rule, (n,)."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    total = 0
    for index in itertools.product(range(nodes), repeat=model.latent_dim):
        noise = torch.tensor(points[list(index)]).to(x).expand(len(x), -1)
        total = total + float(np.prod(weights[list(index)] / math.sqrt(2 * math.pi))) * elbo(model, posterior, x, noise)
    return total


@pytest.fixture
def networks(make_task):
    """A function that gives a model and an encoder, trained a little, and data; all in float64."""

    def make(latent, steps=60):
        task = make_task(DATA[latent], 100)
        *_, fitted = VAE(steps=steps, schedule="cosine").fit(task)
        return task.model.double(), fitted.posterior.double(), task.train[:20].double()

    return make


@pytest.fixture
def linear(make_task):
    """A function that gives a linear model with W of orthogonal columns, an encoder and data; all in float64."""

    def make(latent):
        task = make_task("linear_gaussian", latent_dim=latent, **LINEAR)
        model, encoder = task.model.double(), build_encoder(task.model, task.generator).double()
        with torch.no_grad():
            weight = torch.tensor([[0.9, 0.2], [-0.3, 0.6], [0.4, 0.0]], dtype=torch.float64)
            model.network[0].weight.copy_(weight[: latent + 1, :latent] / model.units.scale)
        return model, encoder, task.train[:7].double()

    return make


def best(model, x):
    """The mean (n, L) and log standard deviation (L,) of p(z | x) of a linear model, whose covariance is diagonal."""
    weight = model.units.scale * model.network[0].weight
    precision = 1 + weight.square().sum(0) / model.variance()
    offset = model.decode(torch.zeros(1, model.latent_dim))
    return (x - offset) @ weight / model.variance() / precision, -precision.log() / 2


# No refinement


def test_without_refinement_the_posterior_is_the_encoder_and_the_bound_that_of_the_vae(networks):
    model, encoder, x = networks(1, steps=2)
    posterior = RefinedGaussian(model, encoder, 0, 0.5)
    noise = torch.ones(len(x), 1, dtype=torch.float64)
    assert torch.equal(elbo(model, posterior, x, noise), elbo(model, encoder, x, noise))


def test_without_refinement_training_is_that_of_the_vae(make_task):
    found = []
    for method in (VAE(steps=20), SemiAmortisedVAE(refinements=0, steps=20, clip=1e12)):
        task = make_task("circle")
        *_, fitted = method.fit(task)
        found.append([*task.model.state_dict().values(), *fitted.posterior.moments(task.train)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# The steps


def raises_every_datum(cls, model, encoder, x, rate=0.2):
    """Whether each of four steps raises the ELBO of every datum, by quadrature."""
    with torch.no_grad():
        bounds = [expected_bound(model, cls(model, encoder, steps, rate), x) for steps in range(5)]
    return all(bool((later > earlier).all()) for earlier, later in itertools.pairwise(bounds))


@pytest.mark.parametrize("latent", [1, 2])
def test_each_step_raises_the_bound_of_every_datum(networks, latent):
    assert raises_every_datum(RefinedGaussian, *networks(latent))


@pytest.mark.parametrize("mistake", [Downhill, WithoutPrior])
def test_a_wrong_direction_is_caught(networks, mistake):
    assert not raises_every_datum(mistake, *networks(1))


@pytest.mark.parametrize("latent", [1, 2])
def test_steps_end_at_the_exact_posterior_of_a_linear_model(linear, latent):
    model, encoder, x = linear(latent)
    with torch.no_grad():
        mean, log_scale = RefinedGaussian(model, encoder, 60, 0.5).moments(x)
        exact_mean, exact_log_scale = best(model, x)
    torch.testing.assert_close(mean, exact_mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_scale, exact_log_scale.expand_as(log_scale), rtol=1e-9, atol=1e-9)


def test_a_step_of_rate_one_from_the_right_scale_is_newtons(linear):
    model, encoder, x = linear(2)
    exact_mean, exact_log_scale = best(model, x)
    near = exact_mean + 0.4 * exact_log_scale.exp()
    moments = near.detach(), exact_log_scale.expand_as(near).detach()
    mean, log_scale = RefinedGaussian(model, encoder, 1, 1.0)._refined(x, *moments)
    torch.testing.assert_close(mean, exact_mean)
    torch.testing.assert_close(log_scale, moments[1])


def test_no_step_is_longer_than_its_rate(networks):
    model, encoder, x = networks(1)
    mean, log_scale = torch.full((20, 1), 3.0).double(), torch.ones(20, 1).double()
    with torch.no_grad():
        moved, widened = RefinedGaussian(model, encoder, 1, 0.5)._refined(x, mean, log_scale)
    assert ((moved - mean).abs() / log_scale.exp()).max() == pytest.approx(0.5)
    assert (widened - log_scale).abs().max() == pytest.approx(0.5)


# Gradients


def gradient_is_that_of_differences(cls, model, encoder, x, refinements=3, rate=0.3, step=1e-6):
    """The encoder's gradient, along some directions, through the refinement."""
    posterior, parameters = cls(model, encoder, refinements, rate), list(encoder.parameters())
    noise = torch.randn(len(x), model.latent_dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(elbo(model, posterior, x, noise).mean(), parameters)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        along = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        values = []
        for shift in (step, -2 * step, step):
            torch._foreach_add_([p.data for p in parameters], along, alpha=shift)
            values.append(float(elbo(model, posterior, x, noise).mean().detach()))
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, along, strict=True))
        if abs((values[0] - values[1]) / (2 * step) - slope) > 1e-5 * max(abs(slope), 1):
            return False
    return True


@pytest.mark.parametrize("latent", [1, 2])
def test_the_encoders_gradient_through_the_steps_is_that_of_finite_differences(networks, latent):
    assert gradient_is_that_of_differences(RefinedGaussian, *networks(latent))


def test_a_detached_refinement_is_caught(networks):
    assert not gradient_is_that_of_differences(Detached, *networks(1))


@pytest.mark.parametrize("latent", [1, 2])
def test_bound_and_gradient_are_right_in_expectation(linear, latent):
    """Against E |x - W z - b|^2 = |x - W mu - b|^2 + sum_j sigma_j^2 |W_j|^2, and a refinement written out likewise."""
    model, encoder, x = linear(latent)
    weight = model.units.scale * model.network[0].weight
    offset, precision = model.decode(torch.zeros(1, latent)), weight.square().sum(0) / model.variance()
    mean, log_scale = encoder.moments(x)
    for _ in range(2):
        up = (x - offset - mean @ weight.T) @ weight / model.variance() - mean
        scale = log_scale.exp()
        wider = (1 - scale.square() * (1 + precision)) / 2
        mean, log_scale = mean + 0.3 * scale * (scale * up).clamp(-1, 1), log_scale + 0.3 * wider.clamp(-1, 1)
    spread = (2 * log_scale).exp()
    squared = (x - offset - mean @ weight.T).square().sum(1) / model.variance() + (spread * precision).sum(1)
    kl = 0.5 * (mean.square() + spread - 1 - 2 * log_scale).sum(1)
    expected = -squared / 2 - x.shape[1] / 2 * math.log(2 * math.pi * model.variance()) - kl
    found = expected_bound(model, RefinedGaussian(model, encoder, 2, 0.3), x, nodes=4)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    parameters = [*model.network.parameters(), *encoder.parameters()]
    exact = torch.autograd.grad(expected.sum(), parameters)
    for gradient, truth in zip(torch.autograd.grad(found.sum(), parameters), exact, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-6, atol=1e-6 * float(truth.abs().max()))


# Looking


def test_looking_needs_no_gradients_and_leaves_those_of_the_weights(networks):
    model, encoder, x = networks(2)
    posterior = RefinedGaussian(model, encoder, 2, 0.5)
    ascend(lambda: Objective.of(expected_bound(model, posterior, x, nodes=2)), adam(encoder.parameters(), 1e-3))
    weights = [*model.parameters(), *encoder.parameters()]
    before = [p.grad.clone() for p in weights if p.grad is not None]
    recorded = posterior.moments(x)
    with torch.no_grad():
        looked = posterior.moments(x)
    assert all(moment.requires_grad for moment in recorded)
    assert not any(moment.requires_grad for moment in looked)
    assert all(torch.equal(a, b) for a, b in zip(recorded, looked, strict=True))
    after = [p.grad for p in weights if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("latent", [1, 2])
def test_refinement_is_counted(make_task, latent):
    ledger = CountingLedger()
    task = make_task(DATA[latent], 60, ledger=ledger)
    ledger.watch(decoder=task.model.network)
    ledger.start()
    for _ in SemiAmortisedVAE(refinements=3, steps=2).fit(task):
        pass
    ledger.stop()
    assert (ledger.encoder_passes, ledger.decoder_passes) == (120, 120 * (1 + 3 * 2 * latent))
    assert not ledger.unlisted


# Long gradients


def gradients_of_two_seeds(make_task, monkeypatch, clip):
    """The gradients that the optimiser is given in five steps of two seeds as one program, (5, 2, P)."""
    seen = []

    def step(self, gradient, *args, right=Anytime.step):
        seen.append(gradient.clone())
        right(self, gradient, *args)

    monkeypatch.setattr(Anytime, "step", step)
    tasks = [make_task("circle", seed=seed) for seed in range(2)]
    for _ in SemiAmortisedVAE(steps=5, clip=clip).fit_together(tasks):
        pass
    return torch.stack(seen)


def test_a_longer_gradient_is_scaled_down_to_the_bound_and_a_shorter_one_stays(make_task, monkeypatch):
    free = gradients_of_two_seeds(make_task, monkeypatch, 1e12)[0]
    norms = free.norm(dim=1)
    between = float(norms.mean())
    assert float(norms.min()) < between < float(norms.max())
    bounded = gradients_of_two_seeds(make_task, monkeypatch, between)[0]
    longer, shorter = int(norms.argmax()), int(norms.argmin())
    assert torch.equal(bounded[shorter], free[shorter])
    torch.testing.assert_close(bounded[longer], free[longer] * (between / norms[longer]))


def test_one_exploding_gradient_does_not_hold_later_steps_back(make_task, monkeypatch):
    """Planted at the eleventh of 300 steps. Without a bound, the weights then move less than a twentieth as far."""

    def moved(clip):
        iterates = []

        def differentiate(self, loss, parameters, right=Replicas.differentiate):
            right(self, loss, parameters)
            if len(iterates) == 10:
                self.gradient.mul_(1e9)

        def step(self, gradient, *args, right=Anytime.step):
            right(self, gradient, *args)
            iterates.append(self.iterate.clone())

        monkeypatch.setattr(Replicas, "differentiate", differentiate)
        monkeypatch.setattr(Anytime, "step", step)
        for _ in SemiAmortisedVAE(steps=300, clip=clip).fit(make_task("circle")):
            pass
        monkeypatch.undo()
        return float((iterates[-1] - iterates[20]).norm())

    assert moved(1e12) < 0.05 * moved(5.0)
