"""The fit where codes come from an embedding: against what is known of the truth, and its stopping."""

import math

import pytest
import torch

import datasets
from datasets.base import draw
from datasets.manifold import manifold
from methods.common.posteriors import Prior
from methods.contract.decoder import standard_normal_log_prob
from methods.mapa import MAPA, rff_fit
from methods.mapa.method import NEAR
from methods.mapa.rff_fit import EVERY, PATIENCE, fit_embedded, signals_span
from methods.mapa.rff_lvm import LearnedPosterior


def last(fit):
    for fitted in fit:
        final = fitted
    return final


def log_likelihood(fitted, x, count=500):
    """Mean log p(x) by importance sampling, a lower bound in expectation."""
    with torch.no_grad():
        z, log_q = fitted.posterior.sample(x.float(), count, torch.Generator().manual_seed(0))
        weights = fitted.model.log_likelihood(x, z) + standard_normal_log_prob(z) - log_q
    return float((torch.logsumexp(weights, 0) - math.log(count)).mean())


def curved_task(make_task, n=300, noise=0.5, learned=False, latent_dim=3):
    problem = manifold(latent_dim, data_dim=30, noise_variance=noise, length_scale=2.0)
    split = draw(problem, 0, n, n, 200)
    task = make_task(split.train, noise="learned" if learned else noise, latent_dim=latent_dim)
    task.validation[:] = split.validation.float()
    return task, split.test


@pytest.mark.parametrize("noise", ["known", "learned"])
def test_a_linear_model_is_learned_nearly_as_well_as_the_truth(noise, make_task):
    problem = datasets.load("linear_gaussian", 3)
    x = draw(problem, 0, 1, 1, 200).test
    task = make_task("linear_gaussian", 200, latent_dim=3, noise=noise)
    first, *_, final = (log_likelihood(fitted, x) for fitted in ends(MAPA(steps=200).fit(task)))
    truth = float(problem.exact_log_prob(x).mean())
    assert truth - 0.3 < final < truth
    assert final > first + 1


def ends(fit):
    """The first and the last of what a fit yields, each before it goes on."""
    yield next(fit)
    yield last(fit)


def test_a_curved_model_is_better_than_untrained_and_than_noise_alone(make_task):
    task, x = curved_task(make_task)
    first, final = (log_likelihood(fitted, x) for fitted in ends(MAPA(steps=200).fit(task)))
    variances = task.train.double().var(0)
    gaussian = torch.distributions.Normal(task.train.double().mean(0), variances.sqrt()).log_prob(x).sum(1).mean()
    assert final > first + 10
    assert final > float(gaussian) + 3


def test_the_posterior_is_fixed_before_the_decoder_is_touched(make_task):
    task, _ = curved_task(make_task, n=100)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    fit = MAPA(steps=20).fit(task)
    first = next(fit)
    assert isinstance(first.posterior, Prior)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    posteriors = [fitted.posterior for fitted in fit]
    assert len(posteriors) == 20 + 1
    assert isinstance(posteriors[0], LearnedPosterior)
    assert all(posterior is posteriors[0] for posterior in posteriors)


def test_the_decoder_that_is_best_on_validation_data_stands(make_task):
    """Of those seen every ten steps; few data in many dimensions are soon fitted too closely."""
    task, _ = curved_task(make_task, n=60, noise=1.0)
    fit = fit_embedded(task, task.train.double(), 1000, 60)
    next(fit)
    fitted = next(fit)
    held_out = rff_fit._regression(task, fitted.posterior.start.gaussian(task.validation), task.validation)

    @torch.no_grad()
    def losses():
        """On validation points, of the present decoder and of the one that stands."""
        return float(held_out.nats(task.model)), float(held_out.nats(fitted.model))

    present, standing = zip(*[losses(), *(losses() for _ in fit)], strict=True)
    looks = present[:-1:EVERY]
    best = looks.index(min(looks)) * EVERY
    assert 0 < best < len(present) - 2
    assert standing == (*(min(looks[: k // EVERY + 1]) for k in range(len(present) - 1)), min(looks))
    assert present[-1] == min(looks)
    assert len(present) == best + PATIENCE + 1  # the last look, PATIENCE steps after the best, ends the fit


def test_a_fit_that_is_cut_short_has_the_noise_that_its_errors_have(make_task):
    """A budget may end a fit at any step: the embedding's estimate of the noise must not stand until the end."""
    task, _ = curved_task(make_task, noise=1.0, learned=True)
    *_, fitted = zip(range(32), fit_embedded(task, task.train.double(), 1000, 60), strict=False)
    train = rff_fit._regression(task, fitted[1].posterior.start.codes, task.train)
    with torch.no_grad():
        squared = (train.targets - fitted[1].model.decode(train.codes)).square().mean()
    assert fitted[1].model.variance() == pytest.approx(float(squared), rel=1e-4)


def test_no_more_steps_are_taken_than_asked_for(make_task):
    task, _ = curved_task(make_task, n=60)
    assert len(list(fit_embedded(task, task.train.double(), 7, 60))) == 1 + 7 + 1


@pytest.mark.parametrize("truth", [0.2, 1.0])
def test_noise_is_learned(truth, make_task):
    task, _ = curved_task(make_task, n=400, noise=truth, learned=True)
    last(MAPA(steps=200).fit(task))
    assert truth / 1.5 < task.model.variance() < 1.5 * truth


def test_noise_that_is_known_stays(make_task):
    task, _ = curved_task(make_task, n=60)
    before = task.model.variance()
    last(MAPA(steps=10).fit(task))
    assert task.model.variance() == before


def test_least_squares_take_antithetic_nodes_of_each_posterior(make_task):
    task, _ = curved_task(make_task, n=60)
    *_, fitted = fit_embedded(task, task.train.double(), 1, 60)
    codes = fitted.posterior.start.codes
    regression = rff_fit._regression(task, codes, task.train)
    nodes = regression.codes.unflatten(0, (2, 60))
    torch.testing.assert_close(nodes.mean(0), codes.mean.float(), atol=1e-5, rtol=1e-5)
    assert (nodes[0] - nodes[1]).abs().min() > 0
    assert torch.equal(regression.targets, torch.cat([task.train, task.train]))
    assert regression.weights.tolist() == [1] * 120


@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize("name", ["circle", "s_curve", "pinwheel", "linear_gaussian"])
def test_signals_in_few_coordinates_span_no_more(name, noise, make_task):
    task = make_task(name, 60, noise=noise)
    assert signals_span(task, task.train.double()) <= NEAR


def test_a_flat_signal_in_many_dimensions_spans_its_own(make_task):
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(30, 3, generator=generator, dtype=torch.float64)).Q
    sheet = 3 * torch.randn(400, 3, generator=generator, dtype=torch.float64) @ axes.T
    x = sheet + 0.1 * torch.randn(400, 30, generator=generator, dtype=torch.float64)
    for noise in (0.01, "learned"):
        assert signals_span(make_task(x, noise=noise, latent_dim=2), x) == 3


def test_two_latent_dimensions_are_embedded_where_signals_span_many(make_task):
    x = draw(manifold(2, data_dim=30, noise_variance=0.1), 0, 100, 1, 1).train
    task = make_task(x, noise=0.1, latent_dim=2)
    assert signals_span(task, x) > NEAR
    assert isinstance(last(MAPA(steps=5).fit(task)).posterior, LearnedPosterior)


def test_what_cannot_be_embedded_is_skipped():
    assert MAPA().skip(3, 4, 4) is None
    assert MAPA().skip(2, 2, 1) is None
    for sizes in ((3, 3, 100), (3, 4, 3), (5, 4, 100)):
        assert f"coordinates ({sizes[1]}) and data ({sizes[2]})" in MAPA().skip(*sizes)
