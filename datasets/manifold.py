"""A family of curved manifolds in many dimensions: random smooth decoders, the same on every machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datasets.base import Problem

FEATURES = 64
SEED = 2007
LATENT_DIMS = range(1, 17)
DATA_DIMS = range(10, 785)


def manifold(
    latent_dim: int | None = None, *, data_dim: int = 50, noise_variance: float = 1.0, length_scale: float = 1.0
) -> Problem:
    """64 random Fourier features of a Gaussian process with an RBF kernel, for each coordinate of the data.

    f(z) = W (phi(z) - E phi), phi_m(z) = cos(w_m^T z / l + b_m), with w_m ~ N(0, I_L), b_m uniform on the circle and W
    Gaussian (Rahimi & Recht 2007, algorithm 1), scaled so that the signal's variance under the prior is 1 per
    coordinate of the data, on average over these. More coordinates leave those before them as they were, but for scale.

    latent_dim L: 1 to 16, 2 unless said. data_dim D: 10 to 784, more than L. noise_variance s2: over the signal's variance.
    length_scale: l / sqrt(L), so that f is about as curved at any L; the smaller, the more curved. The posterior's
    standard deviation along an axis of z is about sqrt(L s2 / (1.6 D)) at length scale 1: an eighth of the prior's at
    L = 2, D = 50 and s2 = 1. s2 = D / 50 keeps it the same at any D.

    Raises ValueError for dimensions out of range, and for a noise or a length scale that is not positive.
    """
    latent = 2 if latent_dim is None else latent_dim
    _check(latent, data_dim, noise_variance, length_scale)
    generator = torch.Generator().manual_seed(SEED)
    frequency = torch.randn(FEATURES, latent, generator=generator, dtype=torch.float64)
    frequency = frequency / (length_scale * math.sqrt(latent))
    phase = 2 * math.pi * torch.rand(FEATURES, generator=generator, dtype=torch.float64)
    weight = torch.randn(data_dim, FEATURES, generator=generator, dtype=torch.float64)
    mean, covariance = moments(frequency, phase)
    weight = weight * math.sqrt(data_dim / float(((weight @ covariance) * weight).sum()))
    offset = weight @ mean

    def decoder(z: Tensor) -> Tensor:
        return torch.cos(z @ frequency.T + phase) @ weight.T - offset

    # This name seeds the random streams of the data: its spelling must not change.
    scales = f"noise={float(noise_variance)},length_scale={float(length_scale)}"
    name = f"manifold[latent_dim={latent},data_dim={data_dim},{scales}]"
    return Problem(name, latent, data_dim, float(noise_variance), decoder)


def moments(frequency: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (M,) and covariance (M, M) of cos(W z + b) under z ~ N(0, I), for W (M, L) and b (M,).

    By E cos(w^T z + b) = exp(-|w|^2 / 2) cos b, and cos a cos b = [cos(a - b) + cos(a + b)] / 2.
    """

    def expected(w: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-w.square().sum(-1) / 2) * torch.cos(b)

    mean = expected(frequency, phase)
    difference, total = (
        expected(frequency[:, None] + sign * frequency, phase[:, None] + sign * phase) for sign in (-1, 1)
    )
    return mean, (difference + total) / 2 - mean[:, None] * mean


def _check(latent_dim: int, data_dim: int, noise_variance: float, length_scale: float) -> None:
    if latent_dim not in LATENT_DIMS:
        raise ValueError(f"manifold takes latent_dim 1 to 16, got {latent_dim}")
    if data_dim not in DATA_DIMS or data_dim <= latent_dim:
        raise ValueError(f"manifold takes data_dim 10 to 784 and above latent_dim {latent_dim}, got {data_dim}")
    if not (0 < noise_variance < math.inf and 0 < length_scale < math.inf):
        raise ValueError(
            f"manifold needs a positive noise_variance and length_scale, got {noise_variance} and {length_scale}"
        )
