"""Held-out problems: curves and surfaces drawn by a seed, at which nobody looks while a method is made."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.special import ndtr

from datasets.base import Decode, Problem, require_latent_dim, stream

SEEDS = range(10_000)
NOISE_VARIANCE = 0.01
ARC = 0.75  # of a period, along an axis on which a shape does not close
DECAY = 1.5
GRID = {1: 4096, 2: 64}

# The kinds, in the order of seed % 4, with the periods that each axis runs through.
CURVE_KINDS = {"open": ARC, "closed": 1.0, "crossing": 1.0, "clustered": ARC}
SURFACE_KINDS = {"sheet": (ARC, ARC), "roll": (ARC, ARC), "cylinder": (1.0, ARC), "torus": (1.0, 1.0)}

HARMONICS = ((1,), (2,), (3,), (4,))
WAVES = ((0, 1), (0, 2), (1, -1), (1, 0), (1, 1), (2, 0))
WAVE_SIZE = 0.2

POLYGON = 256
CLUSTERS = 5
SLOPE = 0.1  # of the warp between its steps, so that a clustered curve spends that share of its length there
STEP_WIDTH = 0.01


def random_curve(latent_dim: int | None = None, *, seed: int = 0) -> Problem:
    """A random Fourier series of four harmonics in u = Phi(z): open, closed, crossing or clustered, by seed % 4.

    f(u) = sum_k a_k cos(2 pi k p u) + b_k sin(2 pi k p u) over k = 1..4, with a_k, b_k ~ N(0, k^-3 I_2). A closed or
    crossing curve runs through a whole period, p = 1; the others run through three quarters of it. Series are drawn
    until one crosses itself (crossing) or does not (the other kinds). A clustered curve is an open one with u replaced
    by a steep staircase, which puts most of the mass on five short stretches. An affine map gives f(z) mean 0 and
    covariance I_2 / 2, as for `circle`; the noise variance is also that of `circle`, 0.01.

    Args:
        latent_dim: L; only 1.
        seed: The seed of the curve, 0 to 9999; seed % 4 is its kind. Data are drawn by the seeds of the study.

    Raises:
        ValueError: If the seed is not a whole number in its range, or for another latent dimension.
    """
    latent = require_latent_dim("random_curve", 1, latent_dim)
    kind, generator = _drawn("random_curve", seed, list(CURVE_KINDS))
    while True:
        curve = fourier(HARMONICS, (CURVE_KINDS[kind],), 2, generator)
        if crosses(curve) == (kind == "crossing"):
            break
    if kind != "clustered":
        return _problem(f"random_curve[seed={seed}]", latent, 2, curve)
    staircase = _staircase(generator)
    return _problem(f"random_curve[seed={seed}]", latent, 2, lambda u: curve(staircase(u)))


def random_surface(latent_dim: int | None = None, *, seed: int = 0) -> Problem:
    """A sheet, a roll, a cylinder or a torus in space, by seed % 4, bent by a random Fourier series in u = Phi(z).

    The series is sum_k A_k cos(2 pi k^T P u) + B_k sin(2 pi k^T P u) over six waves k, with A_k, B_k ~ N(0, 0.2^2
    |k|^-3 I_3). P is diagonal, with 1 for an axis on which the surface closes and 3/4 for the others. It is added to a
    flat sheet, a spiral of 1 to 1.75 turns, a cylinder or a torus. An affine map gives f(z) mean 0 and covariance
    2 I_3 / 3, about that of the built-in surfaces; the noise variance is theirs too, 0.01.

    Args:
        latent_dim: L; only 2.
        seed: The seed of the surface, 0 to 9999; seed % 4 is its kind. Data are drawn by the seeds of the study.

    Raises:
        ValueError: If the seed is not a whole number in its range, or for another latent dimension.
    """
    latent = require_latent_dim("random_surface", 2, latent_dim)
    kind, generator = _drawn("random_surface", seed, list(SURFACE_KINDS))
    turns = 1 + ARC * float(torch.rand(1, generator=generator, dtype=torch.float64))
    wave = fourier(WAVES, SURFACE_KINDS[kind], 3, generator)
    return _problem(f"random_surface[seed={seed}]", latent, 3, lambda u: _smooth(kind, turns, u) + WAVE_SIZE * wave(u))


def crosses(curve: Decode) -> bool:
    """Whether a curve crosses itself: two sides of its polygon of 256 sides meet that are not neighbours.

    Args:
        curve: The curve over [0, 1], (n, 1) -> (n, 2).
    """
    corners = torch.view_as_complex(curve(torch.linspace(0, 1, POLYGON + 1, dtype=torch.float64)[:, None]))
    left = (corners.diff()[:, None].conj() * (corners - corners[:-1, None])).imag > 0
    parts = left[:, 1:] != left[:, :-1]  # [i, j]: the line through side i has the ends of side j on its two sides
    return bool((parts & parts.T).triu(2).tril(POLYGON - 2).any())


def _drawn(name: str, seed: int, kinds: Sequence[str]) -> tuple[str, torch.Generator]:
    """The kind of a shape, and the stream that it is drawn from."""
    if type(seed) is not int or seed not in SEEDS:
        raise ValueError(f"{name} takes a whole number seed from 0 to {SEEDS[-1]}, got {seed}")
    return kinds[seed % len(kinds)], stream(name, seed, "shape")


def fourier(
    waves: Sequence[Sequence[int]], periods: Sequence[float], data_dim: int, generator: torch.Generator
) -> Decode:
    """A random Fourier series whose terms have variance |k|^-3 per coordinate: (..., L) -> (..., D).

    Args:
        waves: The wave numbers k, (M, L).
        periods: The periods from 0 to 1 along each axis, (L,).
        data_dim: D.
        generator: What the weights are drawn from.
    """
    number = torch.tensor(waves, dtype=torch.float64)
    weight = torch.randn(2, len(waves), data_dim, generator=generator, dtype=torch.float64)
    cos, sin = weight / number.norm(dim=1, keepdim=True) ** DECAY
    frequency = 2 * math.pi * number * torch.tensor(periods, dtype=torch.float64)

    def series(u: Tensor) -> Tensor:
        angle = u @ frequency.T
        return torch.cos(angle) @ cos + torch.sin(angle) @ sin

    return series


def _staircase(generator: torch.Generator) -> Decode:
    """A monotone map of (0, 1) with four steep steps; between them it is nearly flat, each time over a random share."""
    share, rise = (0.5 + torch.rand(n, generator=generator, dtype=torch.float64) for n in (CLUSTERS, CLUSTERS - 1))
    at, rise = share.cumsum(0)[:-1] / share.sum(), (1 - SLOPE) * rise / rise.sum()
    return lambda u: SLOPE * u + torch.sigmoid((u - at) / STEP_WIDTH) @ rise[:, None]


def _smooth(kind: str, turns: float, u: Tensor) -> Tensor:
    """What a surface of a kind is before the series is added: (..., 2) -> (..., 3)."""
    across, along = u.unbind(-1)
    angle, height = 2 * math.pi * across, 2 * along - 1
    if kind == "sheet":
        return torch.stack([2 * across - 1, height, torch.zeros_like(height)], -1)
    if kind == "torus":
        radius, height = 1 + 0.45 * torch.cos(2 * math.pi * along), 0.45 * torch.sin(2 * math.pi * along)
    elif kind == "roll":
        radius, angle = 0.4 + across, turns * angle
    else:
        radius = torch.ones_like(height)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), height], -1)


def _problem(name: str, latent_dim: int, data_dim: int, shape: Decode) -> Problem:
    """The problem whose signal is a shape over the unit cube, mapped to mean 0 and covariance L / D I_D."""
    axis = (torch.arange(GRID[latent_dim], dtype=torch.float64) + 0.5) / GRID[latent_dim]
    points = shape(torch.cartesian_prod(*[axis] * latent_dim).reshape(-1, latent_dim))
    mean, factor = points.mean(0), torch.linalg.cholesky(torch.cov(points.T, correction=0))
    scale = math.sqrt(latent_dim / data_dim) * torch.linalg.inv(factor).T
    return Problem(name, latent_dim, data_dim, NOISE_VARIANCE, lambda z: (shape(ndtr(z)) - mean) @ scale)
