"""Wasserstein distances against closed forms and brute force."""

import itertools
import math

import pytest
import torch

from bench.metrics import wasserstein
from bench.metrics.wasserstein import _spread, squared_w2


def sets(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_against_every_assignment():
    first, second = sets(3, 5, 2), sets(3, 5, 2, seed=1)
    orders = list(itertools.permutations(range(5)))
    every = torch.stack([(first - second[:, list(order)]).square().sum(-1).mean(-1) for order in orders])
    torch.testing.assert_close(squared_w2(first, second), every.amin(0))


def test_on_a_line_it_is_the_distance_of_quantiles():
    first, second = sets(4, 50, 1), 2 * sets(4, 50, 1, seed=1) + 1
    expected = (first.sort(1).values - second.sort(1).values).square().mean((1, 2))
    torch.testing.assert_close(squared_w2(first, second), expected)


def test_a_shift_costs_its_length_and_order_costs_nothing():
    points, shift = sets(1, 30, 3), torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    shuffled = points[:, torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    assert float(squared_w2(points, shuffled)) < 1e-12
    assert float(squared_w2(points, shuffled + shift)) == pytest.approx(25)


def test_between_gaussians_on_a_line():
    """(m1 - m2)^2 + (s1 - s2)^2, with quantiles for points."""
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    z = torch.special.ndtri(u)[None, :, None]
    assert float(squared_w2(z[:, ::4], (1.5 + 2 * z)[:, ::4])) == pytest.approx(1.5**2 + 1, abs=0.02)
    assert math.sqrt(float(squared_w2(z[:, ::4], z[:, ::4]))) == 0


@pytest.mark.parametrize("count", [1, 7, 64, 500])
def test_the_order_of_points_only_saves_work(count):
    order = _spread(count)
    assert sorted(order) == list(range(count))
    assert count < 64 or min(abs(a - b) for a, b in itertools.pairwise(order)) > 1
    first, second = sets(2, count, 2), sets(2, count, 2, seed=1)
    torch.testing.assert_close(squared_w2(first, second), squared_w2(first.flip(1), second))


@pytest.mark.parametrize("shift", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_prices_only_save_work(monkeypatch, shift, scale):
    """The value is the same to the bit, for sets that overlap, that are far apart, and that are a single point."""
    first, second = (scale * sets(2, wasserstein.MANY, 2, seed=seed) + seed * shift for seed in range(2))
    priced = squared_w2(first, second)
    monkeypatch.setattr(wasserstein, "MANY", wasserstein.MANY + 1)
    assert torch.equal(priced, squared_w2(first, second))
