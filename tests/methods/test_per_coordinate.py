"""Gaussian data with a noise variance for each coordinate, which is learned."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from sklearn.decomposition import FactorAnalysis
from torch.distributions import Independent, MultivariateNormal, Normal

import methods
from bench.fit.task import make_task, reason_to_skip
from bench.metrics.evaluator import _content
from bench.metrics.likelihood import density_grid, encoded, learned_likelihood
from bench.store.records import RunSpec
from datasets.base import Observations, draw
from datasets.quadrature import log_marginal
from methods.common.mixture_likelihood import _negative_log_likelihood_per_coordinate
from methods.contract.decoder import LEAST_NOISE, PerCoordinateModel, build_model
from methods.contract.method import NullLedger
from methods.likelihoods import PerCoordinateGaussian
from methods.mapa import deconvolution, noise

LEARNERS = [name for name in methods.BUILTIN if name not in ("oracle", "untrained", "pyro-vae", "pyro-iwae")]
STEPS = 60
NOISE = torch.tensor([0.02, 0.5, 0.08, 2.0]).double()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def bent(n, seed=0):
    """Points about a parabola in four coordinates, each with noise of its own."""
    z = normal(n, 1, seed=seed)
    signal = torch.cat([z, z, z.square() - 1, 0 * z], 1)
    return signal + NOISE.sqrt() * normal(n, 4, seed=seed + 100)


def task_of(method, x, seed=0, activation="tanh"):
    source = Observations("mine", 1, x)
    spec = RunSpec(
        dataset="mine",
        method="any",
        seed=seed,
        n_train=(len(x) - 200) // 2,
        n_test=200,
        observation_noise="per-coordinate",
        activation=activation,
    )
    split = draw(source, seed, spec.n_train, spec.n_train, spec.n_test)
    return make_task(method, source, split, spec, NullLedger()), split.test, (source, spec)


def last(fit, steps=None):
    for fitted in islice(fit, steps):  # noqa: B007 - the last one
        pass
    return fitted


def test_the_likelihood_is_that_of_torch_in_both_of_its_forms():
    likelihood, outputs = PerCoordinateGaussian(NOISE), normal(6, 4)
    x = likelihood.sample(normal(20_000, 1, 1).expand(-1, 6, 4) * 0 + outputs, seeded(1))
    assert ((x.mean(0) - likelihood.mean(outputs)).abs() < 5 * (NOISE / len(x)).sqrt()).all()
    assert torch.allclose(x.var(0), NOISE.expand(6, -1), rtol=0.06)
    expected = Independent(Normal(NOISE * outputs, NOISE.sqrt()), 1).log_prob(x)
    assert torch.allclose(likelihood.log_prob(x, outputs), expected)
    family = super(PerCoordinateGaussian, likelihood)
    assert torch.allclose(family.log_prob(x, outputs), expected)
    assert torch.allclose(family.deviance(x, outputs), likelihood.deviance(x, outputs))
    few = x[:5].flatten(0, 1)
    assert torch.allclose(likelihood.deviances(few, outputs), likelihood.deviance(few[:, None], outputs))
    assert torch.allclose(likelihood.outputs(likelihood.mean(outputs)), outputs)


@pytest.mark.parametrize("latent", [1, 2])
def test_quadrature_is_exact_for_a_linear_model(latent):
    """Whose marginal is normal; noise that differs 100-fold shows whether distances are in its units."""
    weight, x = normal(latent, 4), 2 * normal(300, 4, seed=1)
    likelihood = PerCoordinateGaussian(NOISE)
    found = log_marginal(lambda z: likelihood.outputs(z @ weight), likelihood, x, latent, 1e-4)
    exact = MultivariateNormal(torch.zeros(4).double(), weight.T @ weight + torch.diag(NOISE)).log_prob(x)
    assert (found.value - exact).abs().mean() < 1e-4
    assert found.error.mean() < 1e-4


def model_of(x, activation="tanh", seed=0):
    return build_model(x.float(), 1, None, seeded(seed), activation=activation, family=PerCoordinateGaussian.name)


def test_the_mixture_has_the_value_and_the_gradient_of_torch():
    x = bent(30)
    model = model_of(x).double()
    model.set_variances(NOISE)
    log_weights = torch.log_softmax(normal(7), 0)
    codes, parameters = normal(7, 1, seed=3), list(model.parameters())
    value = _negative_log_likelihood_per_coordinate(model, codes, log_weights, x)
    density = Independent(Normal(model.means(codes), model.variances.sqrt()), 1).log_prob(x[:, None])
    expected = -torch.logsumexp(density + log_weights, 1).mean()
    assert torch.allclose(value, expected, rtol=1e-6)
    for found, exact in zip(*(torch.autograd.grad(each, parameters) for each in (value, expected)), strict=True):
        assert torch.allclose(found, exact, rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def factors():
    """Data of one factor, and the highest likelihood of training points, by scikit-learn's factor analysis."""
    x = normal(900, 1) * torch.tensor([1.0, -2.0, 0.5, 0.0]) + NOISE.sqrt() * normal(900, 4, seed=1)
    train = task_of(methods.load("vae")(), x, activation="linear")[0].train.double().numpy()
    found = FactorAnalysis(1, tol=1e-8, max_iter=5000).fit(train)
    return x, found.score(train), found.noise_variance_


@pytest.mark.parametrize("name", ["vae", "exact-mle", "gtm", "full-covariance"])
def test_a_linear_decoder_ends_at_factor_analysis(name, factors):
    x, highest, variances = factors
    fast = {"steps": 3000, "learning_rate": 0.03} if name in ("vae", "full-covariance") else {}
    method = methods.load(name)(**fast)
    task, _, _ = task_of(method, x, activation="linear")
    fitted = last(method.fit(task))
    found = float(learned_likelihood(fitted, task.train, 1, 0).value.mean())
    assert highest - 0.02 < found < highest + 1e-3
    assert np.allclose(fitted.model.variances.detach().log(), np.log(variances), atol=0.6)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_short_fit_is_better_than_none_and_learns_every_noise(name, short):
    method = short(methods.load(name)())
    task, x, _ = task_of(method, bent(400))
    before = learned_likelihood(next(methods.load("untrained")().fit(task)), x, 1, 0).value.mean()
    fitted = last(method.fit(task), None if name.startswith("mapa") else STEPS)
    assert learned_likelihood(fitted, x, 1, 0).value.mean() > before + 0.5
    assert torch.isfinite(encoded(fitted, x.float(), 4, 0).elbo).all()
    moved = fitted.model.log_noise.detach() - model_of(task.train).log_noise
    assert (moved.abs() > 0.005).all()


def test_mapa_estimates_each_noise():
    method = methods.load("mapa")()
    task, x, _ = task_of(method, bent(900))
    fitted = last(method.fit(task))
    assert (fitted.model.variances.detach() / NOISE).log().abs().max() < math.log(1.6)
    one = methods.load("mapa")()
    alike = make_task(one, *_with_one_noise(bent(900)))
    same = last(one.fit(alike))
    values = [float(learned_likelihood(each, x, 1, 0).value.mean()) for each in (fitted, same)]
    assert values[0] > values[1] + 0.3


def _with_one_noise(x):
    source = Observations("mine", 1, x)
    spec = RunSpec(dataset="mine", method="any", seed=0, n_train=350, n_test=200, observation_noise="learned")
    return source, draw(source, 0, 350, 350, 200), spec, NullLedger()


def test_deconvolution_is_the_same_in_other_units():
    x, scale = bent(80), torch.tensor([0.1, 3.0, 20.0, 1.0]).double()
    plain = deconvolution.estimate(x, 0.3, 6.0, 5, 1, NullLedger())
    scaled = deconvolution.estimate(x * scale, 0.3, 6.0, 5, 1, NullLedger(), scale)
    assert torch.allclose(scaled.atoms, plain.atoms * scale)
    assert torch.allclose(scaled.in_units(scaled.atoms), plain.in_units(plain.atoms))
    assert torch.allclose(scaled.log_posterior(x * scale), plain.log_posterior(x))


def test_refined_variances_are_those_of_the_residuals_where_centres_are_known():
    centres = 100 * normal(5, 4)
    x = centres.repeat(400, 1) + NOISE.sqrt() * normal(2000, 4, seed=1)
    found = noise.refine_variances(x, centres, torch.ones(4).double())
    assert torch.allclose(found, (x - centres.repeat(400, 1)).square().mean(0))


def test_a_constant_coordinate_has_the_least_noise_and_no_infinite_likelihood():
    x = bent(400)
    x[:, 3] = 5.0
    method = methods.load("gtm")(steps=60, trial_steps=20)
    task, test, _ = task_of(method, x)
    fitted = last(method.fit(task))
    assert fitted.model.variances[3] < 100 * LEAST_NOISE * fitted.model.units.scale.square()
    assert torch.isfinite(learned_likelihood(fitted, test, 1, 0).value).all()


def test_several_seeds_as_one_program_have_the_values_that_each_has_alone():
    method, x = methods.load("vae")(steps=30), bent(400)
    alone = [last(method.fit(task_of(method, x, seed)[0])) for seed in (0, 1)]
    together = list(method.fit_together([task_of(method, x, seed)[0] for seed in (0, 1)]))[-1]
    z = torch.linspace(-2, 2, 9)[:, None]
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.model.decode(z), other.model.decode(z), rtol=1e-3, atol=1e-3)
        assert torch.allclose(one.model.log_noise, other.model.log_noise, atol=1e-4)
        assert not torch.allclose(one.model.log_noise, model_of(x).log_noise, atol=0.05)


def test_models_that_differ_in_one_noise_are_told_apart():
    """Even if their outputs, mean over variance, are the same; a likelihood must not be taken from the other."""
    one, other = model_of(bent(50)), model_of(bent(50))
    for model in (one, other):
        for p in model.network.parameters():
            torch.nn.init.zeros_(p)
        model.units.shift.zero_()
    other.set_variances(2 * one.variances)
    assert torch.equal(one.decode(torch.ones(1, 1)), other.decode(torch.ones(1, 1)))
    assert _content(one, 1) != _content(other, 1)


def test_the_density_on_a_grid_is_that_of_the_quadrature():
    x = bent(90)[:, :2]
    model = model_of(x)
    model.set_variances(torch.tensor([0.05, 0.6]))
    rows = torch.tensor(density_grid(model, 1, x.amin(0), x.amax(0), 12)).double()
    with torch.no_grad():
        exact = log_marginal(model.decode, model.likelihood, rows[:, :2], 1).value
    seen = exact > exact.max() - 8
    assert (rows[:, 2] - exact)[seen].abs().max() < 1e-2


def test_who_cannot_declines_with_a_reason():
    method = methods.load("pyro-vae")()
    _, _, (source, spec) = task_of(methods.load("vae")(), bent(300))
    assert reason_to_skip(source, method, spec) == "its Pyro model has one noise variance"
    assert reason_to_skip(source, methods.load("vae")(), spec) is None


def test_noise_is_taken_over_and_set():
    one, other = model_of(bent(50)), model_of(bent(60, seed=5))
    assert isinstance(one, PerCoordinateModel)
    other.take_noise(one)
    assert torch.allclose(one.variances, other.variances, rtol=1e-4)
    one.set_variances(NOISE)
    assert torch.allclose(one.variances.double(), NOISE, rtol=1e-5)
    one.set_variance(0.3)
    assert torch.allclose(one.variances, torch.tensor(0.3))
    assert one.relative_noise() == pytest.approx(0.3 / float(one.units.scale) ** 2, rel=1e-4)
    with pytest.raises(TypeError, match="gaussian with noise per coordinate likelihood has no noise variance"):
        one.variance()


def test_the_first_estimate_tells_a_noisy_coordinate_from_a_precise_one():
    """Before any fit: the truth is 0.02, 0.5, 0.08 and 2, and the start is a tenth of the variance of each."""
    model = model_of(bent(350))
    noise.set_pilot(model, bent(350))
    assert ((model.variances.detach() / NOISE).log().abs() < math.log(3)).all()
    assert model.variances.argsort().tolist() == [0, 2, 1, 3]
