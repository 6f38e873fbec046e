"""Binary data and counts whose parameters lie on a smooth curve (L = 1, D = 30) or surface (L = 2, D = 40)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.special import ndtr

from datasets.base import Problem, require_latent_dim, stream
from datasets.random_shapes import ARC, HARMONICS, WAVES, fourier

DATA_DIM = {1: 30, 2: 40}
LOGIT_SPREAD = 2.0  # the standard deviation of logits over z, on average over coordinates
RATE, LOG_RATE_SPREAD = 3.0, 0.7
GRID = 64


def binary_curve(latent_dim: int | None = None) -> Problem:
    """Bernoulli data whose 30 logits are random Fourier series in Phi(z).

    Args:
        latent_dim: L; only 1.
    """
    return _problem("binary_curve", "bernoulli", HARMONICS, 1, latent_dim)


def count_curve(latent_dim: int | None = None) -> Problem:
    """Poisson counts whose 30 log rates are random Fourier series in Phi(z).

    Args:
        latent_dim: L; only 1.
    """
    return _problem("count_curve", "poisson", HARMONICS, 1, latent_dim)


def binary_surface(latent_dim: int | None = None) -> Problem:
    """Bernoulli data whose 40 logits are random Fourier series in Phi(z).

    Args:
        latent_dim: L; only 2.
    """
    return _problem("binary_surface", "bernoulli", WAVES, 2, latent_dim)


def count_surface(latent_dim: int | None = None) -> Problem:
    """Poisson counts whose 40 log rates are random Fourier series in Phi(z).

    Args:
        latent_dim: L; only 2.
    """
    return _problem("count_surface", "poisson", WAVES, 2, latent_dim)


def _problem(name: str, family: str, waves: Sequence[Sequence[int]], own: int, asked: int | None) -> Problem:
    """A problem whose outputs are a series over three quarters of a period, scaled to mean and spread of the family."""
    latent = require_latent_dim(name, own, asked)
    series = fourier(waves, (ARC,) * latent, DATA_DIM[latent], stream(name, 0, "shape"))
    axis = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    values = series(torch.cartesian_prod(*[axis] * latent).reshape(-1, latent))
    middle, spread = (0.0, LOGIT_SPREAD) if family == "bernoulli" else (math.log(RATE), LOG_RATE_SPREAD)
    mean, scale = values.mean(0), spread / values.var(0).mean().sqrt()
    return Problem(
        name, latent, DATA_DIM[latent], None, lambda z: middle + scale * (series(ndtr(z)) - mean), family=family
    )
