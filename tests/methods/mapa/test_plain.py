"""mapa-plain is the index posterior of the abstract; the ceiling of placement sees the true codes."""

import dataclasses

import pytest
import torch

import datasets
from bench.metrics import TrueModel
from methods.common.latent_grid import GridPosterior, exact_posterior
from methods.mapa import MAPA
from methods.mapa.plain import PlainMAPA


def last(fit):
    for fitted in fit:
        final = fitted
    return final


@pytest.fixture(scope="module")
def fits(make_task, short):
    return {name: (task := make_task(name, 60), last(short(PlainMAPA(), 20).fit(task))) for name in ("circle", "torus")}


@pytest.mark.parametrize("name", ["circle", "torus"])
def test_the_index_posterior_is_that_of_a_kernel_around_each_point(name, fits):
    """p(k | x) proportional to N(x; x_k, 2 s2 I), and p(i | x) = sum_k p(k | x) p(k | x_i) / sum_j p(k | x_j)."""
    task, fitted = fits[name]
    x = task.train.double()
    kernel = torch.softmax(-torch.cdist(x, x).square() / (2 * 2 * datasets.load(name).noise_variance), 1)
    expected = kernel @ (kernel / kernel.sum(0)).T
    torch.testing.assert_close(fitted.log_index(x).exp(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["circle", "torus"])
def test_the_posterior_of_training_is_that_of_new_x(name, fits):
    _, fitted = fits[name]
    assert type(fitted.posterior) is GridPosterior
    assert len(fitted.posterior.grid.low) == 60
    assert float(fitted.posterior.grid.mass.std()) < 1e-12


def test_there_is_one_placement_from_the_initial_weights(make_task):
    for name in ("circle", "torus", "pinwheel"):
        task = make_task(name, 60)
        (attempt,) = (each for each in attempts(PlainMAPA(), task) if list(each.advance(1)))
        assert attempt.steps == 1
        fresh = next(attempts(PlainMAPA(), task)).model.network[0].weight
        assert torch.equal(fresh, task.model.network[0].weight)


def attempts(method, task):
    x = task.train.double()
    for attempt in method._attempts(task, task.model, method._shares(task, x, x), x):
        attempt.loss = 0.0
        yield attempt


def test_above_two_latent_dimensions_it_is_skipped():
    assert "1 or 2 latent" in PlainMAPA().skip(3, 10, 100)
    assert PlainMAPA().skip(2, 10, 100) is None


def test_true_codes_are_seen_on_request_only(make_task):
    plain, ceiling = MAPA(), MAPA(placement="truth")
    assert (plain.sees_truth, plain.role, ceiling.sees_truth, ceiling.role) == (False, "method", True, "reference")
    task = make_task("torus", 60)
    with pytest.raises(ValueError, match="needs the true model"):
        last(ceiling.fit(task))
    problem = datasets.load("torus")
    task = dataclasses.replace(task, truth=TrueModel(problem))
    x = task.train.double()
    index = next(attempts(ceiling, task)).fitted.posterior
    codes = index.log_index(x).exp() @ index.grid.codes
    posterior = exact_posterior(task.truth, 2)
    true = posterior.grid.codes[posterior.log_index(x).argmax(1)]
    assert float(torch.corrcoef(torch.stack([codes[:, 0], true[:, 0]]))[0, 1]) > 0.7
    assert float(torch.corrcoef(torch.stack([codes[:, 1], true[:, 1]]))[0, 1]) > 0.7
