"""Surfaces (L = 2): swiss roll, S curve and torus in space, a pinwheel in the plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from datasets.base import Decode, Problem, require_latent_dim


def _surface(name: str, data_dim: int, decoder: Decode, asked: int | None) -> Problem:
    return Problem(name, require_latent_dim(name, 2, asked), data_dim, 0.01, decoder)


def swiss_roll(latent_dim: int | None = None) -> Problem:
    """A sheet rolled up one and a half times.

    Args:
        latent_dim: L; only 2.
    """

    def decoder(z: Tensor) -> Tensor:
        u = 1.5 * math.pi * (1 + 2 * ndtr(z[..., 0]))
        h = 2 * (2 * ndtr(z[..., 1]) - 1)
        return torch.stack([u * torch.cos(u) / 6, h, u * torch.sin(u) / 6], -1)

    return _surface("swiss_roll", 3, decoder, latent_dim)


def s_curve(latent_dim: int | None = None) -> Problem:
    """A sheet bent to the shape of an S.

    Args:
        latent_dim: L; only 2.
    """

    def decoder(z: Tensor) -> Tensor:
        t = 3 * math.pi * (ndtr(z[..., 0]) - 0.5)
        h = 2 * ndtr(z[..., 1]) - 1
        return torch.stack([torch.sin(t), h, torch.sign(t) * (torch.cos(t) - 1)], -1)

    return _surface("s_curve", 3, decoder, latent_dim)


def torus(latent_dim: int | None = None) -> Problem:
    """A torus of radii 1.2 and 0.5.

    Args:
        latent_dim: L; only 2.
    """

    def decoder(z: Tensor) -> Tensor:
        a, b = 2 * math.pi * ndtr(z[..., 0]), 2 * math.pi * ndtr(z[..., 1])
        r = 1.2 + torch.cos(b) / 2
        return torch.stack([r * torch.cos(a), r * torch.sin(a), torch.sin(b) / 2], -1)

    return _surface("torus", 3, decoder, latent_dim)


def pinwheel(latent_dim: int | None = None) -> Problem:
    """Five bent arms, each a fifth of the first latent coordinate.

    Args:
        latent_dim: L; only 2.
    """

    def decoder(z: Tensor) -> Tensor:
        s = 5 * ndtr(z[..., 0])
        arm = torch.floor(s).clamp(max=4)
        # At the ends of an arm its quantile is infinite; 8 standard deviations carry all of its mass.
        r = 1 + 0.35 * ndtri(s - arm).clamp(-8, 8)
        t = 0.1 * z[..., 1]
        angle = 2 * math.pi * arm / 5 + torch.exp(r) / 4
        sin, cos = torch.sin(angle), torch.cos(angle)
        return torch.stack([r * cos - t * sin, r * sin + t * cos], -1)

    return _surface("pinwheel", 2, decoder, latent_dim)
