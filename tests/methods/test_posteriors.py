"""Posterior families: their draws, and the densities that they state of them."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Independent, Normal
from torch.special import ndtr, ndtri

from methods.posteriors import CellPosterior, Prior, PriorCells, build_encoder

SIZES = [1, 2, 3, 5, 7, 64, 500]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def standard_normal(z):
    return Independent(Normal(torch.zeros_like(z), 1.0), 1).log_prob(z)


def index_posterior(cells, points=3, seed=0):
    """A made-up p(i | x) that ignores x but for its row, and prefers some boxes strongly."""
    return torch.log_softmax(3 * torch.randn(points, cells, generator=generator(seed), dtype=torch.float64), 1)


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_prior_is_standard_normal(latent):
    z, log_q = Prior(latent).sample(torch.zeros(2000, 3), 10, generator())
    assert z.shape == (10, 2000, latent)
    torch.testing.assert_close(log_q, standard_normal(z))
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("data", ["circle", "s_curve"])
def test_diagonal_gaussian_is_that_of_torch(make_task, data):
    task = make_task(data)
    posterior = build_encoder(task.model, task.generator)
    x = task.train[:4]
    with torch.no_grad():
        z, log_q = posterior.sample(x, 4000, generator())
        mean, log_scale = posterior.moments(x)
    assert not torch.allclose(log_scale, torch.zeros(()))
    q = Independent(Normal(mean, log_scale.exp()), 1)
    torch.testing.assert_close(log_q, q.log_prob(z), rtol=1e-4, atol=1e-4)
    standard = (z - mean) / log_scale.exp()
    assert kstest(standard.flatten().numpy(), "norm").pvalue > 1e-3


def test_draws_of_a_seed_repeat_and_those_of_another_differ(make_task):
    task = make_task("circle")
    posterior = build_encoder(task.model, task.generator)
    cells = CellPosterior(lambda x: index_posterior(20, len(x)), PriorCells(20, 1))
    for family in (posterior, cells, Prior(1)):
        first, again, other = (family.sample(task.train[:3], 5, generator(seed))[0] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("latent", [1, 2, 3])
@pytest.mark.parametrize("n", SIZES)
def test_boxes_tile_the_cube_in_equal_parts(n, latent):
    cells = PriorCells(n, latent)
    low, high = cells.low, cells.high
    assert low.shape == high.shape == cells.codes.shape == (n, latent)
    assert ((high - low).prod(1) - 1 / n).abs().max() < 1e-12
    assert (low >= 0).all()
    assert (high <= 1).all()
    overlap = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(-1)
    assert overlap.fill_diagonal_(0).max() < 1e-15
    torch.testing.assert_close(ndtr(cells.codes), (low + high) / 2)


@pytest.mark.parametrize("n", SIZES)
def test_codes_on_a_line_are_the_midpoints_of_quantile_intervals_in_order(n):
    expected = ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    torch.testing.assert_close(PriorCells(n, 1).codes[:, 0], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("n", [4, 100, 500])
def test_boxes_in_the_plane_are_not_much_longer_than_wide(n):
    size = PriorCells(n, 2).high - PriorCells(n, 2).low
    assert (size.amax(1) / size.amin(1)).max() <= 4


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_draws_stay_in_their_boxes_and_are_the_prior_in_all(latent):
    cells = PriorCells(7, latent)
    index = torch.arange(7).repeat(3000)
    z = cells.draw(index, generator())
    u = ndtr(z)
    assert (u >= cells.low[index] - 1e-12).all()
    assert (u <= cells.high[index] + 1e-12).all()
    assert all(kstest(column.numpy(), "norm").pvalue > 1e-3 for column in z.T)
    within = (u - cells.low[index]) / (cells.high - cells.low)[index]
    assert kstest(within[index == 3].flatten().numpy(), "uniform").pvalue > 1e-3


def test_draws_of_the_outermost_boxes_are_finite():
    cells = PriorCells(2, 1)
    assert torch.isfinite(cells.draw(torch.zeros(200_000, dtype=torch.int64), generator())).all()


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_cell_density_is_the_prior_times_the_weight_of_the_box_of_the_draw(latent):
    """The box is found anew, from where the draw lies."""
    cells, log_index = PriorCells(13, latent), index_posterior(13)
    z, log_q = CellPosterior(lambda _: log_index, cells).sample(torch.zeros(3, 2), 500, generator())
    u = ndtr(z)[..., None, :]
    box = ((u >= cells.low) & (u < cells.high)).all(-1).double().argmax(-1)
    for point in range(3):
        expected = log_index[point, box[:, point]] + math.log(13) + standard_normal(z[:, point])
        torch.testing.assert_close(log_q[:, point], expected)


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_boxes_are_drawn_with_their_probabilities(latent):
    cells, log_index = PriorCells(11, latent), index_posterior(11, 2)
    count = 20_000
    z, _ = CellPosterior(lambda _: log_index, cells).sample(torch.zeros(2, 2), count, generator())
    u = ndtr(z)[..., None, :]
    share = ((u >= cells.low) & (u < cells.high)).all(-1).double().mean(0)
    p = log_index.exp()
    assert ((share - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt() + 1 / count).all()


@pytest.mark.parametrize("latent", [1, 2])
def test_kl_to_the_prior_is_that_of_the_index_to_uniform(latent):
    n, count = 40, 50_000
    log_index = index_posterior(n)
    z, log_q = CellPosterior(lambda _: log_index, PriorCells(n, latent)).sample(torch.zeros(3, 2), count, generator())
    terms = log_q - standard_normal(z)
    expected = (log_index.exp() * (log_index + math.log(n))).sum(1)
    stderr = terms.std(0) / math.sqrt(count)
    assert (expected > 0.5).all()
    assert ((terms.mean(0) - expected).abs() < 4 * stderr).all()
