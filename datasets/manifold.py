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

    f(z) = W (phi(z) - E phi), phi_m(z) = cos(w_m^T z / l + b_m), with w_m ~ N(0, I_L), b_m uniform on the circle and
    Gaussian W (Rahimi & Recht 2007, algorithm 1). W is scaled so that the signal's variance under the prior is 1 per
    coordinate, on average over the coordinates. A larger D leaves the first coordinates as they are, except for scale.

    At length scale 1, the posterior's standard deviation along an axis of z is about sqrt(L s2 / (1.6 D)): an eighth of
    the prior's at L = 2, D = 50 and s2 = 1. s2 = D / 50 keeps it the same at any D.

    Args:
        latent_dim: L: 1 to 16, by default 2.
        data_dim: D: 10 to 784, and more than L.
        noise_variance: s2, relative to the signal's variance.
        length_scale: l / sqrt(L), so that f is about as curved at any L; a smaller value is more curved.

    Raises:
        ValueError: If a dimension is out of range, or the noise variance or length scale is not positive.
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

    # The name seeds the random streams of the data, so its spelling, "noise=" included, must never change.
    scales = f"noise={float(noise_variance)},length_scale={float(length_scale)}"
    name = f"manifold[latent_dim={latent},data_dim={data_dim},{scales}]"
    return Problem(name, latent, data_dim, float(noise_variance), decoder)


def moments(frequency: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of cos(W z + b) under z ~ N(0, I).

    They follow from E cos(w^T z + b) = exp(-|w|^2 / 2) cos b and cos a cos b = [cos(a - b) + cos(a + b)] / 2.

    Args:
        frequency: W, (M, L).
        phase: b, (M,).

    Returns:
        The mean, (M,), and the covariance, (M, M).
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
