"""Curves in the plane (L = 1, D = 2), after Yacoby et al., "Failure Modes of VAEs" (arXiv 2007.07124)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import ndtr

from datasets.base import Decode, Problem, require_latent_dim


def _curve(name: str, noise_variance: float, decoder: Decode, asked: int | None) -> Problem:
    return Problem(name, require_latent_dim(name, 1, asked), 2, noise_variance, decoder)


def figure8(latent_dim: int | None = None) -> Problem:
    """A lemniscate traversed nearly once.

    Args:
        latent_dim: L; only 1.
    """

    def decoder(z: Tensor) -> Tensor:
        u = (0.6 + 1.8 * ndtr(z[..., 0])) * math.pi
        sin, cos = torch.sin(u), torch.cos(u)
        return torch.stack([cos / math.sqrt(2), math.sqrt(2) * cos * sin], -1) / (sin**2 + 1)[..., None]

    return _curve("figure8", 0.02, decoder, latent_dim)


def circle(latent_dim: int | None = None) -> Problem:
    """The unit circle, closed: z = -inf and z = +inf meet.

    Args:
        latent_dim: L; only 1.
    """

    def decoder(z: Tensor) -> Tensor:
        u = 2 * math.pi * ndtr(z[..., 0])
        return torch.stack([torch.cos(u), torch.sin(u)], -1)

    return _curve("circle", 0.01, decoder, latent_dim)


def absolute(latent_dim: int | None = None) -> Problem:
    """|z| on the diagonal, so that the true posterior of z has two modes.

    Args:
        latent_dim: L; only 1.
    """
    return _curve("absolute", 0.01, lambda z: torch.cat([z.abs(), z.abs()], -1), latent_dim)


def _staircase(z: Tensor, length: float) -> tuple[Tensor, Tensor]:
    u = length / (1 + torch.exp(-math.pi * z[..., 0] / 2))
    step = torch.floor(u / 2)
    return torch.tanh(10 * u - 20 * step - 10), step


def clusters(latent_dim: int | None = None) -> Problem:
    """Clusters on the unit circle.

    Args:
        latent_dim: L; only 1.
    """

    def decoder(z: Tensor) -> Tensor:
        jump, step = _staircase(z, 2 * math.pi)
        t = 2 * jump + 4 * step + 2
        return torch.stack([torch.cos(t), torch.sin(t)], -1)

    return _curve("clusters", 0.2, decoder, latent_dim)


def spiral_dots(latent_dim: int | None = None) -> Problem:
    """Dots on an Archimedean spiral.

    Args:
        latent_dim: L; only 1.
    """

    def decoder(z: Tensor) -> Tensor:
        jump, step = _staircase(z, 4 * math.pi)
        t = jump + 2 * step + 1
        return torch.stack([t * torch.cos(t), t * torch.sin(t)], -1)

    return _curve("spiral_dots", 0.08, decoder, latent_dim)
