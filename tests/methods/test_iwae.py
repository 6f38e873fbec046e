"""The importance weighted bound and its two gradients against closed forms, Pyro, simulation and planted mistakes."""

import dataclasses
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO
from torch.distributions import MultivariateNormal

from methods import iwae
from methods.common.posteriors import LocalGaussian, build_encoder
from methods.iwae import IWAE, DoublyReparameterisedIWAE, doubly_reparameterised, importance_bound


def doubly_bound(*args):
    return doubly_reparameterised(*args).bound


def doubly_surrogate(*args):
    return doubly_reparameterised(*args).surrogate


BOUNDS = (importance_bound, doubly_bound)
SURROGATES = (importance_bound, doubly_surrogate)
LINEAR = {"activation": "linear"}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def set_weight(model, weight):
    """Make the decoder W z + b with this W (D, L), in data units."""
    with torch.no_grad():
        model.network[0].weight.copy_(weight / model.units.scale)


def closed_form(model, x):
    """log p(x) of a linear decoder, (n,), and the moments of p(z | x), (n, L) and (L, L)."""
    weight = (model.units.scale * model.network[0].weight).detach().double()
    offset = model.decode(torch.zeros(model.latent_dim)).detach().double()
    identity = torch.eye(model.latent_dim, dtype=torch.float64)
    covariance = torch.linalg.inv(identity + weight.T @ weight / model.variance())
    mean = (x.double() - offset) @ weight @ covariance / model.variance()
    noise = model.variance() * torch.eye(len(weight), dtype=torch.float64)
    return MultivariateNormal(offset, weight @ weight.T + noise).log_prob(x.double()), mean, covariance


@pytest.fixture(params=[1, 2])
def linear(request, make_task):
    """A linear model whose W has orthogonal columns, so that p(z | x) is a diagonal Gaussian, and seven data."""
    task = make_task("linear_gaussian", latent_dim=request.param, **LINEAR)
    set_weight(task.model, torch.tensor([[0.9, 0.2], [-0.3, 0.6], [0.4, 0.0]])[: request.param + 1, : request.param])
    return task.model, task.train[:7]


@pytest.fixture(params=[1, 2])
def networks(request, make_task):
    """A model, an encoder and five data: L = 1 and 2."""
    task = make_task(["circle", "s_curve"][request.param - 1], noise=0.3)
    task.model.set_variance(0.3)
    return task.model, build_encoder(task.model, task.generator), task.train[:5]


def exact_posterior(model, x):
    _, mean, covariance = closed_form(model, x)
    scale = covariance.diagonal().sqrt().expand_as(mean)
    return LocalGaussian(mean.float(), scale.log().float())


def off(posterior, shift=0.5, widen=0.4):
    """A Gaussian that is a little wrong in mean and spread, at fresh leaves."""
    mean, log_scale = posterior.moments(torch.empty(0))
    leaves = mean + shift * log_scale.exp(), log_scale + widen
    return LocalGaussian(*(leaf.detach().clone().requires_grad_() for leaf in leaves))


def copies(x, count):
    """One datum (D,) as `count` independent experiments, (count, D)."""
    return x.expand(count, -1)


# The bound


def is_exact_at_the_exact_posterior(bound, model, x):
    found = bound(model, exact_posterior(model, x), x, normal(4, len(x), model.latent_dim)).detach().double()
    return torch.allclose(found, closed_form(model, x)[0], atol=2e-5, rtol=1e-5)


def is_unbiased_for_the_likelihood(bound, model, x, count=30_000):
    """E exp(bound) = p(x)."""
    data = copies(x[0], count)
    found = bound(model, off(exact_posterior(model, data)), data, normal(3, count, model.latent_dim))
    ratio = (found.detach().double() - closed_form(model, x)[0][0]).exp()
    return abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(count) < 0.05


@pytest.mark.parametrize("bound", BOUNDS)
def test_bound_is_the_likelihood_at_the_exact_posterior_whatever_the_noise(bound, linear):
    assert is_exact_at_the_exact_posterior(bound, *linear)


@pytest.mark.parametrize("bound", BOUNDS)
def test_exponential_of_the_bound_is_unbiased_for_the_likelihood(bound, linear):
    assert is_unbiased_for_the_likelihood(bound, *linear)


def over_data(bound, model, posterior, x, noise):
    """The average over data in place of codes."""
    mean, log_scale = posterior.moments(x)
    z = mean + log_scale.exp() * noise
    log_weights = model.log_likelihood(x, z) + 0.5 * (noise.square() - z.square()).sum(-1) + log_scale.sum(-1)
    return (torch.logsumexp(log_weights, 1) - math.log(len(x))).mean().expand(len(x))


def without_the_count(bound, model, posterior, x, noise):
    return bound(model, posterior, x, noise) + math.log(len(noise))


def average_of_logarithms(bound, model, posterior, x, noise):
    return torch.stack([bound(model, posterior, x, each[None]) for each in noise]).mean(0)


def without_the_spread(bound, model, posterior, x, noise):
    return bound(model, posterior, x, noise) - posterior.moments(x)[1].sum(-1)


def prior_for_density(bound, model, posterior, x, noise):
    """q left out of the weights."""
    mean, log_scale = posterior.moments(x)
    return iwae.log_mean_exp(model.log_likelihood(x, mean + log_scale.exp() * noise))


@pytest.mark.parametrize(
    "mistake", [over_data, without_the_count, average_of_logarithms, without_the_spread, prior_for_density]
)
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_mistake_in_the_bound_is_caught(mistake, bound, linear):
    def wrong(*args):
        return mistake(bound, *args)

    checks = [is_unbiased_for_the_likelihood]
    checks += [is_exact_at_the_exact_posterior] if mistake is not average_of_logarithms else []
    assert not any(check(wrong, *linear) for check in checks)


def test_bound_rises_with_the_number_of_codes_from_the_elbo_to_the_likelihood(linear):
    model, x = linear
    count = 4000
    data = copies(x[0], count)
    posterior = off(exact_posterior(model, data))
    mean, log_scale = (each.detach().double() for each in posterior.moments(data))
    log_p, exact_mean, covariance = closed_form(model, x)
    precision = covariance.diagonal().reciprocal()
    variance = (2 * log_scale[0]).exp()
    kl = 0.5 * (precision * (variance + (mean[0] - exact_mean[0]).square()) - 1 - (precision * variance).log()).sum()
    found = []
    with torch.no_grad():
        for codes in (1, 3, 10, 100):
            values = importance_bound(model, posterior, data, normal(codes, count, model.latent_dim, seed=codes))
            found.append((float(values.double().mean()), float(values.std()) / math.sqrt(count)))
    means, stderrs = zip(*found, strict=True)
    assert abs(means[0] - float(log_p[0] - kl)) < 4 * stderrs[0]
    for i in range(3):
        assert means[i + 1] - means[i] > 4 * math.hypot(stderrs[i], stderrs[i + 1])
    assert 0 < float(log_p[0]) - means[3] + 4 * stderrs[3] < 0.02


# The gradient


def gradients(bound, model, posterior, x, noise):
    parameters = [*model.network.parameters(), *posterior.network.parameters()]
    return torch.autograd.grad(bound(model, posterior, x, noise).sum(), parameters)


class CommonNoise(dist.Normal):
    """A normal distribution whose draws come from noise that is given."""

    noise = None

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise


def test_bound_and_gradient_are_those_of_pyro_on_common_noise(networks, clean_pyro, monkeypatch):
    model, posterior, x = networks
    noise = normal(6, 5, model.latent_dim)
    monkeypatch.setattr(CommonNoise, "noise", noise)

    def generative(x):
        pyro.module("model", model.network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), model.latent_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(model.decode(z), math.sqrt(model.variance())).to_event(1), obs=x)

    def guide(x):
        pyro.module("posterior", posterior.network)
        with pyro.plate("data", len(x)):
            mean, log_scale = posterior.moments(x)
            pyro.sample("z", CommonNoise(mean, log_scale.exp()).to_event(1))

    objective = RenyiELBO(alpha=0, num_particles=6, vectorize_particles=True, max_plate_nesting=1)
    theirs = -objective.loss_and_grads(generative, guide, x)
    ours = importance_bound(model, posterior, x, noise).detach().sum()
    assert float(ours) == pytest.approx(theirs, rel=1e-5)
    parameters = [*model.network.parameters(), *posterior.network.parameters()]
    for gradient, p in zip(gradients(importance_bound, model, posterior, x, noise), parameters, strict=True):
        torch.testing.assert_close(gradient, -p.grad, rtol=1e-3, atol=1e-4 * float(p.grad.abs().max()))


def test_the_model_has_one_gradient_and_the_bound_one_value(networks):
    model, posterior, x = networks
    noise = normal(6, 5, model.latent_dim)
    torch.testing.assert_close(*(bound(model, posterior, x, noise) for bound in BOUNDS))
    count = len([*model.network.parameters()])
    plain, doubly = (gradients(surrogate, model, posterior, x, noise) for surrogate in SURROGATES)
    for first, second in zip(plain[:count], doubly[:count], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max()))
    assert not any(torch.allclose(a, b, rtol=0.01) for a, b in zip(plain[count:], doubly[count:], strict=True))


def per_experiment(bound, model, x, codes, count, seed=0):
    """Independent draws of the gradient with respect to mu and log sigma of a q that is off: (count, 2 L)."""
    posterior = off(exact_posterior(model, copies(x[0], count)))
    noise = normal(codes, count, model.latent_dim, seed=seed)
    value = bound(model, posterior, copies(x[0], count), noise).sum()
    return torch.cat(torch.autograd.grad(value, posterior.moments(x)), 1).double()


def agree_in_expectation(first, second):
    difference = (first.mean(0) - second.mean(0)).abs()
    return bool((difference < 4 * ((first.var(0) + second.var(0)) / len(first)).sqrt()).all())


@pytest.mark.parametrize("codes", [1, 2, 8])
def test_gradients_agree_in_expectation_and_one_has_less_variance(linear, codes):
    plain, doubly = (per_experiment(b, *linear, codes, 30_000, seed) for seed, b in enumerate(SURROGATES))
    assert agree_in_expectation(plain, doubly)
    assert (doubly.var(0) < 0.9 * plain.var(0)).all()
    scale = 4 * (plain.var(0) / len(plain)).sqrt()
    assert (plain.mean(0).abs() > scale).all()  # so that agreement says something


def unsquared(model, posterior, x, noise):
    """Sticking the landing: the score is dropped, but the weights are not squared (a biased gradient for K > 1)."""
    mean, log_scale = posterior.moments(x)
    z = mean + log_scale.exp() * noise
    log_q = dist.Normal(mean.detach(), log_scale.detach().exp()).log_prob(z).sum(-1)
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    return iwae.log_mean_exp(model.log_likelihood(x, z) + prior - log_q)


def test_weights_that_are_not_squared_are_caught(linear):
    plain, wrong = (per_experiment(b, *linear, 8, 30_000, i) for i, b in enumerate((importance_bound, unsquared)))
    assert not agree_in_expectation(plain, wrong)


def test_doubly_reparameterised_gradient_vanishes_at_the_exact_posterior(linear):
    model, x = linear
    found = []
    for bound in SURROGATES:
        posterior = off(exact_posterior(model, x), 0, 0)
        value = bound(model, posterior, x, normal(5, len(x), model.latent_dim)).sum()
        found.append(torch.cat(torch.autograd.grad(value, posterior.moments(x))).abs().max())
    assert found[1] < 1e-3
    assert found[0] > 0.1


# The methods


@pytest.mark.parametrize(("method", "bound"), [*zip((IWAE, DoublyReparameterisedIWAE), SURROGATES, strict=True)])
def test_a_step_descends_the_bound_of_the_method(make_task, method, bound):
    """Adam's first step moves every parameter by the learning rate, with the sign of the gradient of the bound."""
    task, twin = make_task("circle", 12), make_task("circle", 12)
    posterior = build_encoder(twin.model, twin.generator)
    order = torch.randperm(12, generator=twin.generator)
    noise = torch.randn(4, 12, 1, generator=twin.generator)
    before = [p.detach().clone() for p in twin.model.network.parameters()]
    expected = gradients(bound, twin.model, posterior, twin.train[order], noise)
    fitted = next(method(samples=4, steps=1, batch_size=12, learning_rate=1e-3).fit(task))
    after = [*fitted.model.network.parameters(), *fitted.posterior.network.parameters()]
    start = [*before, *(p.detach() for p in posterior.network.parameters())]
    for new, old, gradient in zip(after, start, expected, strict=True):
        clear = gradient.abs() > 1e-3 * gradient.abs().max()
        moved = (new.detach() - old)[clear]
        torch.testing.assert_close(moved, 1e-3 * gradient[clear].sign(), rtol=1e-2, atol=1e-5)


def test_more_codes_give_a_bound_that_is_higher_after_training(make_task):
    """On a posterior of two modes the importance weighted bound leads to a better model than the ELBO."""
    found = {}
    for samples in (1, 16):
        task = make_task("absolute", 200, seed=1)
        *_, fitted = dataclasses.replace(IWAE(), samples=samples, steps=150).fit(task)
        with torch.no_grad():
            noise = normal(300, 200, 1)
            found[samples] = float(importance_bound(fitted.model, fitted.posterior, task.train, noise).mean())
    assert np.isfinite(found[1])
    assert found[16] > found[1]
