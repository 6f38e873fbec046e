"""The noise variance where it is not known: a pilot from the data, and expectation maximisation given a fit."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity
from torch.distributions import Independent, Normal

import datasets
from datasets.base import draw
from methods.mapa.noise import pilot_noise, refine_noise


@pytest.fixture
def data():
    return draw(datasets.load("circle"), 0, 80, 1, 1).train


def log_likelihood(x, centres, noise):
    """Mean log-density of x under equal Gaussians, by torch.distributions."""
    each = Independent(Normal(centres, math.sqrt(noise)), 1).log_prob(x[:, None])
    return float((torch.logsumexp(each, 1) - math.log(len(centres))).mean())


@pytest.mark.parametrize("truth", [0.01, 0.2, 3.0])
@pytest.mark.parametrize("guess", [0.1, 10.0])
def test_noise_of_known_centres_is_found_from_any_start(truth, guess):
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    index = torch.randint(40, (6000,), generator=generator)
    x = centres[index] + math.sqrt(truth) * torch.randn(6000, 3, generator=generator, dtype=torch.float64)
    found = refine_noise(x, centres, guess * truth, steps=200)
    assert found == pytest.approx(truth, rel=0.08)
    scores = {factor: log_likelihood(x, centres, factor * found) for factor in (0.95, 1, 1.05)}
    assert max(scores, key=scores.get) == 1


def test_each_step_of_noise_estimation_raises_the_likelihood(data):
    noises = [refine_noise(data, data[:20], 1.0, steps) for steps in range(8)]
    scores = [log_likelihood(data, data[:20], noise) for noise in noises]
    assert noises[0] == 1.0
    assert (np.diff(scores) > 0).all()


def test_noise_does_not_vanish_where_the_centres_are_the_data(data):
    far = 100 * torch.arange(5.0).double()[:, None]
    assert refine_noise(far, far, 1.0) == pytest.approx(1e-6 * float(far.var(unbiased=False)))
    assert refine_noise(far[:1], far[:1], 1.0) == 1e-12


def test_pilot_noise_goes_with_the_square_of_the_units(data):
    found = pilot_noise(data)
    assert 1e-3 < found < 0.1
    assert pilot_noise(10 * data) == pytest.approx(100 * found)
    assert pilot_noise(data[:1]) == 1
    assert pilot_noise(data[:1].repeat(5, 1)) == 1


def test_pilot_noise_is_the_kernel_width_that_predicts_each_datum_best_from_the_others(data):
    """Against scikit-learn's kernel density estimate, built anew without each datum in turn."""

    def score(width):
        total = 0.0
        for left_out in range(len(data)):
            others = np.delete(data.numpy(), left_out, 0)
            total += float(KernelDensity(bandwidth=math.sqrt(width)).fit(others).score(data[left_out : left_out + 1]))
        return total

    found = pilot_noise(data)
    spread = float(data.var(0).mean())
    grid = [spread * 10 ** (power / 6) for power in range(-24, 1)]
    assert found == pytest.approx(max(grid, key=score))
