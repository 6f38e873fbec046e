"""Posteriors on boxes of latent space: the boxes, their draws, and the densities stated of them."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Independent, Normal
from torch.special import ndtr, ndtri

import datasets
from bench.metrics import TrueModel
from datasets.base import draw
from datasets.linear import linear_gaussian
from methods.common.latent_grid import GridPosterior, LatentGrid, exact_posterior, index_without_codes

SIZES = [1, 2, 3, 5, 7, 64, 500]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def standard_normal(z):
    return Independent(Normal(torch.zeros_like(z), 1.0), 1).log_prob(z)


def index_posterior(grid, points=3, seed=0):
    """A made-up p(i | x) that ignores x but for its row, and prefers some boxes strongly."""
    return torch.log_softmax(3 * torch.randn(points, grid, generator=generator(seed), dtype=torch.float64), 1)


@pytest.mark.parametrize("latent", [1, 2, 3])
@pytest.mark.parametrize("n", SIZES)
def test_boxes_tile_the_cube_in_equal_parts(n, latent):
    grid = LatentGrid.equal(n, latent)
    low, high = grid.low, grid.high
    assert low.shape == high.shape == grid.codes.shape == (n, latent)
    assert ((high - low).prod(1) - 1 / n).abs().max() < 1e-12
    assert (low >= 0).all()
    assert (high <= 1).all()
    overlap = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(-1)
    assert overlap.fill_diagonal_(0).max() < 1e-15
    torch.testing.assert_close(ndtr(grid.codes), (low + high) / 2)


@pytest.mark.parametrize("n", SIZES)
def test_codes_on_a_line_are_the_midpoints_of_quantile_intervals_in_order(n):
    expected = ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    torch.testing.assert_close(LatentGrid.equal(n, 1).codes[:, 0], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("n", [4, 100, 500])
def test_boxes_in_the_plane_are_not_much_longer_than_wide(n):
    grid = LatentGrid.equal(n, 2)
    size = grid.high - grid.low
    assert (size.amax(1) / size.amin(1)).max() <= 4


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_draws_stay_in_their_boxes_and_are_the_prior_in_all(latent):
    grid = LatentGrid.equal(7, latent)
    index = torch.arange(7).repeat(3000)
    z = grid.draw(index, generator())
    u = ndtr(z)
    assert (u >= grid.low[index] - 1e-12).all()
    assert (u <= grid.high[index] + 1e-12).all()
    assert all(kstest(column.numpy(), "norm").pvalue > 1e-3 for column in z.T)
    within = (u - grid.low[index]) / (grid.high - grid.low)[index]
    assert kstest(within[index == 3].flatten().numpy(), "uniform").pvalue > 1e-3


def test_draws_of_the_outermost_boxes_are_finite():
    grid = LatentGrid.equal(2, 1)
    assert torch.isfinite(grid.draw(torch.zeros(200_000, dtype=torch.int64), generator())).all()


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_cell_density_is_the_prior_times_the_weight_of_the_box_of_the_draw(latent):
    """The box is found anew, from where the draw lies."""
    grid, log_index = LatentGrid.equal(13, latent), index_posterior(13)
    z, log_q = GridPosterior(lambda _: log_index, grid).sample(torch.zeros(3, 2), 500, generator())
    u = ndtr(z)[..., None, :]
    box = ((u >= grid.low) & (u < grid.high)).all(-1).double().argmax(-1)
    for point in range(3):
        expected = log_index[point, box[:, point]] + math.log(13) + standard_normal(z[:, point])
        torch.testing.assert_close(log_q[:, point], expected)


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_the_cell_of_a_draw_is_the_one_that_it_was_drawn_in_and_every_code_has_one(latent):
    grid = uneven(latent) if latent < 3 else LatentGrid.equal(50, 3)
    index = torch.arange(len(grid.low)).repeat(3)
    assert (grid.cells(grid.draw(index, generator())) == index).float().mean() > 1 - 1e-5
    far = torch.tensor([-40.0, -9.0, 9.0, 40.0])[:, None].expand(-1, latent)
    cells = grid.cells(far)
    assert (grid.low[cells[:2]] == 0).all()
    assert (grid.high[cells[2:]] == 1).all()


@pytest.mark.parametrize("latent", [1, 2])
def test_the_density_of_every_x_at_every_code_integrates_to_the_mass_of_a_box(latent):
    """By a mean over the prior, of codes that no x was asked for."""
    grid = uneven(latent)
    log_index = index_posterior(len(grid.low), 4)
    posterior = GridPosterior(lambda _: log_index, grid)
    z = torch.randn(200_000, latent, generator=generator(), dtype=torch.float64)
    some = z[:2000]
    found = posterior.log_prob(some, torch.zeros(4, 2))
    assert found.shape == (2000, 4)
    cells = grid.cells(some)
    expected = log_index.T[cells] - grid.mass.log()[cells, None] + standard_normal(some)[:, None]
    torch.testing.assert_close(found, expected)
    log_q = torch.cat([posterior.log_prob(part, torch.zeros(4, 2)) for part in z.split(2000)])
    ratio = (log_q - standard_normal(z)[:, None]).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / math.sqrt(len(z))).all()


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_boxes_are_drawn_with_their_probabilities(latent):
    grid, log_index = LatentGrid.equal(11, latent), index_posterior(11, 2)
    count = 20_000
    z, _ = GridPosterior(lambda _: log_index, grid).sample(torch.zeros(2, 2), count, generator())
    u = ndtr(z)[..., None, :]
    share = ((u >= grid.low) & (u < grid.high)).all(-1).double().mean(0)
    p = log_index.exp()
    assert ((share - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt() + 1 / count).all()


@pytest.mark.parametrize("latent", [1, 2])
def test_kl_to_the_prior_is_that_of_the_index_to_uniform(latent):
    n, count = 40, 50_000
    log_index = index_posterior(n)
    z, log_q = GridPosterior(lambda _: log_index, LatentGrid.equal(n, latent)).sample(
        torch.zeros(3, 2), count, generator()
    )
    terms = log_q - standard_normal(z)
    expected = (log_index.exp() * (log_index + math.log(n))).sum(1)
    stderr = terms.std(0) / math.sqrt(count)
    assert (expected > 0.5).all()
    assert ((terms.mean(0) - expected).abs() < 4 * stderr).all()


def uneven(latent):
    """Boxes of unequal mass: finer where a steep decoder moves."""
    return LatentGrid.resolving(lambda z: torch.tanh(100 * z).cumsum(-1), latent, 0.5)


@pytest.mark.parametrize("latent", [1, 2])
def test_resolving_boxes_tile_the_cube_and_are_small_where_the_decoder_moves(latent):
    grid = uneven(latent)
    assert float(grid.mass.sum()) == pytest.approx(1, abs=1e-12)
    assert grid.mass.max() / grid.mass.min() > 1.9
    assert (grid.low[:, 0].diff() >= 0).all()
    points = torch.rand(5000, latent, generator=generator(), dtype=torch.float64)[:, None]
    assert (((points >= grid.low) & (points < grid.high)).all(-1).sum(1) == 1).all()
    assert grid.movement(lambda z: torch.tanh(100 * z).cumsum(-1)).max() <= 0.5


def test_boxes_end_at_a_step_that_nothing_resolves():
    grid = LatentGrid.resolving(lambda z: (z > 0.1234).double(), 1, 0.5)
    assert len(grid.low) < 400


@pytest.mark.parametrize("latent", [1, 2])
def test_density_on_boxes_of_unequal_mass(latent):
    """The box is found anew, from where the draw lies."""
    grid = uneven(latent)
    log_index = index_posterior(len(grid.low))
    z, log_q = GridPosterior(lambda _: log_index, grid).sample(torch.zeros(3, 2), 300, generator())
    u = ndtr(z)[..., None, :]
    box = ((u >= grid.low) & (u < grid.high)).all(-1).double().argmax(-1)
    for point in range(3):
        expected = log_index[point, box[:, point]] - grid.mass.log()[box[:, point]] + standard_normal(z[:, point])
        torch.testing.assert_close(log_q[:, point], expected)


@pytest.mark.parametrize("latent", [1, 2])
def test_points_from_the_cube_have_the_weights_of_the_boxes(latent):
    grid = uneven(latent)
    log_index = index_posterior(len(grid.low))
    u = torch.rand(4000, latent, generator=generator(), dtype=torch.float64)
    u[:, 0] = (torch.arange(4000) + 0.5) / 4000
    z = GridPosterior(lambda _: log_index, grid).from_uniform(torch.zeros(3, 2), u)
    where = ndtr(z)[..., None, :]
    share = ((where >= grid.low) & (where <= grid.high)).all(-1).double().mean(0)
    assert (share - log_index.exp()).abs().max() <= 2 / 4000


def test_points_on_a_line_are_quantiles():
    grid = LatentGrid.equal(40, 1)
    log_index = index_posterior(40)
    posterior = GridPosterior(lambda _: log_index, grid)
    u = ((torch.arange(999, dtype=torch.float64) + 1) / 1000)[:, None]
    z = posterior.from_uniform(torch.zeros(3, 2), u)[..., 0]
    assert (z.diff(dim=0) > 0).all()
    draws = posterior.sample(torch.zeros(3, 2), 20_000, generator())[0][..., 0]
    below = (draws[None] <= z[::100, None]).double().mean(1)
    assert (below - u[::100]).abs().max() < 4 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize("latent", [1, 2])
def test_the_exact_posterior_of_a_linear_model_is_gaussian(latent):
    problem = linear_gaussian(latent)
    x = draw(problem, 0, 1, 1, 5).test
    posterior = exact_posterior(TrueModel(problem), latent)
    z, log_q = posterior.sample(x, 4000, generator())
    given_z = Independent(Normal(problem.decoder(z), math.sqrt(problem.noise_variance)), 1)
    log_joint = given_z.log_prob(x) + standard_normal(z)
    gap = problem.exact_log_prob(x) - (log_joint - log_q).mean(0)
    assert gap.abs().max() < 0.02


@pytest.mark.parametrize("name", ["figure8", "spiral_dots", "pinwheel", "s_curve"])
def test_the_exact_posterior_is_as_likely_as_its_code_is_surprising(name):
    """Simulation-based calibration (Talts et al. 2018): the true code's rank among draws is uniform, on every axis."""
    problem = datasets.load(name)
    codes, x = problem.sample_joint(400, generator(5))
    draws = exact_posterior(TrueModel(problem), problem.latent_dim).sample(x, 99, generator(6))[0]
    rank = (draws < codes).double().mean(0)
    assert all(kstest(axis.numpy(), "uniform").pvalue > 1e-3 for axis in rank.T)


@pytest.mark.parametrize("latent", [1, 2])
def test_the_best_weights_of_boxes_are_the_best(latent):
    """No other weights have a higher ELBO, and with boxes this fine the ELBO is the log-likelihood."""
    problem = linear_gaussian(latent, noise_variance=0.5)
    x = draw(problem, 0, 1, 1, 5).test
    n = {1: 400, 2: 10_000}[latent]
    grid, other = LatentGrid.equal(n, latent), index_posterior(n, 5)
    best = GridPosterior(lambda _: other, grid).best(TrueModel(problem), x)
    moved = torch.log_softmax(best.log_index(x) + 0.3 * other, 1)

    def elbo(posterior):
        z, log_q = posterior.sample(x, 20_000, generator())
        normal = Independent(Normal(problem.decoder(z), math.sqrt(problem.noise_variance)), 1)
        return (normal.log_prob(x) + standard_normal(z) - log_q).mean(0)

    gap = problem.exact_log_prob(x) - elbo(best)
    assert gap.min() > -0.01
    assert gap.mean() < 0.02
    assert (elbo(best) - elbo(GridPosterior(lambda _: moved, grid)) > 0.01).all()


@pytest.mark.parametrize("name", ["circle", "s_curve", "pinwheel"])
def test_the_index_without_codes_is_the_sum_over_all_cells(name):
    """Cells without mass at a point are left out, and points that are the training points are not asked twice."""
    problem = datasets.load(name)
    split = draw(problem, 0, 30, 1, 10)
    posterior = exact_posterior(TrueModel(problem), problem.latent_dim)
    log_index = index_without_codes(posterior, split.train)
    of_train = posterior.log_index(split.train).exp()
    for x in (split.test, split.train):
        joint = (posterior.log_index(x) - posterior.log_mass).exp() @ of_train.T
        torch.testing.assert_close(log_index(x).exp(), joint / joint.sum(1, keepdim=True))
