"""The posterior of a new x: its boxes are the index posterior's, its places the decoder's, and its density is right."""

import math

import pytest
import torch

from methods.common.latent_grid import GridPosterior, LatentGrid
from methods.mapa.refined import RefinedPosterior

NOISE = 0.02**2
BOXES = 8
SLOPES = {1: torch.tensor([[0.5, 0.3]]), 2: torch.tensor([[0.5, 0.3, 0.0], [-0.1, 0.2, 0.3]])}


class Linear:
    """x = z A + noise, whose posterior and likelihood are Gaussian (Bishop 2006, equations 2.115 and 2.116)."""

    def __init__(self, latent_dim):
        self.slope = SLOPES[latent_dim].double()

    def decode(self, z):
        return z.double() @ self.slope

    def variance(self):
        return NOISE

    def log_likelihood(self, x):
        covariance = self.slope.T @ self.slope + NOISE * torch.eye(x.shape[1]).double()
        return torch.distributions.MultivariateNormal(torch.zeros(x.shape[1]).double(), covariance).log_prob(x)

    def log_joint(self, x, z):
        normal = torch.distributions.Normal(0.0, 1.0)
        noise = torch.distributions.Normal(self.decode(z), math.sqrt(NOISE))
        return normal.log_prob(z).sum(-1) + noise.log_prob(x).sum(-1)


def uneven(n, latent_dim):
    """An index posterior that depends on x and has nothing to do with the decoder."""
    grid = LatentGrid.equal(n, latent_dim)
    return GridPosterior(lambda x: torch.log_softmax(x[:, :1].double() * torch.linspace(-3, 3, n).double(), 1), grid)


@pytest.fixture(params=[1, 2])
def case(request):
    model = Linear(request.param)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, request.param, generator=generator, dtype=torch.float64)
    x = model.decode(z)
    return model, x + math.sqrt(NOISE) * torch.randn(x.shape, generator=generator, dtype=torch.float64)


def elbo(model, posterior, x):
    z, log_q = posterior.sample(x, 200, torch.Generator().manual_seed(1))
    return (model.log_joint(x, z) - log_q).mean(0)


def test_with_one_box_it_is_the_posterior_of_the_decoder(case):
    model, x = case
    posterior = RefinedPosterior(uneven(100, len(model.slope)), model, boxes=1)
    gap = model.log_likelihood(x) - elbo(model, posterior, x)
    assert -0.02 < float(gap.mean()) < 0.1
    best = RefinedPosterior(uneven(100, len(model.slope)), model, BOXES).best(model, x)
    torch.testing.assert_close(elbo(model, best, x), elbo(model, posterior, x))


def test_the_index_posterior_alone_chooses_the_box(case):
    model, x = case
    index = uneven(100, len(model.slope))
    posterior = RefinedPosterior(index, model, BOXES)
    boxes = LatentGrid.equal(BOXES, len(model.slope))

    def of_boxes(each):
        chosen = torch.nn.functional.one_hot(boxes.cells(each.grid.codes), BOXES).double()
        return each.log_index(x).exp() @ chosen

    near = torch.zeros(len(x), BOXES).double()
    log_index, cells = posterior.near(x)
    reached = near.scatter(1, boxes.cells(posterior.grid.codes)[cells], 1.0)
    expected = of_boxes(index) * reached
    torch.testing.assert_close(of_boxes(posterior), expected / expected.sum(1, keepdim=True), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(log_index.exp().sum(1), torch.ones(len(x)).double())


def test_draws_have_the_density_that_is_said(case):
    """By the share of draws in each half of each box against the integral of the density, and at the draws."""
    model, x = case
    posterior = RefinedPosterior(uneven(100, len(model.slope)), model, BOXES)
    z, log_q = posterior.sample(x, 50, torch.Generator().manual_seed(2))
    again = torch.stack([posterior.log_prob(each, x).diagonal() for each in z])
    torch.testing.assert_close(again, log_q)
    u = torch.quasirandom.SobolEngine(z.shape[-1], scramble=True, seed=0).draw(512)
    spread = posterior.from_uniform(x, u).mean(0)
    assert float((spread - z.mean(0)).abs().max()) < 0.5
    assert float((spread - posterior.sample(x, 4000, torch.Generator().manual_seed(3))[0].mean(0)).abs().max()) < 0.08


def test_boxes_are_not_crossed_by_cells(case):
    model, _ = case
    posterior = RefinedPosterior(uneven(100, len(model.slope)), model, BOXES)
    boxes = LatentGrid.equal(BOXES, len(model.slope))
    box = boxes.cells(posterior.grid.codes)
    assert bool((posterior.grid.low >= boxes.low[box] - 1e-12).all())
    assert bool((posterior.grid.high <= boxes.high[box] + 1e-12).all())
    assert float(posterior.grid.mass.sum()) == pytest.approx(1)


def test_density_of_all_pairs_is_that_of_the_cells(case):
    model, x = case
    posterior = RefinedPosterior(uneven(100, len(model.slope)), model, BOXES)
    z = torch.randn(300, len(model.slope), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(posterior.cells(z), posterior.grid.cells(z))
    torch.testing.assert_close(posterior.log_prob(z, x), GridPosterior.log_prob(posterior, z, x))
